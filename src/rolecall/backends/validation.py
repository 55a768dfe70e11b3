"""Checks that a backend implements the hooks of `rolecall.hookspecs`, and says what is wrong if it does not."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

import pluggy

from rolecall import hookspecs
from rolecall.errors import BackendError


def check_hooks(name: str, backend: object) -> pluggy.PluginManager:
    """Return a plugin manager of this backend alone.

    Raises:
        BackendError: the backend is a class, or a hook of it is missing, misspelled, undecorated, or has an unknown
            parameter.
    """
    where = describe(name, backend)
    if inspect.isclass(backend):
        raise BackendError(f"{where}: is the class {backend.__qualname__}; register an instance of it, or a module")
    _check_parameters(where, backend)
    # A manager for each backend: a call of a hook must reach one backend, and pluggy stops a call at the first
    # exception of any plugin.
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(backend, name)
    except pluggy.PluginValidationError as error:
        raise BackendError(f"{where}: {' '.join(str(error).split())}") from error
    try:
        manager.check_pending()  # pluggy accepts an unknown hook until it is asked
    except pluggy.PluginValidationError as error:
        callers = manager.get_hookcallers(backend) or ()
        unknown = next(caller.name for caller in callers if not caller.has_spec())
        near = get_close_matches(unknown, _specs(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise BackendError(f"{where}: unknown hook {unknown!r}{hint} The hooks are {_signatures()}") from error
    _check_complete(where, manager, backend)
    return manager


def describe(name: str, backend: object) -> str:
    """A backend's name and its file, or else its module, for messages."""
    if inspect.ismodule(backend):
        module = backend.__name__
    else:
        module = (backend if inspect.isclass(backend) else type(backend)).__module__
    file = getattr(sys.modules.get(module, backend), "__file__", None)
    return f"backend {name!r} ({file or module})"


def _check_parameters(where: str, backend: object) -> None:
    # pluggy checks the same, but its message is for people who know pluggy
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    for hook, spec in _specs().items():
        found = getattr(backend, hook, None)
        if not hasattr(found, f"{hookspecs.PROJECT}_impl") or not inspect.isroutine(found):
            continue
        allowed = inspect.signature(spec).parameters
        # pluggy passes only what it knows, so a parameter with a default is the backend's own affair
        unknown = [
            repr(parameter.name)
            for parameter in inspect.signature(found).parameters.values()
            if parameter.kind in positional and parameter.default is parameter.empty and parameter.name not in allowed
        ]
        if unknown:
            raise BackendError(
                f"{where}: {hook}{inspect.signature(found)}: unknown parameter{'s' if len(unknown) > 1 else ''} "
                f"{', '.join(unknown)}; allowed: {', '.join(allowed) or 'none'}{' (all optional)' if allowed else ''}"
            )


def _check_complete(where: str, manager: pluggy.PluginManager, backend: object) -> None:
    implemented = {caller.name for caller in manager.get_hookcallers(backend) or ()}
    undecorated = [hook for hook in _specs() if hook not in implemented and callable(getattr(backend, hook, None))]
    if undecorated:
        raise BackendError(f"{where}: decorate {', '.join(undecorated)} with @rolecall.hookimpl")
    missing = [hook for hook in hookspecs.REQUIRED if hook not in implemented]
    if missing:
        raise BackendError(
            f"{where}: missing {', '.join(missing)}; add it, decorated with @rolecall.hookimpl. "
            f"Required are {', '.join(hookspecs.REQUIRED)}; the hooks are {_signatures()}"
        )


def _specs() -> dict[str, Callable[..., Any]]:
    found = vars(hookspecs).items()
    return {name: spec for name, spec in found if hasattr(spec, f"{hookspecs.PROJECT}_spec")}


def _signatures() -> str:
    """Every hook with all parameters that it may have."""
    return ", ".join(f"{hook}({', '.join(inspect.signature(spec).parameters)})" for hook, spec in _specs().items())
