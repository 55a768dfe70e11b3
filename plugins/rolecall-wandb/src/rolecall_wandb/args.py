"""The arguments of the backend `wandb`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError

__all__ = ["WandbArgs"]

# Fields of `wandb.Settings` that rolecall sets, and the setting of rolecall to use instead.
_OWN: Final = {
    "api_key": "monitor_args.api_key",
    "base_url": "monitor_args.base_url",
    "entity": "monitor_args.entity",
    "init_timeout": "monitor_args.init_timeout",
    "mode": "monitor_args.mode",
    "project": "project",
    "resume": "resume",
    "root_dir": "monitor_args.dir",
    "run_group": "group",
    "run_id": "monitor_args.run_id",
    "run_job_type": "monitor_args.job_type",
    "run_name": "name",
    "run_notes": "monitor_args.notes",
    "run_tags": "monitor_args.tags",
    "reinit": None,
    "x_label": None,
    "x_primary": None,
    "x_update_finish_state": None,
}


class WandbArgs(BaseModel):
    """What `monitor_args` accepts for `monitor_type: wandb`; `base_url` and `api_key` have the names of Trinity-RFT.

    An argument that is not given is found where the SDK finds it: in the environment, in its settings files, in
    `.netrc`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    base_url: str | None = Field(
        default=None,
        description="URL of the server. Default: WANDB_BASE_URL, the settings files, https://api.wandb.ai.",
    )
    api_key: SecretStr | None = Field(
        default=None,
        description="API key. Default: WANDB_API_KEY, `.netrc` (written by `wandb login`), the settings files.",
    )
    entity: str | None = Field(
        default=None, min_length=1, description="Team or user. Default: the default entity of the API key."
    )
    run_id: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Id of the run, for a job with one run. If the project has such a run, rolecall adds to it, and "
        "leaves its name, status and config as they are. Default: WANDB_RUN_ID, or an id of rolecall's.",
    )
    mode: Literal["online", "offline", "disabled"] | None = Field(
        default=None,
        description="Whether wandb is used online, offline or not at all. Default: WANDB_MODE, the settings files, "
        "`online`. Offline and disabled runs cannot be shared.",
    )
    dir: Path | None = Field(
        default=None,
        description="Directory for the SDK's files, with a sub-directory for each writer. Default: WANDB_DIR, or "
        "`monitor_dir/backends/wandb`.",
    )
    tags: tuple[str, ...] = Field(default=(), description="Tags to add to each run. Default: WANDB_TAGS.")
    notes: str | None = Field(default=None, description="A longer description of the run.")
    job_type: str | None = Field(default=None, description="Job type, by which the UI can group runs.")
    init_timeout: Annotated[float, Field(gt=0)] = Field(
        default=90.0, description="Seconds that a call of `wandb.init` may take; after that it is tried again."
    )
    settings: dict[str, Any] = Field(
        default_factory=dict, description="Other fields of `wandb.Settings`, such as `x_file_stream_transmit_interval`."
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """Take from the environment what the SDK would, and what it could not where rolecall says something itself."""
        if not isinstance(given, Mapping):
            return given
        tags = [tag for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag]
        found = {"run_id": os.environ.get("WANDB_RUN_ID"), "tags": tags}
        # Given, and not a default: a role, or a later `rolecall deliver`, has another environment.
        return {**{name: value for name, value in found.items() if value}, **given}

    @field_validator("base_url")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise PydanticCustomError("wandb_url", "not a URL; allowed: http://HOST:PORT, https://HOST")
        return url.rstrip("/") if url else None

    @field_validator("dir")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        # Relative to where the config was read: a role or its courier may have another working directory.
        return path.expanduser().absolute() if path else None

    @field_validator("settings")
    @classmethod
    def _others(cls, settings: dict[str, Any]) -> dict[str, Any]:
        for name in settings:
            if name in _OWN:
                raise PydanticCustomError(
                    "wandb_setting",
                    "{name} is set by rolecall; {instead}",
                    {"name": name, "instead": f"use {own} instead" if (own := _OWN[name]) else "leave it out"},
                )
        return settings
