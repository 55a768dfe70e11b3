"""What goes into the demo and what comes out of it. Imports neither numpy nor rich, as the command line does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from itertools import chain, count
from pathlib import Path
from typing import Any

from rolecall.errors import ConfigError

__all__ = ["DemoOptions", "DemoResult", "options_of", "run_demo"]

PROJECT = "rolecall-demo"
STEPS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOptions:
    """What a person can choose; `options_of` fills in what they did not.

    Attributes:
        monitor_type: the backends.
        monitor_args: their arguments, as in `MonitorConfig`.
        shared_run: whether all roles report into one run, where the backend can hold one.
        steps: rounds of training; each role's step axis is 1..steps.
        seed: of the training. One seed gives the same returns on one machine, however its processes are timed.
        monitor_dir: where the journals are.
        project: where backends file the run.
        name: the run's display name.
    """

    monitor_type: tuple[str, ...]
    monitor_args: Mapping[str, Any]
    shared_run: bool
    steps: int
    seed: int
    monitor_dir: Path
    project: str
    name: str

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps: must be a whole number from 1, not {self.steps}")
        if self.seed < 0:
            raise ConfigError(f"seed: must be a whole number from 0, not {self.seed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """How it went.

    Attributes:
        returns: the mean return of the explorers' episodes in each round; 500 is the most that can be had.
        directory: the job's `monitor_dir`.
        urls: for each backend the address, or the command, that shows the run; `None` where it needs neither.
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


def options_of(
    *,
    monitor_type: Sequence[str] | None = None,
    monitor_args: Mapping[str, Any] | None = None,
    shared_run: bool = True,
    steps: int | None = None,
    seed: int = 0,
    monitor_dir: Path | None = None,
) -> DemoOptions:
    """The options, where `None` is the default: TensorBoard beside `local` if it can be had, a fresh directory.

    Raises:
        ConfigError: a number out of its range.
    """
    name = time.strftime("cartpole-%Y%m%d-%H%M%S")
    backends = tuple(monitor_type or _default_backends())
    return DemoOptions(
        monitor_type=backends,
        monitor_args=monitor_args or _default_args(backends),
        shared_run=shared_run,
        steps=STEPS if steps is None else steps,
        seed=seed,
        monitor_dir=monitor_dir or _fresh(Path(PROJECT, name)),
        project=PROJECT,
        name=name,
    )


def run_demo(options: DemoOptions) -> DemoResult:
    """Run the job, show its progress, and say where to look.

    Raises:
        ModuleNotFoundError: numpy or rich, which the extra `cli` brings.
        RoleFailed: a role crashed or was killed; the others have been ended.
        RolecallError: as `launch` raises them.
    """
    from rolecall.demo.job import run_job

    return run_job(options)


def _default_backends() -> tuple[str, ...]:
    installed = entry_points(group="rolecall.backends").names
    return ("local", "tensorboard") if "tensorboard" in installed else ("local",)


def _default_args(backends: Sequence[str]) -> Mapping[str, Any]:
    """A demo needs no server: MLflow's own default is one, so it gets a file beside the journals."""
    return {"mlflow": {"uri": "sqlite:///{monitor_dir}/mlflow.db"}} if "mlflow" in backends else {}


def _fresh(path: Path) -> Path:
    """The path, numbered if there is one already: a demo started twice in one second."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in count(2))
    return next(candidate for candidate in chain([path], numbered) if not candidate.exists())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
