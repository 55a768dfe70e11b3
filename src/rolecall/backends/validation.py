"""Checks that a backend implements the hooks of `rolecall.hookspecs`, and says what is wrong if it does not."""

import inspect
import sys
from difflib import get_close_matches

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
    # A manager for each backend: a call of a hook must reach one backend, and pluggy stops a call at the first
    # exception of any plugin.
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.register(backend, name)
    found = {caller.name: caller.get_hookimpls()[0] for caller in manager.get_hookcallers(backend) or ()}
    if wrong := _wrong_hook(backend, found):
        raise BackendError(f"{where}: {wrong}")
    try:
        # Last, because pluggy checks parameters too, but its message is for people who know pluggy.
        manager.add_hookspecs(hookspecs)
    except pluggy.PluginValidationError as error:
        raise BackendError(f"{where}: {' '.join(str(error).split())}") from error
    return manager


def describe(name: str, backend: object) -> str:
    """A backend's name and its file, or else its module, for messages."""
    if inspect.ismodule(backend):
        module = backend.__name__
    else:
        module = (backend if inspect.isclass(backend) else type(backend)).__module__
    file = getattr(sys.modules.get(module, backend), "__file__", None)
    return f"backend {name!r} ({file or module})"


def _wrong_hook(backend: object, found: dict[str, pluggy.HookImpl]) -> str | None:
    """What is wrong with the hooks of a backend, which are keyed by name."""
    specs = {
        name: tuple(inspect.signature(spec).parameters)
        for name, spec in vars(hookspecs).items()
        if hasattr(spec, f"{hookspecs.PROJECT}_spec")
    }
    signatures = ", ".join(f"{hook}({', '.join(parameters)})" for hook, parameters in specs.items())
    for hook, implementation in found.items():
        if hook not in specs and implementation.optionalhook:
            continue  # as the author said: it is a hook of another version
        if hook not in specs:
            near = get_close_matches(hook, specs, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            return f"unknown hook {hook!r}{hint} The hooks are {signatures}"
        # A parameter with a default is not among these: pluggy passes only what it knows.
        if unknown := [repr(name) for name in implementation.argnames if name not in specs[hook]]:
            given = f"{hook}{inspect.signature(implementation.function)}"
            parameters = "parameters" if len(unknown) > 1 else "parameter"
            allowed = f"{', '.join(specs[hook])} (all optional)" if specs[hook] else "none"
            return f"{given}: unknown {parameters} {', '.join(unknown)}; allowed: {allowed}"
    if undecorated := [hook for hook in specs if hook not in found and callable(getattr(backend, hook, None))]:
        return f"decorate {', '.join(undecorated)} with @rolecall.hookimpl"
    required = ", ".join(hookspecs.REQUIRED)
    if missing := [hook for hook in hookspecs.REQUIRED if hook not in found]:
        return (
            f"missing {', '.join(missing)}; add it, decorated with @rolecall.hookimpl. Required are {required}; "
            f"the hooks are {signatures}"
        )
    return None
