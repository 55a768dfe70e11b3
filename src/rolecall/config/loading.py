"""Where a config is read from: a mapping, a dataclass, an OmegaConf node, a YAML file, an environment variable."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rolecall.errors import ConfigError

__all__ = ["Source", "parse_yaml", "read_source"]

BLOCK = "monitor"
"""The key under which our settings stand in a training job's own config."""


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Our settings as somebody wrote them.

    Attributes:
        data: the settings.
        place: the file or the environment variable that they stand in; empty if they come from code.
        prefix: the dotted path to them inside of it, with its last dot.
    """

    data: dict[str, Any]
    place: str = ""
    prefix: str = ""

    @property
    def start(self) -> str:
        """What a message about one setting starts with: all that stands before the setting's own name."""
        return f"{self.place}: {self.prefix}" if self.place else self.prefix


def read_source(source: object) -> Source:
    """The settings in a source: all of it, or its `monitor` block if it has one.

    Raises:
        ConfigError: there are none; the message says where, and what may be given instead.
    """
    if isinstance(source, (str, Path)):
        return _source(_from_yaml(Path(source)), str(source))
    return _source(source, "")


def _source(source: object, place: str) -> Source:
    fields = _fields(source, place)
    if BLOCK in fields:
        return Source(_plain(fields[BLOCK], place, BLOCK), place, f"{BLOCK}.")
    return Source(_plain(source, place, ""), place)


def parse_yaml(text: str, where: str) -> Any:
    """What a YAML text holds.

    Raises:
        ConfigError: it is not YAML. The parser has errors of its own for most of that, and for values that only
            look like a date or a number lets through whatever making them raised.
    """
    import yaml

    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{where}: is not valid YAML: {_fault(error)}") from None


def _fault(error: Exception) -> str:
    """What the parser says, with the place first, if it knows it."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def _from_yaml(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{path}: cannot be read: {reason}; give the path of a YAML file") from None
    return parse_yaml(text, str(path))


def _fields(source: object, place: str) -> Mapping[Any, Any]:
    """The source's uppermost fields; what is below them is left as it is."""
    if isinstance(source, BaseModel):
        return {name: getattr(source, name) for name in source.model_fields_set}
    if dataclasses.is_dataclass(source) and not isinstance(source, type):
        return {field.name: getattr(source, field.name) for field in dataclasses.fields(source)}
    if isinstance(source, Mapping):
        return source
    raise _not_settings(source, place, "")


def _plain(source: object, place: str, block: str) -> dict[str, Any]:
    """The source as a dictionary, with nothing of another library's in it."""
    if _is_omegaconf(source):
        source = _from_omegaconf(source, place, block)
    elif dataclasses.is_dataclass(source) and not isinstance(source, type):
        source = dataclasses.asdict(source)
    elif isinstance(source, BaseModel):
        source = _fields(source, place)
    if isinstance(source, Mapping):
        return {str(key): item for key, item in source.items()}
    raise _not_settings(source, place, block)


def _is_omegaconf(source: object) -> bool:
    return type(source).__module__.partition(".")[0] == "omegaconf"


def _from_omegaconf(node: Any, place: str, block: str) -> object:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        where = ": ".join(filter(None, (place, block or "config")))
        raise ConfigError(f"{where}: OmegaConf cannot resolve it: {' '.join(str(error).split())}") from None


def _not_settings(source: object, place: str, block: str) -> ConfigError:
    where = ": ".join(filter(None, (place, block))) or "config"
    given = "nothing" if source is None else f"a value of type {type(source).__name__}"
    valid = (
        "a mapping of settings, with project and name" + ("" if block else ", or with a key monitor")
        if place or block
        else "a mapping, a dataclass, an OmegaConf node or the path of a YAML file"
    )
    return ConfigError(f"{where}: holds {given}; it must be {valid}")
