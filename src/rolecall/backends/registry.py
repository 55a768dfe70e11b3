"""Finds backends by `monitor_type`; the only caller of hooks.

A `Registry` is an object that its caller owns. Listing reads the metadata of installed distributions, once; only
`load` imports a plugin, and a plugin does not import its SDK before `open_run`.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Self

import pluggy
from pydantic import BaseModel

from rolecall.backends import installed
from rolecall.backends.builtin import BUILTIN, NONE
from rolecall.backends.installed import IN_CHECKOUT, Provider
from rolecall.backends.validation import REPORT, check_hooks, describe, wrong_readback, wrong_run
from rolecall.errors import BackendError, RolecallError, UnknownBackend
from rolecall.hookspecs import READBACK_SINCE
from rolecall.protocol import Run, RunTicket, SharedRunSupport, SupportsReadback

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAME_RULE = "a name is 1 to 64 letters, digits, '.', '_' and '-', and starts with a letter or a digit"
# A typo of one letter or two; the usual 0.6 takes swanlab for wandb, another tracker.
_CLOSE = 0.75
_PLACES = frozenset({"process", "thread"})


@dataclass(frozen=True, slots=True)
class Listing:
    """One backend that you can choose, known without importing it, and the distribution that provides it."""

    name: str
    distribution: str
    version: str


@dataclass(frozen=True, slots=True)
class Backend:
    """One loaded backend, with typed hooks.

    Attributes:
        name: its `monitor_type`.
        portable: whether another process finds it by name; a backend registered in code is known to this process
            alone.
        manager: calls its hooks, and no other backend's.
    """

    name: str
    portable: bool
    manager: pluggy.PluginManager

    @property
    def declares_axes(self) -> bool:
        """Whether it implements the optional hook `declare_axes`."""
        return bool(self.manager.hook.declare_axes.get_hookimpls())

    @property
    def reads_back(self) -> bool:
        """Whether it implements the optional hook `open_readback`."""
        return bool(self.manager.hook.open_readback.get_hookimpls())

    @property
    def remark(self) -> str:
        """What its authors should correct, though it works; empty if there is nothing."""
        backend = self.manager.get_plugin(self.name)
        version = getattr(backend, "ROLECALL_HOOKS", 1)
        # Without a readback it may be an old plugin, which says nothing and need not.
        if not self.reads_back or version >= READBACK_SINCE:
            return ""
        where = describe(self.name, backend)
        return (
            f"{where}: has the hook open_readback of version {READBACK_SINCE} of the hooks, and counts as written for "
            f"version {version}; its authors should write ROLECALL_HOOKS = {READBACK_SINCE} beside its hooks"
        )

    @property
    def couriers(self) -> frozenset[str]:
        """Where its couriers may run: what its `COURIERS` names, or else anywhere."""
        named = getattr(self.manager.get_plugin(self.name), "COURIERS", tuple(_PLACES))
        if isinstance(named, str) or not set(named) or not set(named) <= _PLACES:
            where = describe(self.name, self.manager.get_plugin(self.name))
            raise BackendError(f'{where}: COURIERS is {named!r}; it must be ("process",), ("thread",) or both')
        return frozenset(named)

    @property
    def needs_growing_steps(self) -> bool:
        """Whether its SDK takes no step below the last one: what its `GROWING_STEPS` says."""
        return self._flag("GROWING_STEPS")

    @property
    def measures(self) -> bool:
        """Whether its SDK logs system metrics of the role by itself: what its `SYSTEM_METRICS` says."""
        return self._flag("SYSTEM_METRICS")

    def args_model(self) -> type[BaseModel]:
        """The model of its arguments."""
        model = self._ask("backend_args")
        if not (inspect.isclass(model) and issubclass(model, BaseModel)):
            raise self._wrong("backend_args", model, "a pydantic model class")
        return model

    def supports_shared_run(self, args: BaseModel) -> SharedRunSupport:
        """See `rolecall.hookspecs.supports_shared_run`."""
        support = self._ask("supports_shared_run", args=args)
        # the reason is all that a user sees of a downgrade
        if not isinstance(support, SharedRunSupport) or not (support.supported or support.reason):
            valid = "a rolecall.SharedRunSupport, with a reason if supported is False"
            raise self._wrong("supports_shared_run", support, valid)
        return support

    def prepare(self, ticket: RunTicket, args: BaseModel) -> None:
        """See `rolecall.hookspecs.prepare`; nothing if the backend does not implement it."""
        self.manager.hook.prepare(ticket=ticket, args=args)

    def open_run(self, ticket: RunTicket, args: BaseModel) -> Run:
        """See `rolecall.hookspecs.open_run`; checks that the result is a run."""
        run = self.manager.hook.open_run(ticket=ticket, args=args)
        # `isinstance` with a Protocol would not say what is missing
        if wrong := wrong_run(run):
            raise self._error(f"open_run returned {wrong}")
        return run  # type: ignore[no-any-return]

    def open_readback(self, ticket: RunTicket, args: BaseModel) -> SupportsReadback:
        """See `rolecall.hookspecs.open_readback`; only if the backend implements it."""
        readback = self.manager.hook.open_readback(ticket=ticket, args=args)
        if wrong := wrong_readback(readback):
            raise self._error(f"open_readback returned {wrong}")
        return readback  # type: ignore[no-any-return]

    def declare_axes(self, run: Run, axes: Mapping[str, str]) -> None:
        """See `rolecall.hookspecs.declare_axes`."""
        try:
            self.manager.hook.declare_axes(run=run, axes=axes)
        except AttributeError as error:
            if error.obj is not run:
                raise
            # This is a bug, and trying again would not help. Any other error may be an outage.
            raise self._failed("declare_axes", error) from error

    def _flag(self, name: str) -> bool:
        said = getattr(self.manager.get_plugin(self.name), name, False)
        if not isinstance(said, bool):
            where = describe(self.name, self.manager.get_plugin(self.name))
            raise BackendError(f"{where}: {name} is {said!r}; it must be True or False")
        return said

    def _ask(self, hook: str, **arguments: Any) -> Any:
        """Call a hook that must not raise, because it opens no connection and no file."""
        try:
            return getattr(self.manager.hook, hook)(**arguments)
        except RolecallError:
            raise
        except Exception as error:
            raise self._failed(hook, error) from error

    def _failed(self, hook: str, error: Exception) -> BackendError:
        return self._error(f"{hook} failed: {type(error).__name__}: {error}")

    def _wrong(self, hook: str, given: object, valid: str) -> BackendError:
        return self._error(f"{hook} returned {given!r}; it must return {valid}")

    def _error(self, what: str) -> BackendError:
        where = describe(self.name, self.manager.get_plugin(self.name))
        return BackendError(f"{where}: hook {what}. {REPORT}")


class Registry:
    """The backends that this process can select.

    It looks for installed backends once, when it is first asked. A pickled registry arrives without the backends that
    were registered in code, as they exist in their process only.
    """

    def __init__(self) -> None:
        self._in_code: dict[str, object] = {}
        self._loaded: dict[str, Backend] = {}
        self._versions: dict[str, str | None] = {}

    # A config holds a registry and is compared by value, also after a pickle or an environment variable.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Registry) and self._in_code == other._in_code

    __hash__ = object.__hash__

    def __reduce__(self) -> tuple[type["Registry"], tuple[()]]:
        return (Registry, ())

    def __repr__(self) -> str:
        return f"<Registry: {', '.join(self.names())}>"

    @cached_property
    def _installed(self) -> dict[str, list[Provider]]:
        return installed.find_installed()

    def register(self, name: str, backend: object) -> Self:
        """Add a backend of your own, for notebooks and tests. Returns the registry itself.

        A thread of the role delivers its rows, because no other process can find it.

        Raises:
            BackendError: the name is taken, or the backend breaks the hook contract.
        """
        if name == NONE or name in self.names():
            raise BackendError(f"backend {name!r} already exists; register yours under another name")
        if _NAME.fullmatch(name) is None:
            raise BackendError(f"backend {name!r}: {_NAME_RULE}")
        self._loaded[name] = Backend(name, False, check_hooks(name, backend))
        self._in_code[name] = backend
        return self

    def names(self) -> list[str]:
        """Every `monitor_type` but `none`."""
        return sorted({*BUILTIN, *self._in_code, *self._installed} - {NONE})

    def misnamed(self) -> Iterator[Listing]:
        """Installed backends that nobody can choose, as their name is `none`, which means that monitoring is off."""
        yield from (Listing(NONE, each.name, each.version) for each in self._installed.get(NONE, ()))

    def listings(self) -> Iterator[Listing]:
        """Every backend with the distribution that provides it; imports none of them."""
        own_version = installed.version_of("rolecall") or "(not installed)"
        for name in self.names():
            if name in self._in_code:
                yield Listing(name, "registered in code", "")
            elif name in BUILTIN:
                yield Listing(name, "rolecall", own_version)
            yield from (Listing(name, each.name, each.version) for each in self._installed.get(name, ()))

    def load(self, name: str) -> Backend:
        """Import the backend of that name and check its hooks, once.

        Raises:
            UnknownBackend: none is installed.
            BackendError: two distributions provide it, it fails to import, its SDK is missing or too old, or a hook
                is missing, misspelled, undecorated or has an unknown parameter.
        """
        if name not in self._loaded:
            found = self._installed.get(name, [])
            if not found and name not in BUILTIN:
                raise UnknownBackend(_unknown(name, self.names()))
            # importlib would pick one of the two silently, whichever is first on sys.path
            if len(found) + (name in BUILTIN) > 1:
                raise BackendError(_ambiguous(name, found))
            if _NAME.fullmatch(name) is None:
                raise BackendError(f"backend {name!r}: {_NAME_RULE}")
            backend = installed.import_backend(found[0], self._versions) if found else BUILTIN[name]
            self._loaded[name] = Backend(name, bool(found), check_hooks(name, backend))
        return self._loaded[name]


def _ambiguous(name: str, found: list[Provider]) -> str:
    found = sorted(found, key=lambda each: each.name)
    providers = ["rolecall itself"] if name in BUILTIN else []
    providers += [f"{each.name} {each.version}" for each in found]
    commands = " or ".join(f"pip uninstall {each.name}" for each in found)
    return f"backend {name!r} is provided by {' and '.join(providers)}; uninstall one: {commands}"


def _unknown(name: str, names: list[str]) -> str:
    """What is installed, what was probably meant, and how to install it."""
    known = sorted({*names, NONE})
    message = f"backend {name!r} is not installed; installed: {', '.join(known)}."
    near = get_close_matches(name.lower(), [*known, *IN_CHECKOUT], n=1, cutoff=_CLOSE)
    wanted = near[0] if near else name
    if wanted != name:
        message += f" Did you mean {wanted!r}?"
    if wanted in IN_CHECKOUT and wanted not in names:
        message += f" To use {wanted}, {installed.install_hint(wanted)}"
    elif not near:
        message += " Choose one of these, or install the distribution that provides it"
    return message
