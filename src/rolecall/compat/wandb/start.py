"""`init` and `finish`: from wandb's arguments and environment to a run of rolecall's."""

import atexit
import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, Literal

import rolecall
from rolecall import Monitor, MonitorConfig
from rolecall.compat.wandb.absent import Error, UnsupportedError, refuse
from rolecall.compat.wandb.configs import mapping_of
from rolecall.compat.wandb.runs import About, Run
from rolecall.compat.wandb.util import generate_id
from rolecall.config.model import directory_name
from rolecall.job.history import read_rows
from rolecall.job.single.names import memorable_name
from rolecall.states import status_at_exit

_ENVIRONMENT: Final = {
    "project": "WANDB_PROJECT",
    "entity": "WANDB_ENTITY",
    "run_name": "WANDB_NAME",
    "run_id": "WANDB_RUN_ID",
    "run_group": "WANDB_RUN_GROUP",
    "run_job_type": "WANDB_JOB_TYPE",
    "run_notes": "WANDB_NOTES",
    "root_dir": "WANDB_DIR",
    "mode": "WANDB_MODE",
    "resume": "WANDB_RESUME",
}
_MODES: Final = {
    "online": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
    "shared": "shared",
}
_BACKENDS: Final = "ROLECALL_MONITOR_TYPE"
Resume = Literal["allow", "must", "never"]


@dataclass(frozen=True, slots=True, init=False)
class Settings:
    """As `wandb.Settings`. What tunes wandb's own process, such as `console`, is taken and ignored.

    Attributes:
        mode: `online`, `offline`, `disabled`, or `shared`, for several processes that log to one run.
        x_primary: in a shared run, what this process is called if it has no label. The first one launches the job.
        x_label: in a shared run, what this process is called.
    """

    mode: str | None = None
    x_primary: bool = False
    x_label: str | None = None
    project: str | None = None
    entity: str | None = None
    run_id: str | None = None
    run_name: str | None = None
    run_group: str | None = None
    run_job_type: str | None = None
    run_notes: str | None = None
    run_tags: Sequence[str] = ()
    root_dir: str | os.PathLike[str] | None = None
    reinit: bool | str | None = None
    resume: bool | str | None = None
    ignored: Mapping[str, Any] = field(default_factory=dict)

    def __init__(self, **settings: Any) -> None:
        absent = {name: settings.get(name) for name in ("fork_from", "resume_from", "sync_tensorboard", "sweep_id")}
        refuse("Settings", "rolecall has none of this", **absent)
        known = {each.name: each.default for each in fields(self) if each.name != "ignored"}
        for name, default in known.items():
            object.__setattr__(self, name, settings.pop(name, default))
        object.__setattr__(self, "ignored", settings)

    def filled(self, **given: Any) -> "Settings":
        """These settings with arguments of `init` above them, and the environment below."""
        environment = {name: os.environ.get(variable) or None for name, variable in _ENVIRONMENT.items()}
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "ignored"}
        tags = [tag for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag]
        filled = {**environment, **_given({"run_tags": tags}), **_given(own), **_given(given)}
        if filled.get("mode") not in {None, *_MODES}:
            raise UnsupportedError(f"mode: {filled['mode']!r}: must be one of {', '.join(_MODES)}")
        return Settings(**{**filled, "mode": _MODES[filled.get("mode") or "online"]})


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None and value is not False and value != ()}


class _Current:
    """The run of `wandb.run`. wandb's own module functions need to know it; so does the end of the program."""

    def __init__(self) -> None:
        self.run: Run | None = None
        self._is_registered = False

    def begin(self, run: Run) -> None:
        self.run = run
        if not self._is_registered:
            self._is_registered = True
            atexit.register(self._finish_at_exit)

    def _finish_at_exit(self) -> None:
        if self.run is not None and self.run.monitor.is_open:
            self.run.close(status_at_exit())


_CURRENT: Final = _Current()


def current() -> Run | None:
    """The run that `init` began last, until it is finished."""
    run = _CURRENT.run
    return None if run is None or run.is_finished else run


def need(what: str) -> Run:
    """The same.

    Raises:
        Error: there is none.
    """
    if (run := current()) is None:
        raise Error(f"You must call wandb.init() before wandb.{what}")
    return run


def finish(exit_code: int | None = None, quiet: bool | None = None) -> None:
    """End the run, if there is one; see `Run.finish`."""
    if (run := current()) is not None:
        run.finish(exit_code)
    _CURRENT.run = None


def init(  # noqa: PLR0913, PLR0917 - wandb's own
    entity: str | None = None,
    project: str | None = None,
    dir: str | os.PathLike[str] | None = None,  # noqa: A002 - wandb's own, as `id`
    id: str | None = None,  # noqa: A002
    name: str | None = None,
    notes: str | None = None,
    tags: Sequence[str] | None = None,
    config: object = None,
    config_exclude_keys: Sequence[str] | None = None,
    config_include_keys: Sequence[str] | None = None,
    allow_val_change: bool | None = None,
    group: str | None = None,
    job_type: str | None = None,
    mode: str | None = None,
    force: bool | None = None,
    reinit: bool | str | None = None,
    resume: bool | str | None = None,
    resume_from: str | None = None,
    fork_from: str | None = None,
    save_code: bool | None = None,
    tensorboard: bool | None = None,
    sync_tensorboard: bool | None = None,
    monitor_gym: bool | None = None,
    settings: Settings | Mapping[str, Any] | None = None,
    **ignored: Any,
) -> Run:
    """Begin a run, as `wandb.init`. The tracker is that of `ROLECALL_MONITOR_TYPE`, or else `local`.

    Raises:
        UnsupportedError: an argument that rolecall has nothing for; the message says what to do instead.
        ConfigError, BackendError, DirectoryError, WriterConflict, BackendRefused: as `rolecall.init` does.
    """
    refuse("init", "begin a new run", resume_from=resume_from, fork_from=fork_from)
    refuse("init", "log what you need", tensorboard=tensorboard, sync_tensorboard=sync_tensorboard, gym=monitor_gym)
    given = Settings(**settings) if isinstance(settings, Mapping) else settings or Settings()
    asked = given.filled(
        project=project,
        entity=entity,
        root_dir=dir,
        mode=mode,
        reinit=reinit,
        resume=resume,
        run_id=id,
        run_name=name,
        run_group=group,
        run_job_type=job_type,
        run_notes=notes,
        run_tags=tags,
    )
    if (run := current()) is not None and not _ends_previous(asked.reinit):
        return run
    finish()
    values = _chosen(mapping_of(config), config_include_keys, config_exclude_keys)
    run = _begin(asked, values)
    _CURRENT.begin(run)
    return run


def _chosen(values: dict[str, Any], included: Sequence[str] | None, excluded: Sequence[str] | None) -> dict[str, Any]:
    kept = {key: value for key, value in values.items() if included is None or key in included}
    return {key: value for key, value in kept.items() if key not in (excluded or ())}


def _ends_previous(reinit: bool | str | None) -> bool:
    """Whether a run that goes on is finished; else `init` returns it. As in wandb 0.31."""
    if reinit == "create_new":
        raise UnsupportedError("init(reinit='create_new'): a process has one run; start another process")
    return reinit in (True, "finish_previous") or (reinit in (None, "default") and _is_notebook())


def _is_notebook() -> bool:
    """Whether this process is a notebook's kernel. One that executes notebooks imports ipykernel, too."""
    find_shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    return hasattr(find_shell(), "kernel")


def _begin(asked: Settings, config: Mapping[str, Any]) -> Run:
    about = _about(asked)
    said = {"entity": about.entity, "group": about.group, "job_type": about.job_type, "notes": about.notes}
    whole = {**config, **({"wandb": _given(said)} if _given(said) else {})}
    if about.mode == "disabled":
        return Run(Monitor("main"), about, config)
    tags = [asked.run_tags] if isinstance(asked.run_tags, str) else list(asked.run_tags)
    if about.mode == "shared":
        monitor = _open_shared(asked, about, whole)
        monitor.tags |= set(tags)
        return Run(monitor, about, config)
    resume = _resume(asked)
    before = _last_step(about.directory) if resume != "never" else None
    monitor = rolecall.init(
        about.project,
        whole,
        about.name,
        monitor_args=_args(about),
        monitor_dir=about.directory,
        tags=tags,
        resume=resume,
    )
    if before is not None:
        about = replace(about, resumed=True, first_step=before + 1)
    return Run(monitor, about, config)


def _about(asked: Settings) -> About:
    run_id = asked.run_id or generate_id()
    # In wandb, a run without a name is called by a generated one.
    name = asked.run_name or (run_id if asked.run_id else memorable_name())
    project = asked.project or "uncategorized"
    parent = os.environ.get("ROLECALL_DIR") or Path(asked.root_dir or ".", "rolecall")
    # What has an id is found again by it, whatever it is called.
    folder = directory_name(asked.run_id or f"{name}-{run_id}")
    return About(
        id=run_id,
        name=name,
        project=project,
        directory=Path(parent, directory_name(project), folder).absolute(),
        entity=asked.entity,
        group=asked.run_group,
        job_type=asked.run_job_type,
        notes=asked.run_notes,
        mode=asked.mode or "online",
    )


def _resume(asked: Settings) -> Resume:
    if asked.resume in (None, False, "never"):
        return "never"
    if asked.run_id is None:
        raise UnsupportedError(f"init(resume={asked.resume!r}): say which run: init(id=..., resume='allow')")
    return "must" if asked.resume == "must" else "allow"


def _last_step(directory: Path) -> int | None:
    """The last of the run's own steps; `None` if it has none."""
    if not directory.exists():
        return None
    return max((row.step for row in read_rows(directory) if row.axis is None), default=None)


def _backends() -> list[str]:
    return [name.strip() for name in os.environ.get(_BACKENDS, "").split(",") if name.strip()] or ["local"]


def _args(about: About) -> dict[str, Any] | None:
    """The arguments of rolecall's backend for wandb, if that is the tracker."""
    if "wandb" not in (backends := _backends()):
        return None
    own = _given({"entity": about.entity, "notes": about.notes, "job_type": about.job_type})
    own |= {"mode": "offline"} if about.mode == "offline" else {}
    return {"wandb": own} if len(backends) > 1 else own


def _open_shared(asked: Settings, about: About, config: Mapping[str, Any]) -> Monitor:
    """Join the job of all processes that have this id; the first one to come launches it."""
    if asked.run_id is None:
        raise UnsupportedError("Settings(mode='shared'): all processes give the same id: init(id=...)")
    label = asked.x_label or ("primary" if asked.x_primary else f"{socket.gethostname()}-{os.getpid()}")
    job = MonitorConfig(
        project=about.project,
        name=about.name,
        group=about.group,
        monitor_type=_backends(),
        monitor_args=_args(about),
        monitor_dir=about.directory,
        shared_run=True,
        resume="allow",
    )
    role = re.sub(r"[^\w.-]", "-", label, flags=re.ASCII)
    # In wandb, all of them write the same keys, and any of them may start first and end last.
    return rolecall.open_monitor(job, role, primary="auto", run_config=config, prefix="")
