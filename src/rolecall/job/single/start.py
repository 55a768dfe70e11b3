"""`init`: launcher and only role in one call."""

import atexit
import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from rolecall.backends.builtin import LOCAL
from rolecall.config.model import MonitorConfig, directory_name
from rolecall.config.redact import shown
from rolecall.errors import ConfigError
from rolecall.job.launch import open_single
from rolecall.job.monitor import Monitor
from rolecall.job.normalize import LONGEST_TAG
from rolecall.job.output.lines import say
from rolecall.job.single.names import memorable_name
from rolecall.states import status_at_exit

_DIRECTORY: Final = "ROLECALL_DIR"
_BACKENDS: Final = "ROLECALL_MONITOR_TYPE"


class _Current:
    """The run that `init` began last in this process.

    The next `init` finishes it, and so does the end of the program: it is kept alive until then, also where nobody
    keeps what `init` returned.
    """

    def __init__(self) -> None:
        self._monitor: Monitor | None = None
        self._name = ""
        # Held by `init` from the end of one run to the begin of the next, so that of two threads, one finishes the
        # other's run. It is reentrant, as a signal's handler may call `init`, too.
        self.lock = threading.RLock()
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self.lock = threading.RLock()  # a thread that this process does not have may hold the parent's

    def replace(self, monitor: Monitor, name: str) -> None:
        """Keep this one, and finish it at the end of the program."""
        if self._monitor is None:
            atexit.register(self._finish_at_exit)
        self._monitor, self._name = monitor, name

    def finish(self) -> None:
        """Finish the one that there is, and say so."""
        # In a forked child there is none: what it has is its parent's.
        if self._monitor is not None and self._monitor.is_open:
            say(f"finishing run {self._name}, as rolecall.init begins another one")
            self._monitor.finish()

    def _finish_at_exit(self) -> None:
        if self._monitor is not None and self._monitor.is_open:
            self._monitor.finish(status_at_exit())


_CURRENT: Final = _Current()


def init(  # noqa: PLR0913 - all but the first three by name
    project: str | None = None,
    config: object = None,
    name: str | None = None,
    *,
    monitor_type: str | list[str] | None = None,
    monitor_args: Mapping[str, Any] | None = None,
    monitor_dir: str | os.PathLike[str] | None = None,
    tags: Sequence[str] = (),
    resume: Literal["auto", "allow", "must", "never"] = "never",
    system_metrics: bool = False,
) -> Monitor:
    """Launch a job of one process, and open its only role, `main`. Close it with `finish`, or by a `with` block.

    A run that is not finished is when the program ends, or when `init` is called again, as in a notebook.
    Prints a line on standard error that says where to look, and one at the end; `ROLECALL_LOG=error` silences both.

    Args:
        project: where backends file the run; by default the name of the working directory.
        config: the run's config, of any kind, as `run_config` of `launch`.
        name: the run's display name; generated if not given.
        monitor_type: the backend, or several; by default `ROLECALL_MONITOR_TYPE`, or else `local`.
        monitor_args: the arguments of the backend.
        monitor_dir: where the journal is; by default `{project}/{name}` below `ROLECALL_DIR`, or else below
            `rolecall` in the working directory.
        tags: labels of the run; `Monitor.tags` changes them.
        resume: as in `MonitorConfig`, for a run whose `name` or `monitor_dir` you give again.
        system_metrics: whether CPU, memory, disk, network and GPUs are logged, under `system/`, and what this process
            takes of them. Needs psutil.

    Raises:
        ConfigError, BackendError, DirectoryError, WriterConflict, BackendRefused: as `launch` does.
    """
    name = name or memorable_name()
    project = project or Path.cwd().name or "rolecall"
    if monitor_dir is None and (parent := os.environ.get(_DIRECTORY)):
        monitor_dir = Path(parent, directory_name(project), directory_name(name))
    named = [backend.strip() for backend in os.environ.get(_BACKENDS, "").split(",")]
    checked = MonitorConfig(
        project=project,
        name=name,
        monitor_type=monitor_type or [backend for backend in named if backend] or LOCAL,
        monitor_args=monitor_args,
        monitor_dir=monitor_dir,
        resume=resume,
        system_metrics=system_metrics,
    )
    labels = _checked_tags(tags)
    # Not before the settings were found to be right: a typo must not end the run that goes on.
    with _CURRENT.lock:
        _CURRENT.finish()
        monitor = open_single(checked, config, labels)
        _CURRENT.replace(monitor, name)
    return monitor


def _checked_tags(tags: object) -> tuple[str, ...]:
    given = (tags,) if isinstance(tags, str) else tuple(tags) if isinstance(tags, Iterable) else (tags,)
    for tag in given:
        if not isinstance(tag, str) or not 0 < len(tag) <= LONGEST_TAG or not tag.isprintable() or tag.isspace():
            raise ConfigError(f"tags: {shown(tag)}: must be strings of 1 to {LONGEST_TAG} printable characters")
    return given
