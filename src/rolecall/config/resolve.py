"""The validator: turns a config into what will happen, and says why the two differ."""

from importlib.util import find_spec

from rolecall.backends.builtin import BUILTIN, LOCAL, NONE
from rolecall.backends.registry import Backend
from rolecall.config.environment import uses_ray
from rolecall.config.model import MonitorConfig
from rolecall.config.plan import BackendPlan, CourierPlace, Downgrade, Plan

_ONE_PLACE = {
    "thread": "its SDK holds one run in each process, so a process beside each role delivers its rows instead",
    "process": "it works in the role's own process only, so a thread of the role delivers its rows instead",
}
_MANY_RUNS = (
    "an existing run can only be the one run of a job, and here each role has its own, so new ones are made; set "
    "shared_run: true or relay, or use rolecall.init"
)
_NO_PROBES = "psutil is not installed, so the system is not measured; run: pip install 'psutil>=5.9' 'nvidia-ml-py>=12'"
_OVER_RAY = "over Ray one process on the launcher's node writes the run of all roles, as with shared_run: relay"
_RELAY = "With shared_run: relay, one process writes one run of all roles"
_IN_CODE = "registered in code, so no other process can find it; a thread of the role delivers its rows instead"


def resolve(config: MonitorConfig, *, is_single: bool = False) -> Plan:
    """Say what a config will do on this machine, for each backend, and which settings it cannot fulfil.

    Asks each backend's `supports_shared_run`; opens no connection and imports no SDK.

    Args:
        config: the config.
        is_single: whether the job has one writer, and so one run in each backend, as with `rolecall.init`.

    Raises:
        BackendError: a backend cannot be loaded, or a hook of it returns something invalid.
    """
    if config.disabled:
        return Plan()
    backends = [config.registry.load(name) for name in config.monitor_type if name != NONE]
    found = [_resolve_one(config, backend, is_single=is_single) for backend in backends]
    downgrades = [downgrade for _, downgrades in found for downgrade in downgrades]
    # It is not imported: that is for the process that measures. Without nvidia-ml-py, GPUs are not measured, and most
    # nodes without it have none.
    can_measure = config.system_metrics and find_spec("psutil") is not None
    if config.system_metrics and not can_measure:
        downgrades.append(Downgrade(backend="", setting="system_metrics", reason=_NO_PROBES))
    return Plan(
        backends=tuple(plan for plan, _ in found),
        downgrades=tuple(downgrades),
        system_metrics=can_measure,
        is_single=is_single,
    )


def _resolve_one(config: MonitorConfig, backend: Backend, *, is_single: bool) -> tuple[BackendPlan, list[Downgrade]]:
    downgrades = []
    is_over_ray = config.shared_run is True and uses_ray(config.transport)
    if is_over_ray:
        downgrades.append(Downgrade(backend=backend.name, setting="shared_run", reason=_OVER_RAY))
    is_relayed = is_over_ray or config.shared_run == "relay"
    shared = False
    # Only asked if the user wants it: a reason against what nobody asked for would be noise. And no backend is asked
    # about a relay: there one process writes the run.
    if config.shared_run is True and not is_over_ray:
        support = backend.supports_shared_run(config.monitor_args[backend.name])
        shared = support.supported
        if not shared:
            reason = support.reason if "relay" in support.reason else f"{support.reason.rstrip('. ')}. {_RELAY}"
            downgrades.append(Downgrade(backend=backend.name, setting="shared_run", reason=reason))
    courier, reason = _courier(config, backend)
    if reason:
        downgrades.append(Downgrade(backend=backend.name, setting="courier", reason=reason))
    is_one = shared or is_relayed or is_single
    is_given = getattr(config.monitor_args[backend.name], "run_id", None) is not None
    if is_given and not is_one:
        downgrades.append(Downgrade(backend=backend.name, setting="run_id", reason=_MANY_RUNS))
    plan = BackendPlan(
        backend=backend.name,
        shared=shared,
        courier=courier,
        attaches=is_given and is_one,
        # Of a relayed run, the SDK would measure the relay.
        measures=config.system_metrics and backend.measures and not is_relayed,
        relayed=is_relayed,
    )
    return plan, downgrades


def _courier(config: MonitorConfig, backend: Backend) -> tuple[CourierPlace, str]:
    """Where the backend's courier runs, and why it does not run where the config says."""
    if backend.name == LOCAL or config.courier == "none":
        return "none", ""
    if config.courier == "process" and not backend.portable:
        # console is meant to write through the role's own logging: no downgrade
        return "thread", "" if backend.name in BUILTIN else _IN_CODE
    if config.courier not in backend.couriers:
        return "thread" if config.courier == "process" else "process", _ONE_PLACE[config.courier]
    return config.courier, ""
