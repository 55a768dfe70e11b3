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
        layout: the directory of each writer below `log_dir`. `{role}` is the writer, `explorer/0`, and has to be in it;
            `{name}` and `{project}` are the job's. Without it: `{name}/{role}` below an absolute `log_dir`, where other
            jobs may write, too, and `{role}` below the job's own folder. With `shared_run: relay` there is one
            directory for all: `{name}`, or what `layout` makes of `all` as the role.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    log_dir: Path = Field(
        default=Path(),
        description="Directory for event files: relative to monitor_dir/backends/tensorboard, or absolute.",
    )

    layout: str | None = Field(
        default=None,
        description="Directory of each writer below log_dir, of {project}, {name} and {role}. Default: {name}/{role} "
        "if log_dir is absolute, else {role}.",
    )

    @field_validator("layout")
    @classmethod
    def _tells_roles_apart(cls, layout: str | None) -> str | None:
        if layout is None:
            return None
        try:
            shown = layout.format(project="project", name="name", role="role")
        except (LookupError, ValueError, AttributeError):
            raise ValueError(f"{layout!r} may hold {{project}}, {{name}} and {{role}} and no other braces") from None
        if "{role}" not in layout:
            raise ValueError(f"{layout!r} is one directory for all roles, which TensorBoard cannot read; add {{role}}")
        if os.path.isabs(shown) or os.pardir in shown.split(os.sep):
            raise ValueError(f"{layout!r} is outside of log_dir; use a path below it")
        return layout

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

    def place(self, *, project: str, name: str, role: str | None) -> str:
        """The directory of a writer, or of all of them without a `role`, relative to `base`."""
        is_own = not self.log_dir.expanduser().is_absolute()
        default = "{name}" if role is None else "{role}" if is_own else "{name}/{role}"
        # A name may hold anything; a `/` in it, or a lone `..`, would lead elsewhere.
        parts = {"project": _folder(project), "name": _folder(name)}
        return (self.layout or default).format(**parts, role=role or "all")


def _folder(name: str) -> str:
    return "_" if name in {"", os.curdir, os.pardir} else name.replace(os.sep, "_").replace("\0", "_")
