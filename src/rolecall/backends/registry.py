"""Finds backends by `monitor_type`; the only caller of hooks.

A `Registry` is an object that its caller owns. Listing reads the metadata of installed distributions; only
`load` imports a plugin, and a plugin does not import its SDK before `open_run`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import EntryPoint
from typing import Any

import pluggy
from pydantic import BaseModel

from rolecall.backends.builtin import BUILTIN, NONE
from rolecall.backends.installed import GROUP, brought_by, import_backend, installed_names, points, version_of
from rolecall.backends.validation import checked, where_of
from rolecall.errors import BackendError, RolecallError, UnknownBackend
from rolecall.protocol import Run, RunTicket, SharedRunSupport

__all__ = ["GROUP", "Backend", "Listing", "Registry"]

KNOWN = {name: f"rolecall[{name}]" for name in ("wandb", "mlflow", "tensorboard")}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RUN_MEMBERS = ("id", "url", "log", "flush", "close")


@dataclass(frozen=True, slots=True)
class Listing:
    """One backend that can be selected, known without importing it."""

    name: str
    distribution: str
    version: str


@dataclass(frozen=True, slots=True)
class Backend:
    """One loaded backend, its hooks typed.

    `portable` says whether another process finds it by name; a backend registered in code is known to this
    process alone.
    """

    name: str
    portable: bool
    manager: pluggy.PluginManager

    @property
    def declares_axes(self) -> bool:
        """Whether its metrics are bound to step axes that have to be declared."""
        return bool(self.manager.hook.declare_axes.get_hookimpls())

    def args_model(self) -> type[BaseModel]:
        """The model of its arguments."""
        model = self._ask("backend_args")
        if not (inspect.isclass(model) and issubclass(model, BaseModel)):
            raise self._wrong("backend_args", model, "a pydantic model class")
        return model

    def supports_shared_run(self, args: BaseModel) -> SharedRunSupport:
        """See `rolecall.hookspecs.supports_shared_run`."""
        support = self._ask("supports_shared_run", args=args)
        if not isinstance(support, SharedRunSupport):
            raise self._wrong("supports_shared_run", support, "a rolecall.SharedRunSupport")
        if not support.supported and not support.reason:
            raise self._wrong("supports_shared_run", support, "a reason where it says no")
        return support

    def prepare(self, ticket: RunTicket, args: BaseModel) -> None:
        """See `rolecall.hookspecs.prepare`; nothing if the backend does not implement it."""
        self.manager.hook.prepare(ticket=ticket, args=args)

    def open_run(self, ticket: RunTicket, args: BaseModel) -> Run:
        """See `rolecall.hookspecs.open_run`; what comes back is checked to be a run."""
        run = self.manager.hook.open_run(ticket=ticket, args=args)
        missing = [member for member in _RUN_MEMBERS if not hasattr(run, member)]
        if missing:
            raise self._wrong("open_run", run, f"a rolecall.Run; {', '.join(missing)} is missing")
        return run  # type: ignore[no-any-return]

    def declare_axes(self, run: Run, axes: Mapping[str, str]) -> None:
        """See `rolecall.hookspecs.declare_axes`."""
        self.manager.hook.declare_axes(run=run, axes=axes)

    def _ask(self, hook: str, **arguments: Any) -> Any:
        """Call a hook that has nothing to do with the outer world, and so nothing to raise."""
        try:
            return getattr(self.manager.hook, hook)(**arguments)
        except RolecallError:
            raise
        except Exception as error:
            raise BackendError(
                f"{self._where}: hook {hook} failed: {type(error).__name__}: {error}. This is a fault of "
                f"the backend: tell its authors, or choose another monitor_type"
            ) from error

    def _wrong(self, hook: str, given: object, valid: str) -> BackendError:
        return BackendError(f"{self._where}: hook {hook} returned {given!r}; it must return {valid}")

    @property
    def _where(self) -> str:
        return where_of(self.name, self.manager.get_plugin(self.name))


class Registry:
    """The backends that this process can select.

    A pickled registry is an ordinary one: what was registered in code stays in its process.
    """

    def __init__(self) -> None:
        self._in_code: dict[str, object] = {}
        self._loaded: dict[str, Backend] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Registry) and self._in_code == other._in_code

    __hash__ = object.__hash__

    def __reduce__(self) -> tuple[type[Registry], tuple[()]]:
        return (Registry, ())

    def register(self, name: str, backend: object) -> Registry:
        """Add a backend that no distribution brings, for notebooks and tests; returns the registry itself.

        Its courier stands on a thread of the role, as no other process can find it.

        Raises:
            BackendError: the name is taken, or the backend breaks the hook contract.
        """
        if name == NONE or name in self.names():
            raise BackendError(f"backend {name!r} is there already; register yours under another name")
        if _NAME.fullmatch(name) is None:
            raise BackendError(f"backend {name!r}: a name is 1 to 64 letters, digits, '.', '_' and '-'")
        self._loaded[name] = Backend(name, False, checked(name, backend))
        self._in_code[name] = backend
        return self

    def names(self) -> list[str]:
        """Every `monitor_type` but `none`."""
        return sorted({*BUILTIN, *self._in_code, *installed_names()} - {NONE})

    def listings(self) -> Iterator[Listing]:
        """Every backend with the distribution that brings it; imports none of them."""
        for name in self.names():
            if name in self._in_code:
                yield Listing(name, "registered in code", "")
            elif name in BUILTIN:
                yield Listing(name, "rolecall", version_of("rolecall") or "(not installed)")
            for point in points(name):
                dist = brought_by(point)
                yield Listing(name, dist.name, dist.version)

    def load(self, name: str) -> Backend:
        """The backend of that name, its contract checked.

        Raises:
            UnknownBackend: none is installed.
            BackendError: two distributions bring it, it fails to import, its SDK is missing or too old, or a
                hook is missing, misspelled, undecorated or has an argument that does not exist.
        """
        if name not in self._loaded:
            point = self._find(name)
            backend = BUILTIN[name] if point is None else import_backend(point)
            self._loaded[name] = Backend(name, point is not None, checked(name, backend))
        return self._loaded[name]

    def _find(self, name: str) -> EntryPoint | None:
        """The entry point of a backend; `None` for a built-in one."""
        found = points(name)
        if not found and name not in BUILTIN:
            raise UnknownBackend(_unknown(name, self.names()))
        if len(found) + (name in BUILTIN) > 1:
            raise BackendError(_ambiguous(name, found))
        if _NAME.fullmatch(name) is None:
            raise BackendError(f"backend {name!r}: a name is 1 to 64 letters, digits, '.', '_' and '-'")
        return found[0] if found else None


def _ambiguous(name: str, found: list[EntryPoint]) -> str:
    dists = sorted((brought_by(point) for point in found), key=lambda dist: dist.name)
    bringers = [f"{dist.name} {dist.version}" for dist in dists]
    bringers += ["rolecall itself"] if name in BUILTIN else []
    commands = " or ".join(f"`pip uninstall {dist.name}`" for dist in dists)
    return f"backend {name!r} is brought by {' and by '.join(bringers)}; only one can be: {commands}"


def _unknown(name: str, names: list[str]) -> str:
    """What is installed, what was probably meant, and how to install that."""
    valid = sorted({*names, NONE})
    message = f"no backend {name!r} is installed; installed are {', '.join(valid)}."
    near = get_close_matches(name.lower(), sorted({*valid, *KNOWN}), n=1)
    if near and near[0] != name:
        message += f" Did you mean {near[0]!r}?"
    wanted = near[0] if near else name
    if wanted in KNOWN and wanted not in names:
        message += f" {wanted} comes with: pip install '{KNOWN[wanted]}'"
    elif not near:
        message += " Name one of these, or install the distribution that brings it"
    return message
