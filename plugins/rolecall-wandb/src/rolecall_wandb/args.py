"""What a user may write in `monitor_args` for wandb."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic_core import PydanticCustomError

__all__ = ["WandbArgs"]

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
    "run_id": "run_id",
    "run_job_type": "monitor_args.job_type",
    "run_name": "name",
    "run_notes": "monitor_args.notes",
    "run_tags": "monitor_args.tags",
    "reinit": None,
    "x_label": None,
    "x_primary": None,
    "x_update_finish_state": None,
}
"""Fields of `wandb.Settings` that rolecall sets, and the setting of rolecall's that a user wants instead."""


class WandbArgs(BaseModel):
    """Arguments of the wandb backend; `base_url` and `api_key` are those of Trinity-RFT.

    What is left out is found where the SDK finds it: in the environment, in its settings files, in `.netrc`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    base_url: str | None = Field(
        default=None,
        description="The server. Default: WANDB_BASE_URL, the settings files, https://api.wandb.ai.",
    )
    api_key: SecretStr | None = Field(
        default=None,
        description="Default: WANDB_API_KEY, `.netrc` (`wandb login` writes it), the settings files.",
    )
    entity: str | None = Field(
        default=None, min_length=1, description="Team or user. Default: the key's own."
    )
    mode: Literal["online", "offline", "disabled"] | None = Field(
        default=None,
        description="Default: WANDB_MODE, the settings files, `online`. Offline and disabled runs cannot be shared.",
    )
    dir: Path | None = Field(
        default=None,
        description="Where the SDK keeps its files, one directory for each writer. Default: WANDB_DIR, or `wandb` "
        "in `monitor_dir`.",
    )
    tags: tuple[str, ...] = Field(default=(), description="More tags for each run.")
    notes: str | None = Field(default=None, description="A longer description of the run.")
    job_type: str | None = Field(default=None, description="Groups runs in the UI.")
    init_timeout: Annotated[float, Field(gt=0)] = Field(
        default=90.0, description="Seconds that one `wandb.init` may take; it is tried again."
    )
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="More fields of `wandb.Settings`, such as `x_file_stream_transmit_interval`.",
    )

    @field_validator("base_url")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        if url is not None and not url.startswith(("http://", "https://")):
            raise PydanticCustomError(
                "wandb_url", "is no address; valid are http://HOST:PORT and https://HOST"
            )
        return url.rstrip("/") if url else None

    @field_validator("dir")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        """The courier may stand in another working directory than the one where the config was read."""
        return path.expanduser().absolute() if path else None

    @field_validator("settings")
    @classmethod
    def _others(cls, settings: dict[str, Any]) -> dict[str, Any]:
        for name in settings:
            if name in _OWN:
                raise PydanticCustomError(
                    "wandb_setting",
                    "{name} is set by rolecall; {instead}",
                    {"name": name, "instead": _instead(_OWN[name])},
                )
        return settings


def _instead(setting: str | None) -> str:
    return f"use {setting}" if setting else "leave it out"
