"""trackio's database of one project.

It is written through `trackio.sqlite_storage.SQLiteStorage.bulk_log`, which trackio's own server calls for the rows of
others (read in 0.38 and 0.43). The public `Run.log` takes no time and no id of a row, drops rows with a warning if the
database is locked, and is written half a second later by a thread; `trackio.init` prints, and ends another run.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

from rolecall import BackendRefused, Unavailable

__all__ = ["Entry", "Store"]

# trackio keeps its directory in constants of these modules. All of rolecall's runs in a process have one directory,
# except in tests; there, each call sets them.
_MODULES: Final = ("trackio.utils", "trackio.sqlite_storage", "trackio.media.utils")
_LOCK: Final = threading.Lock()


class Entry(NamedTuple):
    """One row of trackio's table `metrics`."""

    log_id: str
    step: int
    timestamp: str
    metrics: Mapping[str, Any]


class Store:
    """The database of a project in a directory, and the media beside it."""

    def __init__(self, directory: Path, project: str) -> None:
        """Import trackio, which takes a second or two of CPU.

        Raises:
            BackendRefused: trackio cannot be imported, the project has a name that trackio refuses, or trackio would
                not write a database in this directory.
        """
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        self.directory = directory
        self._project = project
        try:
            self._modules = [import_module(name) for name in _MODULES]
        except Exception as error:  # an import can raise anything, and another try does not help
            detail = str(error).partition("\n")[0]
            raise BackendRefused(f"trackio cannot be imported ({detail}); run: pip install -U trackio") from error
        with self._here() as (utils, storage):
            self._storage = storage.SQLiteStorage
            self._check(utils)
            self.path = Path(self._storage.get_project_db_path(project))

    def append(self, run_id: str, name: str, entries: Sequence[Entry], config: Mapping[str, Any] | None = None) -> None:
        """Write rows, and a run's config, in one transaction. A row whose `log_id` is there already is left out.

        Raises:
            Unavailable: the database is locked, or the disk is full; none was written.
        """
        with self._here(), unavailable(self.path):
            self._storage.bulk_log(
                project=self._project,
                run=name,
                run_id=run_id,
                metrics_list=[dict(entry.metrics) for entry in entries],
                steps=[entry.step for entry in entries],
                timestamps=[entry.timestamp for entry in entries],
                log_ids=[entry.log_id for entry in entries],
                config=None if config is None else dict(config),
            )

    def config(self, run_id: str) -> Mapping[str, Any]:
        """What the run's config is now."""
        with self._here(), unavailable(self.path):
            return self._storage.get_run_config(self._project, None, run_id) or {}

    def has_run(self, run_id: str) -> bool:
        """Whether the database has a row of the run. It is deleted by deleting its rows."""
        return bool(self._select("SELECT 1 FROM metrics WHERE run_id = ? LIMIT 1", run_id))

    def log_ids(self, prefix: str) -> list[str]:
        """All that begin with `prefix`."""
        # up to the prefix with a higher last character, so that the index on `log_id` finds them
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        found = self._select("SELECT log_id FROM metrics WHERE log_id >= ? AND log_id < ?", prefix, end)
        return [log_id for (log_id,) in found]

    def sync(self) -> None:
        """Make what was written survive the node, too: trackio's `synchronous = NORMAL` does not."""
        with unavailable(self.path), closing(sqlite3.connect(self.path, timeout=30.0)) as db:
            db.execute("PRAGMA wal_checkpoint(FULL)")

    def keep(self, file: Path, run: str, step: int, name: str) -> str:
        """Copy a file to where trackio keeps a run's media of a step; returns its path as a row names it."""
        # trackio takes the run's name as it is: `..` would lead out of its folder
        folder = re.sub(r"[^\w.-]", "_", run).strip(".") or "run"
        with self._here() as (utils, _), unavailable(self.directory):
            media = import_module("trackio.media.utils").get_project_media_path(self._project, folder, step)
            temporary = media / f".{name}"
            shutil.copyfile(file, temporary)
            temporary.replace(media / name)
            return str((media / name).relative_to(utils.MEDIA_DIR))

    def _select(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        if not self.path.exists():
            return []
        uri = f"{self.path.absolute().as_uri()}?mode=ro"
        with unavailable(self.path), closing(sqlite3.connect(uri, uri=True, timeout=30.0)) as db:
            return db.execute(query, parameters).fetchall()

    def _check(self, utils: ModuleType) -> None:
        try:
            self._storage.validate_project_name(self._project)
        except ValueError as error:
            raise BackendRefused(str(error)) from error
        if utils.get_storage_mode() != "sqlite":
            raise BackendRefused(
                f"{self.directory} is on a network file system, where trackio itself writes no database; set "
                "monitor_args.dir to a local disk, or TRACKIO_STORAGE_MODE=sqlite if only one node writes it"
            )

    @contextmanager
    def _here(self) -> Iterator[tuple[ModuleType, ModuleType]]:
        """Point trackio to this directory."""
        with _LOCK:
            for module in self._modules:
                for name, path in (("TRACKIO_DIR", self.directory), ("MEDIA_DIR", self.directory / "media")):
                    if hasattr(module, name):
                        setattr(module, name, path)
            yield self._modules[0], self._modules[1]


@contextmanager
def unavailable(path: Path) -> Iterator[None]:
    """A locked database or a full disk: rolecall sends the rows again."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(f"trackio: {path}: {error}") from error
