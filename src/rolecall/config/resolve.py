"""The validator: turns what a user asked for into what will happen, and says why they differ."""

from __future__ import annotations

from rolecall.backends.builtin import BUILTIN, LOCAL, NONE
from rolecall.backends.registry import Backend
from rolecall.config.model import MonitorConfig
from rolecall.config.plan import BackendPlan, CourierPlace, Downgrade, Plan
from rolecall.protocol import SharedRunSupport

__all__ = ["BackendPlan", "Downgrade", "Plan", "resolve"]

_IN_CODE = "it is registered in code, where no other process can find it, so its courier runs on a thread of the role"


def resolve(config: MonitorConfig) -> Plan:
    """What will happen to each backend of a config, on this machine, with reasons where it is less than asked for.

    Asks each backend's `supports_shared_run`; opens no connection and imports no SDK.

    Raises:
        BackendError: a backend cannot be loaded, or answers with nonsense.
    """
    if config.disabled:
        return Plan()
    backends = [config.registry.load(name) for name in config.monitor_type if name != NONE]
    found = [_resolve_one(config, backend) for backend in backends]
    return Plan(
        backends=tuple(plan for plan, _ in found),
        downgrades=tuple(downgrade for _, downgrades in found for downgrade in downgrades),
    )


def _resolve_one(config: MonitorConfig, backend: Backend) -> tuple[BackendPlan, list[Downgrade]]:
    downgrades = []
    support = _support(config, backend)
    if not support.supported:
        downgrades.append(Downgrade(backend=backend.name, setting="shared_run", reason=support.reason))
    courier: CourierPlace = "none" if backend.name == LOCAL else config.courier
    if courier == "process" and not backend.portable:
        courier = "thread"
        if backend.name not in BUILTIN:
            downgrades.append(Downgrade(backend=backend.name, setting="courier", reason=_IN_CODE))
    plan = BackendPlan(backend=backend.name, shared=config.shared_run and support.supported, courier=courier)
    return plan, downgrades


def _support(config: MonitorConfig, backend: Backend) -> SharedRunSupport:
    """What the backend says of sharing, if it was asked for."""
    if not config.shared_run:
        return SharedRunSupport(supported=True)
    return backend.supports_shared_run(config.monitor_args[backend.name])
