"""What a user may write in `monitor_args` for MLflow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError

__all__ = ["DEFAULT_URI", "MONITOR_DIR", "MlflowArgs", "sqlite_path"]

DEFAULT_URI: Final = "http://localhost:5000"
"""Trinity-RFT's default (`trinity/utils/monitor.py`), and where `mlflow server` listens if told nothing."""

MONITOR_DIR: Final = "{monitor_dir}"
_NOT_A_STORE: Final = (
    "is no MLflow store that several processes can write; valid are http://HOST:PORT, https://HOST, "
    "sqlite:////ABSOLUTE/PATH.db and file:///ABSOLUTE/PATH. For another database start "
    "`mlflow server --backend-store-uri ...` before it and give that server's address"
)


class MlflowArgs(BaseModel):
    """Arguments of the MLflow backend; `uri`, `username` and `password` are those of Trinity-RFT.

    A user and password inside `uri` are moved to `username` and `password`, so no message can show them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    uri: str = Field(
        default=DEFAULT_URI,
        description="The tracking server or store. Without it the environment's MLFLOW_TRACKING_URI counts. "
        "`{monitor_dir}` stands for the job's own: `sqlite:///{monitor_dir}/mlflow.db`.",
    )
    username: str | None = Field(default=None, description="For a server with basic authentication.")
    password: SecretStr | None = Field(default=None, description="Its password.")
    experiment: str | None = Field(default=None, min_length=1, description="Default: the job's `project`.")
    artifact_location: str | None = Field(
        default=None,
        description="Where a new experiment keeps tables. Default: the server's choice; `mlartifacts` beside a "
        "sqlite file.",
    )
    tags: dict[str, str] = Field(default_factory=dict, description="More tags for each run.")
    system_metrics: bool = Field(
        default=False, description="Log CPU, memory, disk, network and GPUs of each role's node."
    )
    system_metrics_interval: Annotated[float, Field(gt=0)] = Field(default=10.0, description="In seconds.")
    timeout: Annotated[int, Field(gt=0)] | None = Field(
        default=None,
        description="Seconds to wait for one answer of the server. Default: MLFLOW_HTTP_REQUEST_TIMEOUT, or 30.",
    )
    retries: Annotated[int, Field(ge=0, lt=10)] | None = Field(
        default=None,
        description="How often MLflow's client itself repeats a failed request. Default: "
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES, or 0, as rolecall repeats by itself.",
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """Take `uri` from the environment, and a user out of it."""
        if not isinstance(given, Mapping):
            return given
        uri = given.get("uri", os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI)
        return {**_user_of(uri), **given, "uri": _without_user(uri)}

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

    def store_uri(self, monitor_dir: Path) -> str:
        """`uri` with the job's directory filled in."""
        return self.uri.replace(MONITOR_DIR, str(monitor_dir))


def sqlite_path(uri: str) -> Path:
    """The file of a `sqlite:///` address."""
    return Path(uri.removeprefix("sqlite:///").partition("?")[0])


def _absolute_sqlite(uri: str) -> str:
    """The courier may stand in another working directory than the one where the config was read."""
    path = sqlite_path(uri)
    if str(path).startswith(MONITOR_DIR) or path.is_absolute():
        return uri
    _, mark, options = uri.partition("?")
    return f"sqlite:///{Path.cwd() / path}{mark}{options}"


def _absolute_file(rest: str) -> str:
    path = Path(rest if not rest.startswith("//") else rest[2:])
    return f"file://{path}" if str(path).startswith(MONITOR_DIR) else f"file://{Path.cwd() / path}"


def _is_web(uri: object) -> bool:
    return isinstance(uri, str) and uri.startswith(("http://", "https://"))


def _user_of(uri: Any) -> dict[str, str]:
    """`username` and `password`, as far as the address holds them."""
    if not _is_web(uri):
        return {}
    user = urlsplit(uri).netloc.rpartition("@")[0]
    name, _, password = user.partition(":")
    held = {"username": unquote(name), "password": unquote(password)}
    return {field: value for field, value in held.items() if value}


def _without_user(uri: Any) -> Any:
    if not _is_web(uri):
        return uri
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
