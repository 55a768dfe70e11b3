"""Finds backends by `monitor_type`; the only caller of hooks.

A `Registry` is an object that its caller owns. Listing reads the metadata of installed distributions; only
`load` imports a plugin, and a plugin does not import its SDK before `open_run`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, entry_points, version
from typing import Any

import pluggy
from pydantic import BaseModel

from rolecall import hookspecs
from rolecall.backend import Run, RunTicket, SharedRunSupport
from rolecall.builtin import BUILTIN, NONE
from rolecall.errors import BackendError, UnknownBackend

__all__ = ["GROUP", "Backend", "Listing", "Registry"]

GROUP = "rolecall.backends"
KNOWN = {name: f"rolecall[{name}]" for name in ("wandb", "mlflow", "tensorboard")}
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
        model = self.manager.hook.backend_args()
        if not (inspect.isclass(model) and issubclass(model, BaseModel)):
            raise self._wrong("backend_args", model, "a pydantic model class")
        return model

    def supports_shared_run(self, args: BaseModel) -> SharedRunSupport:
        """See `rolecall.hookspecs.supports_shared_run`."""
        support = self.manager.hook.supports_shared_run(args=args)
        if not isinstance(support, SharedRunSupport):
            raise self._wrong("supports_shared_run", support, "a rolecall.SharedRunSupport")
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

    def _wrong(self, hook: str, given: object, valid: str) -> BackendError:
        return BackendError(f"backend {self.name!r}: hook {hook} returned {given!r}; it must return {valid}")


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
        self._loaded[name] = Backend(name, False, _manager(name, backend))
        self._in_code[name] = backend
        return self

    def names(self) -> list[str]:
        """Every `monitor_type` but `none`."""
        return sorted({*BUILTIN, *self._in_code, *(point.name for point in entry_points(group=GROUP))})

    def listings(self) -> Iterator[Listing]:
        """Every backend with the distribution that brings it; imports none of them."""
        for name in self.names():
            if name in self._in_code:
                yield Listing(name, "registered in code", "")
            elif name in BUILTIN:
                yield Listing(name, "rolecall", _own_version())
            for point in _points(name):
                dist = _distribution(point)
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
            backend = BUILTIN[name] if point is None else _import(point)
            self._loaded[name] = Backend(name, point is not None, _manager(name, backend))
        return self._loaded[name]

    def _find(self, name: str) -> EntryPoint | None:
        """The entry point of a backend; `None` for a built-in one."""
        points = _points(name)
        brought_by = [f"{dist.name} {dist.version}" for dist in map(_distribution, points)]
        if name in BUILTIN:
            brought_by.append("rolecall itself")
        if len(brought_by) > 1:
            raise BackendError(
                f"backend {name!r} is brought by {' and by '.join(sorted(brought_by))}; uninstall all but one"
            )
        if not brought_by:
            raise UnknownBackend(_unknown(name, self.names()))
        return points[0] if points else None


def _points(name: str) -> list[EntryPoint]:
    """The entry points of one name, one for each distribution (a path listed twice shows one twice)."""
    by_distribution = {_distribution(point).name: point for point in entry_points(group=GROUP, name=name)}
    return list(by_distribution.values())


def _distribution(point: EntryPoint) -> Distribution:
    if point.dist is None:
        raise BackendError(
            f"backend {point.name!r}: its entry point {point.value!r} belongs to no distribution"
        )
    return point.dist


def _own_version() -> str:
    try:
        return version("rolecall")
    except PackageNotFoundError:
        return "(not installed)"


def _unknown(name: str, names: list[str]) -> str:
    valid = sorted({*names, NONE})
    message = f"monitor_type: no backend {name!r} is installed; installed are {', '.join(valid)}."
    near = get_close_matches(name.lower(), sorted({*valid, *KNOWN}), n=1)
    if near and near[0] != name:
        message += f" Did you mean {near[0]!r}?"
    wanted = near[0] if near else name
    if wanted in KNOWN and wanted not in names:
        message += f" {wanted} comes with: pip install '{KNOWN[wanted]}'"
    return message


def _import(point: EntryPoint) -> object:
    """The plugin's module or object, once what its distribution requires is known to be there."""
    dist = _distribution(point)
    if lacking := list(_lacking(dist)):
        raise BackendError(
            f"backend {point.name!r}: {dist.name} {dist.version} needs {'; '.join(lacking)}. "
            f"Mend it with: pip install --upgrade {dist.name}"
        )
    try:
        return point.load()
    except Exception as error:
        raise BackendError(
            f"backend {point.name!r}: {dist.name} {dist.version} cannot be imported ({point.value}): "
            f"{type(error).__name__}: {error}. Reinstall it, or choose another monitor_type"
        ) from error


def _lacking(dist: Distribution) -> Iterator[str]:
    """What the distribution requires and this environment lacks, SDK included, without importing anything."""
    from packaging.requirements import InvalidRequirement, Requirement

    for text in dist.requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            if (found := _found(requirement.name)) is None:
                yield f"{requirement.name}{requirement.specifier}, which is not installed"
            elif not requirement.specifier.contains(found, prereleases=True):
                yield f"{requirement.name}{requirement.specifier}, but {found} is installed"


def _found(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _manager(name: str, backend: object) -> pluggy.PluginManager:
    """A plugin manager of this backend alone, which has checked every hook."""
    if inspect.isclass(backend):
        raise BackendError(
            f"backend {name!r} is the class {backend.__qualname__}; register an instance or a module"
        )
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(backend, name)
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise BackendError(_broken_hook(name, backend, error)) from error
    _check_decorated(name, backend, manager)
    return manager


def _specs() -> dict[str, Callable[..., Any]]:
    found = vars(hookspecs).items()
    return {name: spec for name, spec in found if hasattr(spec, f"{hookspecs.PROJECT}_spec")}


def _broken_hook(name: str, backend: object, error: pluggy.PluginValidationError) -> str:
    """pluggy says what is wrong with a hook; what is valid is added."""
    fault = " ".join(str(error).split())
    hooks = ", ".join(
        f"{hook}({', '.join(inspect.signature(spec).parameters)})" for hook, spec in _specs().items()
    )
    return f"backend {name!r} ({_origin(backend)}): {fault}. The hooks are: {hooks}"


def _check_decorated(name: str, backend: object, manager: pluggy.PluginManager) -> None:
    implemented = {caller.name for caller in manager.get_hookcallers(backend) or ()}
    plain = [hook for hook in _specs() if hook not in implemented and callable(getattr(backend, hook, None))]
    missing = [hook for hook in hookspecs.REQUIRED if hook not in implemented and hook not in plain]
    where = f"backend {name!r} ({_origin(backend)})"
    if plain:
        raise BackendError(f"{where}: {', '.join(plain)} must be decorated with @rolecall.hookimpl")
    if missing:
        raise BackendError(
            f"{where}: {', '.join(missing)} is missing; {', '.join(hookspecs.REQUIRED)} are required"
        )


def _origin(backend: object) -> str:
    """The file that a backend stands in."""
    module = backend if inspect.ismodule(backend) else importlib.import_module(type(backend).__module__)
    return getattr(module, "__file__", None) or module.__name__
