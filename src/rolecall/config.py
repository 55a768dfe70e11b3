"""MonitorConfig: what a user writes."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import json
import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializeAsAny,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError, to_jsonable_python

from rolecall.builtin import LOCAL, NONE
from rolecall.errors import ConfigError
from rolecall.plan import Plan
from rolecall.registry import Registry
from rolecall.secrets import reveal, scrub, secrets_of

__all__ = ["DISABLED_VARIABLE", "VARIABLE", "MonitorConfig"]

VARIABLE = "ROLECALL_CONFIG"
DISABLED_VARIABLE = "ROLECALL_DISABLED"

Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Slug = Annotated[
    str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
]


def _absolute(value: object) -> object:
    """Roles may stand in another working directory than the launcher."""
    return Path(os.path.abspath(Path(value).expanduser())) if isinstance(value, (str, Path)) else value


Directory = Annotated[Path, BeforeValidator(_absolute)]


class MonitorConfig(BaseModel):
    """What a job reports, where to, and how.

    Attributes:
        project: where backends file the run.
        name: the run's display name.
        group: ties the runs of a job together where each role has its own; `name` if not given.
        monitor_type: the backend, or several: `local` (the default), `console`, `none`, or the name of a plugin.
        monitor_args: the arguments of the backend, checked by its own model; with several backends a mapping
            of each one's. Read back, it is always a mapping from backend to typed arguments.
        shared_run: whether all roles report into one run. Where a backend cannot, each role gets its own.
        run_id: rolecall's name of the run; made by the launcher if not given.
        resume: `auto` goes on with an unfinished job in the same `monitor_dir` and starts anew after a finished
            one; `must` refuses to start anew; `never` always does.
        monitor_dir: where the journals are; by default `rolecall/{project}/{name}` below the working directory.
            Relative paths are made absolute at once.
        spool_dir: a directory on the node, for journals whose `monitor_dir` is on a network filesystem.
        courier: where rows are carried from: a `process` beside each role, or a `thread` of it.
        on_backend_error: `ignore` keeps every fault of a backend away from training; `raise` hands it to the
            next `Monitor.log` or `close`, for tests.
        plan: what `launch` settled; not written by people.
        nonce: the mark that the launcher left in `monitor_dir`; not written by people.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
        coerce_numbers_to_str=False,
    )

    project: Name
    name: Name
    group: Name | None = None
    monitor_type: tuple[str, ...] = (LOCAL,)
    monitor_args: dict[str, SerializeAsAny[BaseModel]] = Field(default_factory=dict)
    shared_run: bool = False
    run_id: Slug | None = None
    resume: Literal["auto", "must", "never"] = "auto"
    monitor_dir: Directory = Path()
    spool_dir: Directory | None = None
    courier: Literal["process", "thread"] = "process"
    on_backend_error: Literal["ignore", "raise"] = "ignore"
    plan: Plan | None = None
    nonce: str | None = None

    _registry: Registry = PrivateAttr(default_factory=Registry)

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
        """Whether all of it is off: `monitor_type: none`, or `ROLECALL_DISABLED` in the environment."""
        return self.monitor_type == (NONE,) or os.environ.get(DISABLED_VARIABLE, "0") not in ("", "0")

    def model_post_init(self, context: Any, /) -> None:
        """Keep the registry that `load` was given."""
        if isinstance(context, Registry):
            self._registry = context

    @field_validator("monitor_type", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        value = (value,) if isinstance(value, str) else value
        if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
            raise PydanticCustomError("monitor_type", "must be the name of a backend, or a list of names")
        return value

    @field_validator("monitor_type")
    @classmethod
    def _known(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not value or len(set(value)) < len(value) or (NONE in value and len(value) > 1):
            raise PydanticCustomError(
                "monitor_type", "must name one backend, or several different ones; none stands alone"
            )
        for name in value:
            if name != NONE:
                _registry_of(info).load(name)
        return value

    @field_validator("monitor_args", mode="plain")
    @classmethod
    def _typed(cls, value: object, info: ValidationInfo) -> dict[str, BaseModel]:
        names = [name for name in info.data.get("monitor_type", ()) if name != NONE]
        models = {name: _registry_of(info).load(name).args_model() for name in names}
        return _typed_args(value, models)

    @model_validator(mode="before")
    @classmethod
    def _default_directory(cls, data: object) -> object:
        if isinstance(data, Mapping) and data.get("monitor_dir") is None:
            parts = (_safe(str(data.get(key, ""))) for key in ("project", "name"))
            return {**data, "monitor_dir": Path("rolecall", *parts)}
        return data

    @classmethod
    def load(cls, source: object, *, registry: Registry | None = None) -> Self:
        """A config from a mapping, a dataclass, an OmegaConf node, or a YAML file.

        A mapping or file may be the whole of a training config, with ours under its key `monitor`.

        Raises:
            ConfigError: each fault with its dotted path, what is valid, and what to do.
            BackendError: a backend that it names cannot be used.
        """
        data, where = _plain(source)
        if "monitor" in data and "project" not in data:
            data, where = data["monitor"], f"{where}: monitor" if where else "monitor"
        if not isinstance(data, Mapping):
            raise ConfigError(f"{where or 'config'}: must be a mapping, not {type(data).__name__}")
        try:
            return cls.model_validate(dict(data), context=registry or Registry())
        except ValidationError as error:
            raise ConfigError(_explain(error, where, _arguments(data, registry or Registry()))) from None

    def to_env(self) -> dict[str, str]:
        """The config as environment variables, for `subprocess`, Slurm or torchrun.

        The value is base64 of JSON **with secrets unmasked**: whoever may read the environment of the process
        (`/proc/PID/environ`: its own user and root; a scheduler that stores job environments) can read them.
        """
        return {VARIABLE: base64.b64encode(json.dumps(self._plain_dump()).encode()).decode()}

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """The config that `to_env` wrote.

        Raises:
            ConfigError: the variable is missing or is not what `to_env` writes.
        """
        value = (os.environ if environ is None else environ).get(VARIABLE)
        if value is None:
            raise ConfigError(
                f"{VARIABLE} is not set; start the role with env={{**os.environ, **job.config.to_env()}}"
            )
        return cls._load_value(value)

    @classmethod
    def _load_value(cls, value: str) -> Self:
        try:
            data = json.loads(base64.b64decode(value, validate=True))
        except (binascii.Error, ValueError, RecursionError):
            raise ConfigError(
                f"{VARIABLE} is not what MonitorConfig.to_env writes; pass it on unchanged"
            ) from None
        if not isinstance(data, dict):
            raise ConfigError(
                f"{VARIABLE} holds no mapping; pass on what MonitorConfig.to_env writes unchanged"
            )
        return cls.load({"monitor": data})

    def _plain_dump(self) -> dict[str, Any]:
        dump = self.model_dump(exclude={"monitor_args"}, mode="json")
        args = {name: reveal(model.model_dump()) for name, model in self.monitor_args.items()}
        return {**dump, "monitor_args": to_jsonable_python(args) if len(args) != 1 else _only(args)}


def _arguments(data: Mapping[str, Any], registry: Registry) -> dict[str, list[str]]:
    """The arguments that each selected backend has, as far as there is such a backend."""
    names = data.get("monitor_type", LOCAL)
    names = (names,) if isinstance(names, str) else names if isinstance(names, (list, tuple)) else ()
    found = [name for name in names if name in registry.names()]
    return {name: sorted(registry.load(name).args_model().model_fields) for name in found}


def _only(args: Mapping[str, Any]) -> Any:
    return to_jsonable_python(next(iter(args.values())))


def _registry_of(info: ValidationInfo) -> Registry:
    return info.context if isinstance(info.context, Registry) else Registry()


def _safe(part: str) -> str:
    """A directory name made of a project's or run's name."""
    cleaned = "".join(char if char.isalnum() or char in "._-" else "_" for char in part)
    return cleaned.strip(".") or "_"


def _typed_args(value: object, models: Mapping[str, type[BaseModel]]) -> dict[str, BaseModel]:
    if value is None:
        value = {}
    if not isinstance(value, Mapping):
        raise PydanticCustomError("monitor_args", "must be a mapping of arguments")
    if len(models) == 1 and not _is_keyed(value, models):
        ((name, model),) = models.items()
        return {name: _typed_model(model, value)}
    return _typed_several(value, models)


def _is_keyed(value: Mapping[Any, Any], models: Mapping[str, type[BaseModel]]) -> bool:
    """Whether the only backend's arguments stand under its name all the same."""
    ((name, model),) = models.items()
    return list(value) == [name] and name not in model.model_fields


def _typed_model(model: type[BaseModel], value: object) -> BaseModel:
    return value if isinstance(value, model) else model.model_validate({} if value is None else value)


def _typed_several(value: Mapping[Any, Any], models: Mapping[str, type[BaseModel]]) -> dict[str, BaseModel]:
    typed: dict[str, BaseModel] = {}
    faults = [_stray(key, models) for key in value if key not in models]
    for name, model in models.items():
        try:
            typed[name] = _typed_model(model, value.get(name))
        except ValidationError as error:
            faults += [_moved(fault, name) for fault in error.errors(include_url=False)]
    if faults:
        raise ValidationError.from_exception_data("monitor_args", faults, hide_input=True)
    return typed


def _stray(key: object, models: Mapping[str, type[BaseModel]]) -> InitErrorDetails:
    valid = ", ".join(models) or "none, as monitor_type has no arguments"
    fault = PydanticCustomError(
        "not_selected", "is not a backend of monitor_type; valid are {valid}", {"valid": valid}
    )
    return InitErrorDetails(type=fault, loc=(str(key),), input=None)


def _moved(fault: Any, name: str) -> InitErrorDetails:
    """The same fault, one step further down the path."""
    kind = PydanticCustomError(fault["type"], fault["msg"].replace("{", "{{").replace("}", "}}"))
    return InitErrorDetails(type=kind, loc=(name, *fault["loc"]), input=fault["input"])


def _plain(source: object) -> tuple[dict[str, Any], str]:
    """The source as a plain mapping, and the file it came from."""
    if isinstance(source, (str, Path)):
        return _from_yaml(Path(source)), str(source)
    if isinstance(source, MonitorConfig):
        return {name: getattr(source, name) for name in source.model_fields_set}, ""
    if dataclasses.is_dataclass(source) and not isinstance(source, type):
        return dataclasses.asdict(source), ""
    if type(source).__module__.partition(".")[0] == "omegaconf":
        from omegaconf import OmegaConf

        source = OmegaConf.to_container(source, resolve=True)
    if isinstance(source, Mapping):
        return {str(key): item for key, item in source.items()}, ""
    raise ConfigError(
        f"a config is a mapping, a dataclass, an OmegaConf node or the path of a YAML file, not {type(source).__name__}"
    )


def _from_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must hold a mapping, with project and name or with a key monitor")
    return data


def _explain(error: ValidationError, where: str, valid_args: Mapping[str, list[str]]) -> str:
    """One line for each fault: dotted path, what was given, what is wrong, what is valid."""
    lines = [_explain_one(fault, valid_args) for fault in error.errors(include_url=False)]
    return "\n  ".join([f"{where or 'config'} cannot be used:", *lines])


def _explain_one(fault: Any, valid_args: Mapping[str, list[str]]) -> str:
    path = ".".join(str(part) for part in fault["loc"]) or "config"
    if fault["type"] == "extra_forbidden":
        return f"{path}: is not a setting; {_valid_there(fault['loc'], valid_args)}"
    if fault["type"] == "missing":
        return f"{path}: is missing; give it a value"
    given = scrub({path: fault["input"]})[path]
    told = f" (given {given!r})" if isinstance(fault["input"], (str, int, float)) else ""
    return f"{path}: {fault['msg']}{told}"


def _valid_there(loc: tuple[Any, ...], valid_args: Mapping[str, list[str]]) -> str:
    """What may stand in a fault's place, the nearest first."""
    if loc[0] == "monitor_args":
        several = len(loc) > 2  # noqa: PLR2004 - monitor_args, backend, argument
        fields = (
            valid_args.get(loc[1], [])
            if several
            else [name for names in valid_args.values() for name in names]
        )
    else:
        fields = sorted(MonitorConfig.model_fields.keys() - {"plan", "nonce"})
    near = get_close_matches(str(loc[-1]), fields, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + f"valid are {', '.join(fields) or 'none'}"
