"""The options and the result of the demo. Imports neither numpy nor rich, so that options are checked without them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

from rolecall import ConfigError, Registry

__all__ = ["DemoOptions", "DemoResult", "options_of", "run_demo"]

PROJECT = "rolecall-demo"
STEPS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What you can choose; `options_of` fills in the defaults.

    Attributes:
        monitor_type: the backends.
        monitor_args: their arguments, as in `MonitorConfig`.
        shared_run: whether all roles report into one run, as in `MonitorConfig`.
        steps: rounds of training; each role's step axis is 1..steps.
        seed: of the training. The same seed gives the same returns on the same machine, whatever the timing of the
            processes.
        monitor_dir: where the journals are.
        project: where backends file the run.
        name: the run's display name.
        ray: whether the roles are tasks of a Ray cluster, whose rows travel over Ray.
    """

    monitor_type: tuple[str, ...]
    monitor_args: Mapping[str, Any]
    shared_run: bool | Literal["relay"]
    steps: int
    seed: int
    monitor_dir: Path
    project: str
    name: str
    ray: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps: must be a whole number from 1, not {self.steps}")
        if self.seed < 0:
            raise ConfigError(f"seed: must be a whole number from 0, not {self.seed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """The result of the demo.

    Attributes:
        returns: the mean return of the explorers' episodes in each round; 500 is the maximum.
        directory: the job's `monitor_dir`.
        urls: for each backend the address, or the command, that shows the run; `None` if it needs neither.
        seconds: from the launch to the end of the last role.
    """

    returns: tuple[float, ...]
    directory: Path
    urls: Mapping[str, str | None]
    seconds: float

    @property
    def first_quarter(self) -> float:
        """The mean return over the first quarter of the rounds."""
        return _mean(self.returns[: self._quarter])

    @property
    def last_quarter(self) -> float:
        """The mean return over the last quarter of the rounds."""
        return _mean(self.returns[-self._quarter :])

    @property
    def _quarter(self) -> int:
        return max(1, len(self.returns) // 4)


def options_of(  # noqa: PLR0913 - all by name
    *,
    monitor_type: Sequence[str] | None = None,
    monitor_args: Mapping[str, Any] | None = None,
    shared_run: bool | None = None,
    steps: int | None = None,
    seed: int = 0,
    monitor_dir: Path | None = None,
    ray: bool = False,
) -> DemoOptions:
    """Fill in defaults for `None`: `local`, and TensorBoard if its plugin is installed; a new directory.

    All roles are one run. Where TensorBoard is among the backends, one process writes it.

    Raises:
        ConfigError: a number is out of range.
    """
    name = time.strftime("cartpole-%Y%m%d-%H%M%S")
    backends = tuple(monitor_type or _default_backends())
    return DemoOptions(
        monitor_type=backends,
        monitor_args=monitor_args or _default_args(backends),
        shared_run=_default_sharing(backends, ray=ray) if shared_run is None else shared_run,
        steps=STEPS if steps is None else steps,
        seed=seed,
        monitor_dir=monitor_dir or _fresh(Path(PROJECT, name)),
        project=PROJECT,
        name=name,
        ray=ray,
    )


def run_demo(options: DemoOptions) -> DemoResult:
    """Run the job and print its progress.

    Raises:
        ModuleNotFoundError: numpy or rich is missing; the extra `cli` installs them.
        RoleFailed: a role crashed or was killed; the others have been stopped.
        RolecallError: as `launch` raises them.
    """
    from rolecall.demo.job import run_job

    return run_job(options)


def _default_backends() -> tuple[str, ...]:
    return ("local", "tensorboard") if "tensorboard" in Registry().names() else ("local",)


def _default_sharing(backends: Sequence[str], *, ray: bool) -> bool | Literal["relay"]:
    # TensorBoard cannot read a run that several processes write, and over Ray one process writes them all.
    return "relay" if ray or "tensorboard" in backends else True


def _default_args(backends: Sequence[str]) -> Mapping[str, Any]:
    # MLflow's own default is a server at localhost; a demo needs none
    return {"mlflow": {"uri": "sqlite:///{monitor_dir}/mlflow.db"}} if "mlflow" in backends else {}


def _fresh(path: Path) -> Path:
    """The path, numbered if it exists: somebody may start two demos in one second."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(candidate for candidate in chain([path], numbered) if not candidate.exists())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
