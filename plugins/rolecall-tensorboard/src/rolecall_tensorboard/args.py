"""The arguments of the backend `tensorboard`."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

__all__ = ["TensorBoardArgs"]


class TensorBoardArgs(BaseModel):
    """What `monitor_args` accepts for `monitor_type: tensorboard`.

    Attributes:
        log_dir: the directory for event files, with a sub-directory for each writer. A relative path is below the
            backend's own folder, `monitor_dir/backends/tensorboard`, the same for every role wherever it runs; an
            absolute path is used as it is; `~` is the home directory.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    log_dir: Path = Field(
        default=Path(),
        description="Directory for event files: relative to monitor_dir/backends/tensorboard, or absolute.",
    )

    @field_validator("log_dir", mode="before")
    @classmethod
    def _not_a_url(cls, value: object) -> object:
        # Rows are acknowledged after fsync, which object stores such as s3:// and gs:// do not have.
        if isinstance(value, str) and "://" in value:
            raise ValueError(f"{value!r} is a URL; use a local directory and copy it to the store afterwards")
        return value

    @field_validator("log_dir")
    @classmethod
    def _not_outside(cls, path: Path) -> Path:
        # A finished job's folder is moved as a whole, so event files beside it would mix with those of the next job.
        if os.path.normpath(path).split(os.sep)[0] == os.pardir:
            raise ValueError(
                f"{str(path)!r} is outside of the backend's own folder; use an absolute path, or one without '..'"
            )
        return path

    def base(self, directory: Path) -> Path:
        """The absolute directory to pass to `tensorboard --logdir`, given the backend's own folder."""
        return directory / self.log_dir.expanduser()
