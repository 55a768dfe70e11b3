"""Checks that a backend implements the hooks of `rolecall.hookspecs`, and says what is wrong if it does not."""

import inspect
import sys
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from types import FunctionType
from typing import Final

import pluggy

from rolecall import hookspecs, protocol
from rolecall.errors import BackendError

OPTIONAL: Final = (
    protocol.SupportsText,
    protocol.SupportsTables,
    protocol.SupportsMedia,
    protocol.SupportsTableMedia,
    protocol.SupportsConfig,
    protocol.SupportsSummary,
    protocol.SupportsTags,
    protocol.SupportsEndTime,
    protocol.SupportsProgress,
    protocol.SupportsConfirmation,
)
_CLOSE: Final = 0.8
_HOOKS: Final = {
    name: tuple(inspect.signature(spec).parameters)
    for name, spec in vars(hookspecs).items()
    if hasattr(spec, f"{hookspecs.PROJECT}_spec")
}
REPORT: Final = "This is a bug in the backend: report it to its authors, or choose another monitor_type"
"""What a user can do about a backend that breaks the hook contract."""
_SIGNATURES: Final = ", ".join(f"{hook}({', '.join(parameters)})" for hook, parameters in _HOOKS.items())


def check_hooks(name: str, backend: object) -> pluggy.PluginManager:
    """Return a plugin manager of this backend alone.

    Raises:
        BackendError: the backend is a class, or a hook of it is missing, misspelled, undecorated, or has an unknown
            parameter.
    """
    where = describe(name, backend)
    if inspect.isclass(backend):
        raise BackendError(f"{where}: is the class {backend.__qualname__}; register an instance of it, or a module")
    version = getattr(backend, "ROLECALL_HOOKS", 1)
    if type(version) is not int or version < 1:
        raise BackendError(f"{where}: ROLECALL_HOOKS is {version!r}; it must be a whole number from 1 on")
    if version > hookspecs.HOOKS_VERSION:
        mine = f"this rolecall has version {hookspecs.HOOKS_VERSION}"
        raise BackendError(
            f"{where}: was written for version {version} of the hooks, but {mine}; install a newer rolecall, or a "
            "version of the plugin that was written for this one"
        )
    # A manager for each backend: a call of a hook must reach one backend, and pluggy stops a call at the first
    # exception of any plugin.
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.register(backend, name)
    found = {caller.name: caller.get_hookimpls()[0] for caller in manager.get_hookcallers(backend) or ()}
    if wrong := list(_wrong_hooks(backend, found)):
        # All at once, as a plugin that was written for other hooks has several.
        found_wrong = "; ".join(wrong)
        end = "" if found_wrong.endswith("?") else "."
        raise BackendError(f"{where}: {found_wrong}{end} The hooks are {_SIGNATURES}. {REPORT}")
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


def wrong_run(run: object) -> str | None:
    """What keeps a run from being a `rolecall.Run`, or from what it seems to offer beside that, and the remedy."""
    required = _members(protocol.Run)
    optional = [_members(each) for each in OPTIONAL]
    if missing := [name for name in required if not hasattr(run, name)]:
        return f"{_a(run)}, without {', '.join(missing)}; a rolecall.Run has {', '.join(required)}"
    for found in optional:
        lacking = [name for name in found if not hasattr(run, name)]
        if lacking and len(lacking) < len(found):
            given = [name for name in found if name not in lacking]
            return f"{_a(run)}, with {', '.join(given)}, but without {', '.join(lacking)}; add what is missing"
    known = {name: parameters for methods in (required, *optional) for name, parameters in methods.items()}
    for name in (name for name in dir(run) if not name.startswith("_") and name not in known):
        # A method that is called nowhere would leave out, in silence, what it was written for.
        near = get_close_matches(name, known, n=1, cutoff=_CLOSE)
        if near and not hasattr(run, near[0]) and callable(getattr(run, name)):
            rename = f"did you mean {near[0]!r}? Rename it, or begin its name with '_' if it is the run's own"
            return f"{_a(run)}, with {name}, which rolecall never calls; {rename}"
    return _uncallable(run, known)


def wrong_readback(readback: object) -> str | None:
    """What keeps an object from being a `rolecall.SupportsReadback`."""
    required = _members(protocol.SupportsReadback)
    if missing := [name for name in required if not hasattr(readback, name)]:
        return f"{_a(readback)}, without {', '.join(missing)}; a rolecall.SupportsReadback has {', '.join(required)}"
    return _uncallable(readback, required)


def _uncallable(given: object, known: Mapping[str, list[str] | None]) -> str | None:
    """Which of these members is not as it will be used; a property has no parameters."""
    for name, parameters in known.items():
        member = getattr(given, name, None)
        if parameters is None:
            if inspect.ismethod(member):  # it would count as true
                return f"{_a(given)}, whose {name} is a method; make it an attribute or a property"
        elif member is not None and not _takes(member, len(parameters)):
            return f"{_a(given)}, whose {name} cannot be called as {name}({', '.join(parameters)})"
    return None


def _a(given: object) -> str:
    """What a hook returned, without an address in memory, which would say nothing and differ from run to run."""
    kind = type(given)
    return "None" if given is None else f"an object of {kind.__module__}.{kind.__qualname__}"


def _members(kind: type) -> dict[str, list[str] | None]:
    """The members of a Protocol: of methods the parameters without `self`, of properties `None`."""
    return {
        name: None if isinstance(member, property) else list(inspect.signature(member).parameters)[1:]
        for name, member in vars(kind).items()
        if isinstance(member, property | FunctionType) and not name.startswith("_")
    }


def _takes(method: object, count: int) -> bool:
    """Whether a method can be called with so many positional arguments, as far as its signature can be read."""
    try:
        inspect.signature(method).bind(*range(count))  # type: ignore[arg-type]
    except TypeError:
        return False
    except ValueError:  # some that are written in C have none
        return True
    return True


def _wrong_hooks(backend: object, found: Mapping[str, pluggy.HookImpl]) -> Iterator[str]:
    """What is wrong with the hooks of a backend, which are keyed by name."""
    for hook, implementation in found.items():
        if hook in _HOOKS:
            yield from _wrong_parameters(hook, implementation)
        elif not implementation.optionalhook:  # else it is, as its author said, a hook of another version
            near = get_close_matches(hook, _HOOKS, n=1)
            yield f"unknown hook {hook!r}" + (f", did you mean {near[0]!r}?" if near else "")
    if undecorated := [hook for hook in _HOOKS if hook not in found and callable(getattr(backend, hook, None))]:
        yield f"decorate {', '.join(undecorated)} with @rolecall.hookimpl"
    if missing := [hook for hook in hookspecs.REQUIRED if hook not in found and hook not in undecorated]:
        yield f"missing {', '.join(missing)}; add it, decorated with @rolecall.hookimpl"


def _wrong_parameters(hook: str, implementation: pluggy.HookImpl) -> Iterator[str]:
    valid = _HOOKS[hook]
    # A parameter with a default is not among these: pluggy passes only what it knows.
    if unknown := [repr(name) for name in implementation.argnames if name not in valid]:
        given = f"{hook}{inspect.signature(implementation.function)}"
        parameters = "parameters" if len(unknown) > 1 else "parameter"
        allowed = f"{', '.join(valid)} (all optional)" if valid else "none"
        yield f"{given}: unknown {parameters} {', '.join(unknown)}; allowed: {allowed}"
