"""The `lines` backend under another name, for jobs with two backends of which one fails."""

from lines_backend import backend_args, declare_axes, open_run, prepare, supports_shared_run

__all__ = ["backend_args", "declare_axes", "open_run", "prepare", "supports_shared_run"]
