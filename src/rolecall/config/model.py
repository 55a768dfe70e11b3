"""MonitorConfig: what a user writes."""

import base64
import functools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, cast

from pydantic import BaseModel, Field, SerializeAsAny, TypeAdapter, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from rolecall import timings
from rolecall.backends.builtin import BUILTIN, LOCAL, NONE
from rolecall.backends.registry import Registry
from rolecall.config.arguments import explain, plain_args, typed_args
from rolecall.config.environment import is_switched_off
from rolecall.config.loading import Settings, read_settings
from rolecall.config.plain import public_args, scrub
from rolecall.config.plan import Name, Slug
from rolecall.config.redact import may_be_secret, secrets_of
from rolecall.config.spec import HandOver, JobSpec
from rolecall.errors import BackendError, ConfigError

VARIABLE = "ROLECALL_CONFIG"
_HAND_OVER = "hand_over"
_NOT_OURS = "not a value that MonitorConfig.to_env writes; pass that value on unchanged"

_NO_PATH = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_VARIABLE = re.compile(r"\$(?:\w+|\{[^}]*\})")
_LONGEST_NAME = 200
"""Bytes of a directory's name; filesystems take 255."""
_DAY = 86_400.0
Init = TypeVar("Init", bound=Callable[..., None])


def _checked(init: Init) -> Init:
    """Run pydantic's `__init__` under the signature of `init`; errors become ours, unknown names included."""

    @functools.wraps(init)
    def checked(self: "MonitorConfig", /, **settings: Any) -> None:
        _validate(type(self), Settings(settings), Registry(), self)

    # pydantic's mark for "validation may bypass it"; otherwise `load` would lose its registry on the way here.
    checked.__pydantic_base_init__ = True  # type: ignore[attr-defined]
    return cast("Init", checked)


class MonitorConfig(BaseModel):
    """What a job reports, where to, and how.

    Attributes:
        project: where backends file the run.
        name: the run's display name.
        group: ties the runs of a job together where each role has its own; `name` if not given.
        monitor_type: the backend, or several: `local` (the default), `console`, `none`, or the name of a plugin.
        monitor_args: the arguments of the backend, checked by its own model; with several backends a mapping
            from each backend to its arguments. The attribute is always such a mapping, with typed arguments.
        shared_run: `true` if all roles report into one run; where a backend cannot, each role gets its own. `relay` for
            one run on every backend, which one process writes: the launcher's courier, or `rolecall relay`.
        transport: how rows get from the roles to `monitor_dir`. With `files` it is on a disk that all of them share.
            With `ray` roles are Ray's tasks and actors, on nodes that share nothing: each node keeps its roles' rows
            and sends them to the launcher's. `auto` is `ray` for those roles that do not see the launcher's directory,
            if Ray is initialised where the job is launched.
        run_id: rolecall's name of the run; the launcher makes one if you give none.
        resume: `auto` continues an unfinished job in the same `monitor_dir` and starts a new one after a finished
            one; `allow` continues a finished one, too; `must` refuses to start a new one; `never` always starts one.
        monitor_dir: where the journals are; by default `rolecall/{project}/{name}` below the working directory.
            Relative paths are made absolute at once.
        spool_dir: a directory on the node, for journals whose `monitor_dir` is on a network filesystem.
        spool_limit: bytes that a role's journal may take there, 1 MiB or more; what comes after them is lost and
            counted. By default as much as the disk has.
        sync_every: seconds within which a row is on the disk too (`fsync`), which a power cut then spares; 0.1 or more.
            By default the kernel decides when.
        courier: what delivers the rows: a `process` beside each role, or a `thread` of it; with `shared_run: relay`
            those of the launcher alone. `none` leaves them in the job's directory, for `rolecall relay` or `rolecall
            deliver`.
        system_metrics: whether CPU, memory, disk, network and GPUs of each node are logged, and what each role's
            process takes of them. Needs psutil.
        open_timeout: seconds that `launch` and `open_monitor` wait for the answer of each backend. They go on without
            one that takes longer.
        on_backend_error: `ignore` keeps every error of a backend away from training; `raise` raises it in the
            next `Monitor.log` or `close`, for tests.
    """

    # `defer_build`: `import rolecall` does not wait for it.
    model_config = {
        "extra": "forbid",
        "frozen": True,
        "hide_input_in_errors": True,
        "validate_default": True,
        "defer_build": True,
    }

    project: Name
    name: Name
    group: Name | None = None
    monitor_type: tuple[str, ...] = (LOCAL,)
    monitor_args: dict[str, SerializeAsAny[BaseModel]] = Field(default_factory=dict)
    shared_run: bool | Literal["relay"] = False
    transport: Literal["files", "ray", "auto"] = "files"
    run_id: Slug | None = None
    resume: Literal["auto", "allow", "must", "never"] = "auto"
    monitor_dir: Path = None  # type: ignore[assignment]  # its validator makes one of project and name
    spool_dir: Path | None = None
    spool_limit: Annotated[int, Field(ge=1 << 20, le=1 << 60)] | None = None
    sync_every: Annotated[float, Field(ge=0.1, le=_DAY)] | None = None
    courier: Literal["process", "thread", "none"] = "process"
    system_metrics: bool = False
    open_timeout: Annotated[float, Field(ge=0.0, le=_DAY)] = timings.OPEN_TIMEOUT
    on_backend_error: Literal["ignore", "raise"] = "ignore"

    _registry: Registry
    _hand_over: HandOver | None = None

    @property
    def registry(self) -> Registry:
        """Where this config's backends are found."""
        return self._registry

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret of the backends' arguments, to be kept out of what is written."""
        return secrets_of(self.monitor_args)

    @property
    def disabled(self) -> bool:
        """Whether all is off: `monitor_type: none`, or `ROLECALL_MODE` or `ROLECALL_DISABLED` in the environment."""
        return self.monitor_type == (NONE,) or is_switched_off()

    # What you may write is wider than what the attributes hold: one backend's name, a path as a string.
    @_checked
    def __init__(  # noqa: PLR0913 - one for each setting, all by name
        self,
        *,
        project: str,
        name: str,
        group: str | None = None,
        monitor_type: str | Sequence[str] = LOCAL,
        monitor_args: Mapping[str, Any] | None = None,
        shared_run: bool | Literal["relay"] = False,
        transport: Literal["files", "ray", "auto"] = "files",
        run_id: str | None = None,
        resume: Literal["auto", "allow", "must", "never"] = "auto",
        monitor_dir: str | os.PathLike[str] | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
        spool_limit: int | None = None,
        sync_every: float | None = None,
        courier: Literal["process", "thread", "none"] = "process",
        system_metrics: bool = False,
        open_timeout: float = timings.OPEN_TIMEOUT,
        on_backend_error: Literal["ignore", "raise"] = "ignore",
    ) -> None:
        """Check the settings, as `load` does.

        Raises:
            ConfigError: each problem with its dotted path, what was given, what is valid, and what to do.
            BackendError: a backend that the settings name cannot be used.
        """

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """What `repr` shows: what differs from the defaults, without secrets."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name == "monitor_args":
                value = {backend: shown for backend, model in value.items() if (shown := public_args(model))}
            if value != field.get_default(call_default_factory=True):
                yield name, scrub(value, self.secrets)

    def model_post_init(self, context: Any, /) -> None:
        """Keep the registry that `load` was given."""
        self._registry = context if isinstance(context, Registry) else Registry()

    @field_validator("monitor_type", mode="before")
    @classmethod
    def _known(cls, value: object, info: ValidationInfo) -> tuple[str, ...]:
        names = (value,) if isinstance(value, str) else value
        if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
            raise PydanticCustomError("monitor_type", "must be the name of a backend, or a list of names")
        if not names or len(set(names)) < len(names) or (NONE in names and len(names) > 1):
            raise PydanticCustomError(
                "monitor_type", "must name one backend, or several different ones; 'none' cannot be combined"
            )
        _models(names, info)
        return tuple(names)

    @field_validator("monitor_args", mode="plain")
    @classmethod
    def _typed(cls, value: object, info: ValidationInfo) -> dict[str, BaseModel]:
        if "monitor_type" not in info.data:
            return {}  # monitor_type failed, which is reported already: there is no model to check these with
        return typed_args(value, _models(info.data["monitor_type"], info))

    @field_validator("shared_run", mode="plain")
    @classmethod
    def _shared(cls, value: object) -> bool | Literal["relay"]:
        if value == "relay":
            return "relay"
        try:
            return TypeAdapter(bool).validate_python(value)
        except ValidationError:
            raise PydanticCustomError("shared_run", "must be true, false or 'relay'") from None

    @field_validator("monitor_dir", "spool_dir", mode="before")
    @classmethod
    def _absolute(cls, value: object, info: ValidationInfo) -> object:
        """The path, absolute at once: a role may run in another working directory than the launcher."""
        if value is None and info.field_name == "monitor_dir":
            value = Path("rolecall", *(directory_name(info.data.get(key, "")) for key in ("project", "name")))
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if not isinstance(value, str):
            return value
        if _NO_PATH.search(value):
            raise PydanticCustomError("path", "must be the path of a directory, without control characters")
        value = os.path.expandvars(value)
        if unset := _VARIABLE.search(value):
            message = "the environment has no {name}; set it, or write the path in full"
            raise PydanticCustomError("path", message, {"name": unset[0]})
        try:
            return Path(os.path.abspath(Path(value).expanduser()))
        except RuntimeError as error:
            raise PydanticCustomError("path", "the home directory is unknown; write the path in full") from error
        except FileNotFoundError as error:
            message = "the working directory is gone; change to another one, or write the path in full"
            raise PydanticCustomError("path", message) from error

    @classmethod
    def load(cls, source: object, *, registry: Registry | None = None) -> Self:
        """Make a config from a mapping, a dataclass, an OmegaConf node, or the path of a YAML file.

        The source may be a whole training config with these settings under its key `monitor`; the rest is ignored.

        Args:
            source: the settings; a path is a string or any `os.PathLike`.
            registry: where backends are found, with those that you registered in code.

        Raises:
            ConfigError: each problem with its dotted path, what was given, what is valid, and what to do.
            BackendError: a backend that the settings name cannot be used.
        """
        return _validate(cls, read_settings(source), registry or Registry())

    def with_open_timeout(self, seconds: object) -> Self:
        """This config with another `open_timeout`.

        Raises:
            ConfigError: it is no number of seconds up to a day.
        """
        if not isinstance(seconds, (int, float)) or not 0.0 <= seconds <= _DAY:
            raise ConfigError(f"open_timeout: must be a number of seconds from 0 to {_DAY:.0f}")
        return self.model_copy(update={"open_timeout": float(seconds)})

    def portable(self) -> Self:
        """This config without the backends that no other process can find: those that were registered in code."""
        names = [name for name in self.monitor_type if name in BUILTIN or self._registry.load(name).portable]
        if len(names) == len(self.monitor_type):
            return self
        args = {name: args for name, args in self.monitor_args.items() if name in names}
        config = self.model_copy(update={"monitor_type": tuple(names) or (LOCAL,), "monitor_args": args})
        if (handed := self._hand_over) is None:
            return config
        plans = tuple(plan for plan in handed.plan.backends if plan.backend in names)
        return config.handed(replace(handed, plan=replace(handed.plan, backends=plans)))

    def handed(self, hand_over: HandOver) -> Self:
        """This config with what its launcher settled, for the roles."""
        config = self.model_copy(update={"run_id": hand_over.run_id})
        config._hand_over = hand_over  # noqa: SLF001 - the copy's own
        return config

    @property
    def hand_over(self) -> HandOver | None:
        """What the launcher settled; `None` in a config that no launcher has handed on."""
        return self._hand_over

    def spec(self) -> JobSpec:
        """The launched job. Only a config that a launcher handed on has one."""
        if self._hand_over is None:
            raise ConfigError("no job was launched with this config; pass on job.config of rolecall.launch")
        settled = {each.name: getattr(self._hand_over, each.name) for each in fields(HandOver)}
        own = {each.name: getattr(self, each.name) for each in fields(JobSpec) if each.name not in settled}
        return JobSpec(**settled, **own)

    def to_env(self) -> dict[str, str]:
        """The config as environment variables, for `subprocess`, Slurm or torchrun.

        The value is base64 of JSON **with secrets unmasked**. Whoever can read the environment of the process can
        read them: its own user and root (`/proc/PID/environ`), and a scheduler that stores job environments.
        """
        dump = self.model_dump(exclude={"monitor_args"}, mode="json")
        dump["monitor_args"] = plain_args(self.monitor_args)
        if self._hand_over is not None:
            dump[_HAND_OVER] = asdict(self._hand_over)
        return {VARIABLE: base64.b64encode(json.dumps(dump).encode()).decode()}

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """The config that `to_env` wrote.

        Raises:
            ConfigError: the variable is missing or is not what `to_env` writes.
            BackendError: a backend that it names cannot be used in this process's environment.
        """
        value = (os.environ if environ is None else environ).get(VARIABLE)
        if value is None:
            raise ConfigError(f"{VARIABLE} is not set; start the role with env={{**os.environ, **job.config.to_env()}}")
        try:
            data = TypeAdapter(dict[str, Any]).validate_python(json.loads(base64.b64decode(value, validate=True)))
            hand_over = TypeAdapter(HandOver | None).validate_python(data.pop(_HAND_OVER, None))
        except (ValueError, RecursionError):  # not base64, not JSON, not a mapping, not ours
            raise ConfigError(f"{VARIABLE}: {_NOT_OURS}") from None
        config = _validate(cls, Settings(data, VARIABLE), Registry())
        return config if hand_over is None else config.handed(hand_over)


Config = TypeVar("Config", bound=MonitorConfig)


def _validate(model: type[Config], settings: Settings, registry: Registry, instance: Config | None = None) -> Config:
    """The checked config, made in `instance` if that is given."""
    is_switched_off()  # a misspelled ROLECALL_MODE is a fault of the environment, and of no setting
    try:
        # One registry for all validators: each new one scans the installed distributions.
        return cast(
            "Config",
            model.__pydantic_validator__.validate_python(settings.data, self_instance=instance, context=registry),
        )
    except ValidationError as error:
        # `from None`: pydantic's own error quotes the input, which may hold a secret
        raise ConfigError(explain(error, settings, model.model_fields)) from None
    except BackendError as error:
        raise type(error)(f"{settings.location}{error}") from error.__cause__


def _models(names: Sequence[str], info: ValidationInfo) -> dict[str, type[BaseModel]]:
    """The model of each backend's arguments."""
    if is_switched_off():
        return {}  # the config of a job must load where its backends are not installed, to debug it
    # A config as a field of somebody's own pydantic model is validated without our context.
    registry = info.context if isinstance(info.context, Registry) else Registry()
    if any(may_be_secret(name) for name in set(names) - {*registry.names(), NONE}):
        words = "must be the name of a backend, or a list of names; given a string that may be a secret"
        raise PydanticCustomError("monitor_type", words)
    try:
        return {name: registry.load(name).args_model() for name in names if name != NONE}
    except BackendError as error:
        raise type(error)(f"monitor_type: {error}") from error.__cause__


def directory_name(part: str) -> str:
    """The name of a directory, made of a project's or run's name; different names make different ones."""
    # "..", "/" and control characters would lead out of the directory, or make a name that a shell cannot take
    cleaned = "".join(char if char.isalnum() or char in "._-" else "_" for char in part).strip(".")
    short = cleaned.encode()[:_LONGEST_NAME].decode(errors="ignore")
    if short == part:
        return part
    # `margin<0` and `margin>0` are cleaned to one name, and two runs in one directory would be taken for one job.
    return f"{short or '_'}-{sha256(part.encode('utf-8', 'replace')).hexdigest()[:6]}"
