"""`run.config`: items and attributes, each change a line of the journal."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rolecall.compat.wandb.absent import Error


class ConfigError(Error):
    """As wandb's: a value was to be changed without `allow_val_change=True`."""


class Items:
    """Items that can be read as attributes, too."""

    _values: dict[str, Any]

    def __repr__(self) -> str:
        return repr(self._values)

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # a copy that is being made has nothing yet
            raise AttributeError(name)
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(self._without(name), name=name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def _without(self, name: str) -> str:
        """What to say of an item that is not there."""
        raise NotImplementedError


class Config(Items):
    """The run's config, as `wandb.config`.

    A key that has a value cannot be given another one, unless by `update(..., allow_val_change=True)`.

    Args:
        values: what it holds from the start.
        record: called with each change.
    """

    _record: Callable[[Mapping[str, Any]], None]

    def __init__(self, values: Mapping[str, Any], record: Callable[[Mapping[str, Any]], None]) -> None:
        # `__setattr__` sets items.
        self.__dict__.update(_values=dict(values), _record=record)

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def _without(self, name: str) -> str:
        return f"the config has no {name!r}; it has {', '.join(self._values)}"

    def keys(self) -> list[str]:
        """The keys."""
        return list(self._values)

    def items(self) -> list[tuple[str, Any]]:
        """The keys and values."""
        return list(self._values.items())

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key; `default` if it has none."""
        return self._values.get(key, default)

    def as_dict(self) -> dict[str, Any]:
        """A copy of all of it."""
        return dict(self._values)

    def update(self, values: object, allow_val_change: bool | None = None) -> None:
        """Add keys, or change them.

        Args:
            values: a mapping, or an `argparse.Namespace`.
            allow_val_change: whether a key may get another value than it has.

        Raises:
            ConfigError: one would.
        """
        given = {key.strip("-"): value for key, value in mapping_of(values).items()}
        for key, value in given.items():
            if not allow_val_change and key in self._values and not _same(value, self._values[key]):
                change = f"{key!r} of the config is {self._values[key]!r}, and would become {value!r}"
                raise ConfigError(f"{change}; if you mean that, pass allow_val_change=True to config.update()")
        self._values.update(given)
        self._record(given)

    def setdefaults(self, values: object) -> None:
        """Add those keys that have no value yet."""
        self.update({key: value for key, value in mapping_of(values).items() if key not in self._values})


def mapping_of(values: object) -> dict[str, Any]:
    """A config as wandb takes one: a mapping, an `argparse.Namespace`, or nothing.

    Raises:
        TypeError: it is something else.
    """
    if values is None:
        return {}
    if isinstance(values, Mapping):
        return {str(key): value for key, value in values.items()}
    if isinstance(values, str):
        raise TypeError(f"config: {values!r}: a file is not read; load it, and give the mapping")
    if isinstance(values, Config):
        return values.as_dict()
    try:
        return {key: value for key, value in vars(values).items() if not key.startswith("_")}
    except TypeError:
        kind = type(values).__name__
        raise TypeError(f"config: must be a mapping or an argparse.Namespace, not {kind}") from None


def _same(value: Any, other: Any) -> bool:
    try:
        return bool(value == other)
    except Exception:  # noqa: BLE001 - an array is equal to an array in each item
        return False
