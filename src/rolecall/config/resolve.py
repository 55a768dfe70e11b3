"""The validator: turns a config into what will happen, and says why the two differ."""

from importlib.util import find_spec

from rolecall.backends.builtin import BUILTIN, LOCAL, NONE
from rolecall.backends.registry import Backend
from rolecall.config.model import MonitorConfig
from rolecall.config.plan import BackendPlan, CourierPlace, Downgrade, Plan
from rolecall.protocol import SharedRunSupport

_ONE_PLACE = {
    "thread": "its SDK holds one run in each process, so a process beside each role delivers its rows instead",
    "process": "it works in the role's own process only, so a thread of the role delivers its rows instead",
}
_MANY_RUNS = (
    "an existing run can only be the one run of a job, and here each role has its own, so new ones are made; set "
    "shared_run: true, or use rolecall.init"
)
_NO_PROBES = "psutil is not installed, so the system is not measured; run: pip install 'psutil>=5.9' 'nvidia-ml-py>=12'"
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
    return Plan(backends=tuple(plan for plan, _ in found), downgrades=tuple(downgrades), system_metrics=can_measure)


def _resolve_one(config: MonitorConfig, backend: Backend, *, is_single: bool) -> tuple[BackendPlan, list[Downgrade]]:
    downgrades = []
    # Only asked if the user wants it: a reason against what nobody asked for would be noise.
    support = (
        backend.supports_shared_run(config.monitor_args[backend.name])
        if config.shared_run
        else SharedRunSupport(supported=True)
    )
    if not support.supported:
        downgrades.append(Downgrade(backend=backend.name, setting="shared_run", reason=support.reason))
    courier: CourierPlace = "none" if backend.name == LOCAL else config.courier
    if courier == "process" and not backend.portable:
        courier = "thread"
        # console is meant to write through the role's own logging: no downgrade
        if backend.name not in BUILTIN:
            downgrades.append(Downgrade(backend=backend.name, setting="courier", reason=_IN_CODE))
    elif courier != "none" and courier not in backend.couriers:
        downgrades.append(Downgrade(backend=backend.name, setting="courier", reason=_ONE_PLACE[courier]))
        courier = "thread" if courier == "process" else "process"
    shared = config.shared_run and support.supported
    is_given = getattr(config.monitor_args[backend.name], "run_id", None) is not None
    if is_given and not (shared or is_single):
        downgrades.append(Downgrade(backend=backend.name, setting="run_id", reason=_MANY_RUNS))
    plan = BackendPlan(
        backend=backend.name,
        shared=shared,
        courier=courier,
        attaches=is_given and (shared or is_single),
        measures=config.system_metrics and backend.measures,
    )
    return plan, downgrades
