"""MLflow's client: checks that it is installed, configures it, and opens a store.

Only `connect` imports MLflow, which takes about 2 s (3.17.2, measured).
"""

from __future__ import annotations

import os
import re
import shlex
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

__all__ = ["OLDEST", "Store", "connect", "mlflow_version", "opening", "ui_command", "what_is_missing"]

# The first MLflow that works without `pkg_resources`, which setuptools has dropped, and that allows `:` in keys.
OLDEST = (2, 16)

_SQLITE_MAGIC = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True)
class Store:
    """An open tracking store."""

    client: MlflowClient
    uri: str
    args: MlflowArgs

    @property
    def is_server(self) -> bool:
        """Whether this is an MLflow server, and not a file."""
        return self.uri.startswith("http")


def mlflow_version() -> tuple[int, ...] | None:
    """The installed version, found without importing MLflow."""
    for distribution in ("mlflow-skinny", "mlflow"):
        try:
            return tuple(int(number) for number in re.findall(r"\d+", version(distribution))[:3])
        except PackageNotFoundError:
            continue
    return None


def what_is_missing(args: MlflowArgs) -> str | None:
    """A message that names what to install for these arguments; `None` if nothing is missing."""
    found, oldest = mlflow_version(), ".".join(map(str, OLDEST))
    if found is None:
        return f"mlflow is not installed; run: pip install 'mlflow-skinny>={oldest}'"
    if found < OLDEST:
        return f"mlflow {'.'.join(map(str, found))} is too old; run: pip install 'mlflow-skinny>={oldest}'"
    if args.uri.startswith("sqlite:") and not all(map(find_spec, ("sqlalchemy", "alembic"))):
        return "a sqlite store needs SQLAlchemy and Alembic; run: pip install 'sqlalchemy>=2,<2.1' 'alembic>=1.12'"
    return None


def ui_command(uri: str) -> str:
    """The command that shows what a store holds, with a comment on what it needs where MLflow's UI is missing."""
    command = f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
    # mlflow-skinny has the command, too, which then fails to import Flask (3.17.2, seen)
    if find_spec("flask") is not None:
        return command
    found = ".".join(map(str, mlflow_version() or OLDEST))
    return f"{command}  # needs mlflow=={found}, not mlflow-skinny alone"


@contextmanager
def opening(uri: str) -> Iterator[None]:
    """Turn the client's errors into those that `prepare` and `open_run` may raise."""
    try:
        yield
    except RolecallError:
        raise
    except Exception as error:
        raise opening_error(error, uri) from error


@contextmanager
def connect(args: MlflowArgs, directory: Path) -> Iterator[Store]:
    """Open the store, and create it if it is a file. Inside the block no other process of this machine opens it.

    Args:
        args: the backend's arguments.
        directory: the backend's own folder.

    Raises:
        Unavailable: the store cannot be reached.
        BackendRefused: the user has to install or set something; the message says what.
    """
    if missing := what_is_missing(args):
        raise BackendRefused(missing)
    uri = args.store_uri(directory)
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
            f"this MLflow version writes to {uri} only if the environment of the launcher and of every role has "
            "MLFLOW_ALLOW_FILE_STORE=true; set that, or set monitor_args.uri to sqlite:////ABSOLUTE/PATH.db"
        ) from error


def _set_environment(args: MlflowArgs) -> None:
    # MLflow's client reads all of this from the environment and nowhere else.
    wanted = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": args.timeout,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": args.retries,
        "MLFLOW_TRACKING_USERNAME": args.username,
        "MLFLOW_TRACKING_PASSWORD": args.password.get_secret_value() if args.password else None,
    }
    os.environ.update({name: str(value) for name, value in wanted.items() if value is not None})
    # MLflow's own defaults, 7 retries of 120 s each, block a call to a dead server for 246 s (3.17.2, measured).
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


@contextmanager
def _first_use(uri: str) -> Iterator[None]:
    """Let one process at a time open a file, which creates or migrates it."""
    # Three processes that open a new sqlite file at the same time break its migration permanently (3.17.2, measured).
    # The lock is on the directory, so it leaves no file behind, and the kernel releases it if this process is killed.
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
    """The directory of a local store, which is created if it does not exist; `None` for a server."""
    if uri.startswith("sqlite:"):
        return _check_sqlite(sqlite_path(uri))
    if uri.startswith("file:"):
        return _make_directory(Path(uri.removeprefix("file://")))
    return None


def _lock(directory: int) -> None:
    try:
        import fcntl

        fcntl.flock(directory, fcntl.LOCK_EX)
    except (ImportError, OSError):  # Windows, or a file system without locks: go on without
        return


def _check_sqlite(path: Path) -> Path:
    # Otherwise MLflow tries to open an unusable file for 102 s before it raises (3.17.2, measured).
    directory = _make_directory(path.parent)
    try:
        with path.open("rb") as file:
            magic = file.read(len(_SQLITE_MAGIC))
    except FileNotFoundError:
        return directory
    except OSError as error:
        raise _unusable(path, error) from error
    if magic not in {b"", _SQLITE_MAGIC}:
        raise BackendRefused(f"{path} is not a sqlite file; set monitor_args.uri to another path")
    if not os.access(path, os.W_OK):
        raise BackendRefused(f"{path} is not writable; change its permissions, or set monitor_args.uri to another path")
    return directory


def _make_directory(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, error) from error
    if not os.access(path, os.W_OK):
        raise BackendRefused(f"{path} is not writable; change its permissions, or set monitor_args.uri to another path")
    return path


def _unusable(path: Path, error: OSError) -> BackendRefused:
    return BackendRefused(f"{path} cannot be used: {error.strerror}; fix that, or set monitor_args.uri to another path")
