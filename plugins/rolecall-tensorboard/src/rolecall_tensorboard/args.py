"""What a user may write under `monitor_args` for `monitor_type: tensorboard`."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["TensorBoardArgs"]


class TensorBoardArgs(BaseModel):
    """The arguments of the backend `tensorboard`.

    Attributes:
        log_dir: where this job's event files go, each writer in a sub-directory. A relative path starts at
            `monitor_dir`, the same for every role wherever it runs; `~` is the home directory.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    log_dir: Path = Field(default=Path("tensorboard"), description="directory of the event files")

    @field_validator("log_dir", mode="before")
    @classmethod
    def _no_url(cls, value: object) -> object:
        """Refuse `s3://` and `gs://`: rows are acknowledged by fsync, which an object store does not have."""
        if isinstance(value, str) and "://" in value:
            raise ValueError(f"{value!r} is a URL; give a directory, and copy it to the store afterwards")
        return value

    def base(self, monitor_dir: Path) -> Path:
        """The absolute directory to give to `tensorboard --logdir`."""
        return monitor_dir / self.log_dir.expanduser()
