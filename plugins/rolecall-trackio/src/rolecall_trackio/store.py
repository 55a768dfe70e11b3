"""trackio's database of one project.

It is written through `trackio.sqlite_storage.SQLiteStorage.bulk_log`, which trackio's own server calls for the rows of
others (read in 0.38 and 0.43). The public `Run.log` takes no time and no id of a row, drops rows with a warning if the
database is locked, and is written half a second later by a thread; `trackio.init` prints, and ends another run.
"""

import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from rolecall import BackendRefused, Unavailable

__all__ = ["Entry", "Store"]

# trackio keeps its directory in constants of these modules. All of rolecall's runs in a process have one directory,
# except in tests; there, each call sets them.
_MODULES: Final = ("trackio.utils", "trackio.sqlite_storage", "trackio.media.utils")
_LOCK: Final = threading.Lock()
_NETWORK: Final = (
    "a network file system; set monitor_args.dir, or TRACKIO_STORAGE_MODE=sqlite if only one node writes it"
)

Entry = Mapping[str, Any]
"""An argument of `bulk_log` for each row: its `log_ids`, `steps`, `timestamps` and `metrics_list`."""


class Store:
    """The database of a project in a directory, and the media beside it."""

    def __init__(self, directory: Path, project: str) -> None:
        """Import trackio, which takes a second or two of CPU.

        Raises:
            BackendRefused: trackio cannot be imported, the project has a name that trackio refuses, or trackio would
                not write a database in this directory.
        """
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        self.directory, self._project = directory, project
        try:
            self._modules = [import_module(name) for name in _MODULES]
        except Exception as error:  # an import can raise anything, and another try does not help
            raise BackendRefused(f"trackio cannot be imported ({error}); run: pip install -U trackio") from error
        with self._here() as (utils, storage, _):
            self._storage = storage.SQLiteStorage
            try:
                self._storage.validate_project_name(project)
            except ValueError as error:
                raise BackendRefused(str(error)) from error
            if utils.get_storage_mode() != "sqlite":
                raise BackendRefused(f"{directory} is on {_NETWORK}")
            self.path = Path(self._storage.get_project_db_path(project)).absolute()

    def append(self, run_id: str, name: str, entries: Sequence[Entry], config: Entry | None = None) -> None:
        """Write rows, and add to a run's config, in one transaction. A row whose `log_id` is there is left out.

        Raises:
            Unavailable: the database is locked, or the disk is full; none was written.
        """
        lists = {key: [each[key] for each in entries] for key in entries[0]}
        with self._here(), self._unavailable():
            if config is not None:
                config = {**(self._storage.get_run_config(self._project, None, run_id) or {}), **config}
            self._storage.bulk_log(project=self._project, run=name, run_id=run_id, config=config, **lists)
            # trackio's `synchronous = NORMAL` survives a process, and this the node, too
            with closing(sqlite3.connect(self.path, 30.0)) as db:
                db.execute("PRAGMA wal_checkpoint(FULL)")

    def select(self, query: str, *parameters: object) -> Iterator[tuple[Any, ...]]:
        """Read without writing; nothing if there is no database."""
        if self.path.exists():
            with self._unavailable(), closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", 30.0, uri=True)) as db:
                yield from db.execute(query, parameters)

    def keep(self, file: Path, run: str, step: int, name: str) -> str:
        """Copy a file to where trackio keeps a run's media of a step; returns its path as a row names it."""
        # trackio takes the run's name as it is: `..` would lead out of its folder
        folder = re.sub(r"[^\w.-]", "_", run).strip(".") or "run"
        with self._here() as (utils, _, media), self._unavailable():
            path: Path = media.get_project_media_path(self._project, folder, step) / name
            Path(shutil.copyfile(file, path.with_name(f".{name}"))).replace(path)
            return str(path.relative_to(utils.MEDIA_DIR))

    @contextmanager
    def _here(self) -> Iterator[Sequence[Any]]:
        """Point trackio to this directory."""
        with _LOCK:
            for module in self._modules:
                for name, path in (("TRACKIO_DIR", self.directory), ("MEDIA_DIR", self.directory / "media")):
                    if hasattr(module, name):
                        setattr(module, name, path)
            yield self._modules

    @contextmanager
    def _unavailable(self) -> Iterator[None]:
        """A locked database or a full disk: rolecall sends the rows again."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise Unavailable(f"trackio: {self.path}: {error}") from error
