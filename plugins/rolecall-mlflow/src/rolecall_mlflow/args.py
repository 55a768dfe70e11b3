"""The arguments of the backend `mlflow`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError

from rolecall import BackendRefused

__all__ = ["DEFAULT_URI", "MONITOR_DIR", "MlflowArgs", "sqlite_path"]

# Trinity-RFT's default (`trinity/utils/monitor.py`), and the default address of `mlflow server`.
DEFAULT_URI: Final = "http://localhost:5000"

MONITOR_DIR: Final = "{monitor_dir}"
_NOT_A_STORE: Final = (
    "not an MLflow store that several processes can write to; allowed: http://HOST:PORT, https://HOST, "
    "sqlite:////ABSOLUTE/PATH.db, file:///ABSOLUTE/PATH. For another database run "
    "`mlflow server --backend-store-uri ...` and use the address of that server"
)


class MlflowArgs(BaseModel):
    """What `monitor_args` accepts for `monitor_type: mlflow`.

    `uri`, `username` and `password` have the names and defaults of Trinity-RFT. A user and password inside `uri`
    are moved to `username` and `password`, so that no message shows them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    uri: str = Field(
        default=DEFAULT_URI,
        description="The tracking server or store. Default: MLFLOW_TRACKING_URI, or http://localhost:5000. "
        "`{monitor_dir}` is replaced by the job's monitor_dir: `sqlite:///{monitor_dir}/mlflow.db`.",
    )
    username: str | None = Field(default=None, description="User name for a server with basic authentication.")
    password: SecretStr | None = Field(default=None, description="Password for a server with basic authentication.")
    experiment: str | None = Field(
        default=None, min_length=1, description="Name of the MLflow experiment. Default: the job's `project`."
    )
    run_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Id of an existing run, for a job with one run: rolecall adds to it, and leaves its name, status "
        "and config as they are. Default: MLFLOW_RUN_ID, or the active run of the process that launches.",
    )
    artifact_location: str | None = Field(
        default=None,
        description="Where a new experiment stores tables. Default: as the server is configured; for a sqlite file, "
        "`mlartifacts` in the same directory.",
    )
    tags: dict[str, str] = Field(default_factory=dict, description="Tags to add to each run.")
    system_metrics: bool = Field(
        default=False, description="Whether to log CPU, memory, disk, network and GPUs of each role's node."
    )
    system_metrics_interval: Annotated[float, Field(gt=0)] = Field(
        default=10.0, description="Seconds between two samples of the system metrics."
    )
    timeout: Annotated[int, Field(gt=0)] | None = Field(
        default=None,
        description="Seconds to wait for an answer of the server. Default: MLFLOW_HTTP_REQUEST_TIMEOUT, or 30.",
    )
    retries: Annotated[int, Field(ge=0, lt=10)] | None = Field(
        default=None,
        description="How often MLflow's client repeats a failed request, in addition to rolecall's own retries. "
        "Default: MLFLOW_HTTP_REQUEST_MAX_RETRIES, or 0.",
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """Take `uri` and `run_id` from the environment or the active run, and a user and password out of `uri`."""
        if not isinstance(given, Mapping):
            return given
        active = _active_run() if "run_id" not in given else None
        default = active.uri if active else os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
        uri = given.get("uri", default)
        # Given, and not a default: a role, or a later `rolecall deliver`, has another environment.
        found = os.environ.get("MLFLOW_RUN_ID") or (active.id if active and active.uri == uri else None)
        run_id = {"run_id": found} if found and "run_id" not in given else {}
        return {**_user_of(uri), **given, **run_id, "uri": _without_user(uri)}

    @field_validator("uri")
    @classmethod
    def _known(cls, uri: str) -> str:
        scheme, _, rest = uri.partition(":")
        match scheme:
            case "http" | "https" if urlsplit(uri).hostname:
                return uri.rstrip("/")
            case "sqlite" if rest.startswith("///") and sqlite_path(uri).name not in {"", ":memory:"}:
                return _absolute_sqlite(uri)
            case "file" if rest.strip("/"):
                return _absolute_file(rest)
        raise PydanticCustomError("mlflow_uri", _NOT_A_STORE)

    def store_uri(self, directory: Path) -> str:
        """`uri` with the job's `monitor_dir` filled in, given the backend's own folder.

        Raises:
            BackendRefused: sqlite would open another file, as the directory's name holds a `?`.
        """
        # The folder is monitor_dir/backends/mlflow. A store outside of it is the user's own choice: it is used as named
        # and not moved when a new job starts in the same monitor_dir.
        monitor_dir = str(directory.parent.parent)
        if MONITOR_DIR in self.uri and "?" in monitor_dir and self.uri.startswith("sqlite:"):
            raise BackendRefused(
                f"monitor_dir {monitor_dir} holds a '?', where the options of a sqlite uri begin; use another "
                "monitor_dir, or a uri without {monitor_dir}"
            )
        return self.uri.replace(MONITOR_DIR, monitor_dir)


def sqlite_path(uri: str) -> Path:
    """The path in a `sqlite:///` URI."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0])


def _absolute_sqlite(uri: str) -> str:
    # Relative to where the config was read: a role or its courier may have another working directory.
    path = sqlite_path(uri)
    if str(path).startswith(MONITOR_DIR) or path.is_absolute():
        return uri
    _, mark, options = uri.partition("?")
    return f"sqlite:///{Path.cwd() / path}{mark}{options}"


def _absolute_file(rest: str) -> str:
    path = Path(rest if not rest.startswith("//") else rest[2:])
    return f"file://{path}" if str(path).startswith(MONITOR_DIR) else f"file://{Path.cwd() / path}"


class _Active(NamedTuple):
    """A run that this process has started with MLflow's own functions, and where it is stored."""

    id: str
    uri: str


def _active_run() -> _Active | None:
    # Who has one has imported MLflow; all others need not wait for it.
    if (mlflow := sys.modules.get("mlflow")) is None:
        return None
    try:
        run, uri = mlflow.active_run(), str(mlflow.get_tracking_uri())
    except Exception:  # noqa: BLE001 - a broken installation is reported where the backend is opened
        return None
    is_known = uri.startswith(("http://", "https://", "sqlite:///", "file:"))
    return _Active(str(run.info.run_id), uri) if run is not None and is_known else None


def _is_web(uri: object) -> bool:
    return isinstance(uri, str) and uri.startswith(("http://", "https://"))


def _user_of(uri: Any) -> dict[str, str]:
    """Those of `username` and `password` that the URI contains."""
    if not _is_web(uri):
        return {}
    user = urlsplit(uri).netloc.rpartition("@")[0]
    name, _, password = user.partition(":")
    found = {"username": unquote(name), "password": unquote(password)}
    return {field: value for field, value in found.items() if value}


def _without_user(uri: Any) -> Any:
    if not _is_web(uri):
        return uri
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
