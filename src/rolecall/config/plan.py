"""What will happen: the result of `resolve`, which a launcher hands to its roles."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Slug = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""What is a part of a path, so that none leads out of the directory."""
CourierPlace = Literal["process", "thread", "none"]
"""Where a backend's courier runs: in a process beside the role, on a thread of it, or nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Downgrade:
    """A setting that cannot be fulfilled, and why. `backend` is empty if that is the fault of none."""

    backend: str
    setting: str
    reason: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.backend, self.setting, self.reason)))


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendPlan:
    """How rows reach one backend.

    Attributes:
        backend: its name.
        shared: whether all roles write one run.
        courier: where its courier runs.
        attaches: whether its run is one that exists already, whose id is the argument `run_id`.
        measures: whether system metrics are its SDK's own, so that it gets none of rolecall's.
        relayed: whether one process, the relay, reads the journals of all roles and writes one run.
    """

    backend: Slug
    shared: bool
    courier: CourierPlace
    attaches: bool = False
    measures: bool = False
    relayed: bool = False

    @property
    def has_one_run(self) -> bool:
        """Whether the rows of all roles are in one run, whoever writes it."""
        return self.shared or self.relayed


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How rows reach every backend, and what differs from the config.

    Attributes:
        backends: those that there are.
        downgrades: what differs.
        system_metrics: whether nodes and the processes of roles are measured.
        is_single: whether there is one role only, as with `rolecall.init`. It is launcher, too: nothing is to be ready
            before it opens its runs.
    """

    backends: tuple[BackendPlan, ...] = ()
    downgrades: tuple[Downgrade, ...] = ()
    system_metrics: bool = False
    is_single: bool = False

    @property
    def disabled(self) -> bool:
        """Whether nothing is recorded at all."""
        return not self.backends

    @property
    def is_relayed(self) -> bool:
        """Whether any backend has a relay."""
        return any(plan.relayed for plan in self.backends)

    def shared(self, backend: str) -> bool:
        """Whether all roles write one run of this backend."""
        return any(plan.shared for plan in self.backends if plan.backend == backend)

    def has_one_run(self, backend: str) -> bool:
        """Whether the rows of all roles are in one run of this backend, whoever writes it."""
        return any(plan.has_one_run for plan in self.backends if plan.backend == backend)

    def with_courier(self, place: CourierPlace) -> tuple[BackendPlan, ...]:
        """The backends whose rows are delivered in this way."""
        return tuple(plan for plan in self.backends if plan.courier == place)

    def of(self, *, launcher: bool) -> tuple[BackendPlan, ...]:
        """The backends that a writer has couriers for.

        Args:
            launcher: whether the writer is the launcher, which is the only one with a courier for a relayed backend,
                and has none for the runs of an only role.
        """
        if launcher and self.is_single:
            return tuple(plan for plan in self.backends if plan.courier != "none" and plan.has_one_run)
        return tuple(plan for plan in self.backends if plan.courier != "none" and (launcher or not plan.relayed))
