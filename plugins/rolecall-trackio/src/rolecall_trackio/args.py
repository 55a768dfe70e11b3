"""The arguments of the backend `trackio`."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["TrackioArgs"]


def _trackio_dir() -> Path:
    """Where trackio itself keeps its projects (`trackio.utils` and `huggingface_hub.constants`, 0.43)."""
    if given := os.environ.get("TRACKIO_DIR"):
        return Path(given).absolute()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(os.environ.get("HF_HOME") or cache / "huggingface") / "trackio"


class TrackioArgs(BaseModel):
    """What `monitor_args` accepts for `monitor_type: trackio`.

    Attributes:
        dir: the directory of trackio's databases, which `trackio show` reads. The default is trackio's own, so that
            `trackio show` finds the run; a relative path is below the backend's own folder,
            `monitor_dir/backends/trackio`; `~` is the home directory.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dir: Path | None = Field(None, description="Directory of trackio's files. Default: TRACKIO_DIR, or trackio's own.")

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        # The launcher's environment decides for all roles, as what was given explicitly is handed to them.
        return {**given, "dir": _trackio_dir()} if isinstance(given, Mapping) and given.get("dir") is None else given

    @field_validator("dir")
    @classmethod
    def _inside(cls, path: Path | None) -> Path | None:
        # A finished job's folder is moved as a whole, and a database beside it would be the next job's.
        if path is not None and os.path.normpath(path).split(os.sep)[0] == os.pardir:
            raise ValueError(f"{str(path)!r} is outside of the backend's own folder; use an absolute path")
        return path

    def base(self, directory: Path) -> Path:
        """The absolute directory, given the backend's own folder."""
        return directory / (self.dir or _trackio_dir()).expanduser()
