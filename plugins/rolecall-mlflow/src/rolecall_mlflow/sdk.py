"""MLflow's client: whether it is installed, how it is set up, and a store that it opens.

Nothing here imports MLflow before `connect` does: that takes about 2 s.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from rolecall import BackendRefused, RolecallError
from rolecall_mlflow.args import MlflowArgs, sqlite_path
from rolecall_mlflow.faults import opening_error

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["OLDEST", "Store", "connect", "mlflow_version", "opening", "what_is_missing"]

OLDEST = (2, 16)
"""The first MLflow that does without `pkg_resources`, which new setuptools lack; it also brought `:` in keys."""

_SQLITE_MAGIC = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True)
class Store:
    """An open tracking store."""

    client: MlflowClient
    uri: str
    args: MlflowArgs

    @property
    def is_server(self) -> bool:
        """Whether a server stands between this process and the store."""
        return self.uri.startswith("http")


def mlflow_version() -> tuple[int, ...] | None:
    """The installed version's numbers, without importing it."""
    for distribution in ("mlflow-skinny", "mlflow"):
        try:
            return tuple(int(number) for number in re.findall(r"\d+", version(distribution))[:3])
        except PackageNotFoundError:
            continue
    return None


def what_is_missing(args: MlflowArgs) -> str | None:
    """What has to be installed for these arguments, in words that a user can act on; `None` if nothing."""
    found, oldest = mlflow_version(), ".".join(map(str, OLDEST))
    if found is None:
        return f"mlflow is not installed; run: pip install 'mlflow-skinny>={oldest}'"
    if found < OLDEST:
        return f"mlflow {'.'.join(map(str, found))} is too old; run: pip install 'mlflow-skinny>={oldest}'"
    if args.uri.startswith("sqlite:") and not all(map(find_spec, ("sqlalchemy", "alembic"))):
        return "a sqlite store needs SQLAlchemy and Alembic; run: pip install 'rolecall-mlflow[local]'"
    return None


@contextmanager
def opening(uri: str) -> Iterator[None]:
    """Turn the client's errors into the two that `prepare` and `open_run` may raise."""
    try:
        yield
    except RolecallError:
        raise
    except Exception as error:
        raise opening_error(error, uri) from error


@contextmanager
def connect(args: MlflowArgs, monitor_dir: Path) -> Iterator[Store]:
    """A client of the store, which is created if it is a file; alone on this machine inside the block.

    Raises:
        Unavailable: it cannot be reached.
        BackendRefused: something has to be installed, set or mended; the message says what.
    """
    if missing := what_is_missing(args):
        raise BackendRefused(missing)
    uri = args.store_uri(monitor_dir)
    _set_environment(args)
    with opening(uri), _first_use(uri):
        from mlflow import MlflowClient

        yield Store(_client(MlflowClient, uri), uri, args)


def _client(make: type[MlflowClient], uri: str) -> MlflowClient:
    try:
        return make(tracking_uri=uri)
    except Exception as error:
        if "MLFLOW_ALLOW_FILE_STORE" not in str(error):
            raise
        raise BackendRefused(
            f"this MLflow writes {uri} only if MLFLOW_ALLOW_FILE_STORE=true stands in the environment of the "
            "launcher and of every role; or set monitor_args.uri to sqlite:////ABSOLUTE/PATH.db"
        ) from error


def _set_environment(args: MlflowArgs) -> None:
    """Set up the client, which reads all of this from the environment and nowhere else.

    Its own defaults, 7 retries of 120 s each, block one call to a dead server for 246 s (3.17.2).
    """
    wanted = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": args.timeout,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": args.retries,
        "MLFLOW_TRACKING_USERNAME": args.username,
        "MLFLOW_TRACKING_PASSWORD": args.password.get_secret_value() if args.password else None,
    }
    os.environ.update({name: str(value) for name, value in wanted.items() if value is not None})
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


@contextmanager
def _first_use(uri: str) -> Iterator[None]:
    """Hold others off while a file is opened, which creates or migrates it.

    Three processes that open a new sqlite file together break its migration, for good (3.17.2). The lock is on
    the directory: the kernel drops it if this process dies, and nothing is left over.
    """
    directory = _directory(uri)
    if directory is None:
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def _directory(uri: str) -> Path | None:
    """Where the file of a local store is, created if need be; `None` for a server."""
    if uri.startswith("sqlite:"):
        return _check_sqlite(sqlite_path(uri))
    if uri.startswith("file:"):
        return _make_directory(Path(uri.removeprefix("file://")))
    return None


def _lock(directory: int) -> None:
    try:
        import fcntl

        fcntl.flock(directory, fcntl.LOCK_EX)
    except (ImportError, OSError):  # Windows, or a file system without locks: MLflow is on its own
        return


def _check_sqlite(path: Path) -> Path:
    """Say at once what is wrong with the file: MLflow would try to open it for 102 s (3.17.2)."""
    directory = _make_directory(path.parent)
    try:
        with path.open("rb") as file:
            magic = file.read(len(_SQLITE_MAGIC))
    except FileNotFoundError:
        return directory
    except OSError as error:
        raise _unusable(path, error) from error
    if magic not in {b"", _SQLITE_MAGIC}:
        raise BackendRefused(f"{path} is not a sqlite file; name another in monitor_args.uri")
    if not os.access(path, os.W_OK):
        raise BackendRefused(f"{path} cannot be written; mend its permissions or monitor_args.uri")
    return directory


def _make_directory(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, error) from error
    if not os.access(path, os.W_OK):
        raise BackendRefused(f"{path} cannot be written; mend its permissions or monitor_args.uri")
    return path


def _unusable(path: Path, error: OSError) -> BackendRefused:
    return BackendRefused(f"{path} cannot be used: {error.strerror}; mend it or monitor_args.uri")
