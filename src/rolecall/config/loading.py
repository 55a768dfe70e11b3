"""Where a config is read from: a mapping, a dataclass, an OmegaConf node, a YAML file, an environment variable."""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from rolecall.config.redact import may_be_secret, scrub_text
from rolecall.errors import ConfigError

_LONGEST = 16 << 20
BLOCK = "monitor"
"""The key of our settings in a training job's own config."""


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """Our settings as somebody wrote them.

    Attributes:
        data: the settings.
        origin: the file or the environment variable that they are in; empty if they come from code.
        prefix: the dotted path to them inside of it, with its last dot.
    """

    data: dict[str, Any]
    origin: str = ""
    prefix: str = ""

    @property
    def location(self) -> str:
        """What a message about one setting starts with, before the setting's own name."""
        return f"{self.origin}: {self.prefix}" if self.origin else self.prefix


def read_settings(source: object) -> Settings:
    """Read the settings from a source: all of it, or its `monitor` block if it has one.

    Raises:
        ConfigError: there are none; the message says where, and what you can give instead.
    """
    origin = block = ""
    if isinstance(source, (str, os.PathLike)):
        given = os.fsdecode(source)
        origin = str(Path(given))
        source = _read_yaml(origin, given)
    fields = _fields(source)
    if fields is not None and BLOCK in fields:
        block, source = BLOCK, fields[BLOCK]
    where = ": ".join(filter(None, (origin, block))) or "config"
    kind = "nothing" if source is None else f"a value of type {type(source).__name__}"
    # By the module's name: omegaconf is not a dependency, and must not be imported to find out.
    if type(source).__module__.partition(".")[0] == "omegaconf":
        source = _resolve_omegaconf(source, where)
    elif dataclasses.is_dataclass(source) and not isinstance(source, type):
        source = dataclasses.asdict(source)
    fields = _fields(source)
    if fields is not None:
        return Settings({str(key): value for key, value in fields.items()}, origin, f"{block}." if block else "")
    expected = "a mapping, a dataclass, an OmegaConf node or the path of a YAML file"
    if origin or block:
        expected = "a mapping of settings, with project and name" + ("" if block else ", or with a key monitor")
    raise ConfigError(f"{where}: expected {expected}; given {kind}")


def parse_yaml(text: str, origin: str) -> Any:
    """Parse a YAML text.

    Raises:
        ConfigError: it is not YAML.
    """
    import yaml

    # PyYAML has errors of its own for syntax. Its constructors let through whatever `date(...)`, `int(...)` and a
    # lookup of a boolean raise, for values that only look like one (6.0.2, yaml/constructor.py).
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        what = scrub_text(" ".join(str(error).split()))
        if mark is not None and problem is not None:
            what = f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
        raise ConfigError(f"{origin}: not valid YAML: {what}") from None


def parse_mapping(option: str, text: str) -> dict[str, Any]:
    """Parse the value of an option that takes a mapping, as YAML or JSON.

    Raises:
        ConfigError: it is not YAML, or not a mapping; the message names the option.
    """
    value = parse_yaml(text, option)
    if not isinstance(value, dict):
        # The value may be a secret, and the message may end in a log.
        raise ConfigError(f"{option}: must be a mapping such as '{{uri: sqlite:///runs.db}}'")
    return {str(key): item for key, item in value.items()}


def _read_yaml(path: str, given: str) -> object:
    try:
        # Not `read_text`: a device has no end. A pipe is fine, as of a shell's `<(...)`.
        with open(path, encoding="utf-8") as file:
            text = file.read(_LONGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: bytes that are not UTF-8, a null in the path
        if "\n" in given or ": " in given or may_be_secret(given):
            # The text of a config, or a secret: neither is for a log.
            what = "a string is the path of a YAML file, and no file has this one; give a config itself as a mapping"
            raise ConfigError(f"config: {what}") from None
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{path}: cannot be read: {reason}; give the path of a YAML file") from None
    if len(text) > _LONGEST:
        raise ConfigError(f"{path}: is too large; give the path of a YAML file")
    return parse_yaml(text, path)


def _fields(source: object) -> Mapping[Any, Any] | None:
    """The source's top-level fields, their values as they are; `None` if it has none."""
    if isinstance(source, BaseModel):
        return {name: getattr(source, name) for name in source.model_fields_set}
    # Not `asdict`: it would copy all of a training config, which may hold what cannot be copied.
    if dataclasses.is_dataclass(source) and not isinstance(source, type):
        return {field.name: getattr(source, field.name) for field in dataclasses.fields(source)}
    return source if isinstance(source, Mapping) else None


def _resolve_omegaconf(node: Any, where: str) -> object:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{where}: OmegaConf cannot resolve it: {' '.join(str(error).split())}") from None
