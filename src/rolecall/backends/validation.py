"""Checks that a backend implements the hooks of `rolecall.hookspecs`, and says what is wrong where it does not."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import pluggy

from rolecall import hookspecs
from rolecall.errors import BackendError

__all__ = ["checked", "where_of"]


def checked(name: str, backend: object) -> pluggy.PluginManager:
    """A plugin manager of this backend alone.

    Raises:
        BackendError: the backend is a class, or a hook of it is missing, misspelled, undecorated, or has an
            argument that does not exist.
    """
    where = where_of(name, backend)
    if inspect.isclass(backend):
        raise BackendError(
            f"{where}: is the class {backend.__qualname__}; give an instance of it, or a module"
        )
    _check_arguments(where, backend)
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(backend, name)
    except pluggy.PluginValidationError as error:
        raise BackendError(f"{where}: {' '.join(str(error).split())}") from error
    _check_spelled(where, manager, name)
    _check_complete(where, manager, backend)
    return manager


def where_of(name: str, backend: object) -> str:
    """A backend and the file, or else the module, that it stands in; for messages."""
    module = backend.__name__ if inspect.ismodule(backend) else _module_of(backend)
    file = getattr(sys.modules.get(module, backend), "__file__", None)
    return f"backend {name!r} ({file or module})"


def _module_of(backend: object) -> str:
    return (backend if inspect.isclass(backend) else type(backend)).__module__


def _check_arguments(where: str, backend: object) -> None:
    """pluggy checks the same, but says it in words for people who know pluggy."""
    for hook, spec in _specs().items():
        found = getattr(backend, hook, None)
        if not hasattr(found, f"{hookspecs.PROJECT}_impl") or not inspect.isroutine(found):
            continue
        valid = inspect.signature(spec).parameters
        if strange := [name for name in _needed(found) if name not in valid]:
            raise BackendError(
                f"{where}: {hook}{inspect.signature(found)}: {', '.join(strange)} is no argument of this hook; "
                f"valid are {', '.join(valid) or 'none'}, of which some may be left out"
            )


def _needed(function: Callable[..., Any]) -> list[str]:
    """The arguments that a function cannot be called without."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [one.name for one in parameters if one.kind in positional and one.default is one.empty]


def _check_spelled(where: str, manager: pluggy.PluginManager, name: str) -> None:
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        plugin = manager.get_plugin(name)
        callers = manager.get_hookcallers(plugin) or ()
        unknown = next(caller.name for caller in callers if not caller.has_spec())
        near = get_close_matches(unknown, _specs(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise BackendError(f"{where}: {unknown} is no hook; {hint}The hooks are {_signatures()}") from error


def _check_complete(where: str, manager: pluggy.PluginManager, backend: object) -> None:
    implemented = {caller.name for caller in manager.get_hookcallers(backend) or ()}
    plain = [hook for hook in _specs() if hook not in implemented and callable(getattr(backend, hook, None))]
    if plain:
        raise BackendError(f"{where}: {', '.join(plain)} must be decorated with @rolecall.hookimpl")
    missing = [hook for hook in hookspecs.REQUIRED if hook not in implemented]
    if missing:
        raise BackendError(
            f"{where}: {', '.join(missing)} is missing; write it, decorated with @rolecall.hookimpl. "
            f"{', '.join(hookspecs.REQUIRED)} are required; the hooks are {_signatures()}"
        )


def _specs() -> dict[str, Callable[..., Any]]:
    found = vars(hookspecs).items()
    return {name: spec for name, spec in found if hasattr(spec, f"{hookspecs.PROJECT}_spec")}


def _signatures() -> str:
    """Every hook with its arguments, of which an implementation may leave some out."""
    return ", ".join(
        f"{hook}({', '.join(inspect.signature(spec).parameters)})" for hook, spec in _specs().items()
    )
