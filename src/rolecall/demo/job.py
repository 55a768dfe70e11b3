"""The launcher of the job: checks the config, starts the roles and watches them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from rolecall import ConfigError, Job, MonitorConfig, launch
from rolecall.demo.options import DemoOptions, DemoResult
from rolecall.demo.processes import Team
from rolecall.demo.roles import Report, Task, evaluate, explore, train
from rolecall.demo.screen import Screen

if TYPE_CHECKING:
    from rolecall.demo.cluster import RayTeam

__all__ = ["run_job"]


def run_job(options: DemoOptions) -> DemoResult:
    """Run the job to its end; errors as in `run_demo`."""
    began = time.monotonic()
    task = Task(steps=options.steps, seed=options.seed)
    reports: list[Report] = []
    # Ray comes before the launch, which must know how rows will travel.
    with _where(options) as nodes:
        screen = Screen(options, nodes=nodes)
        with launch(_config(options), run_config=asdict(task)) as job, _team(options) as team, screen:
            _start_roles(team, job.config, task)
            for report in team.watch():
                screen.show(report)
                reports.append(report)
    result = DemoResult(
        returns=tuple(report.mean_return for report in reports if report.role == "trainer"),
        directory=job.config.monitor_dir,
        urls=_urls(job, reports),
        seconds=time.monotonic() - began,
    )
    screen.close(result)
    return result


@contextmanager
def _where(options: DemoOptions) -> Iterator[int]:
    """How many nodes the roles run on; with Ray, connected to its cluster."""
    if not options.ray:
        yield 1
        return
    try:
        from rolecall.demo.cluster import connected
    except ImportError as error:
        what = f"--ray: Ray cannot be imported ({error})"
        raise ConfigError(f"{what}; install it with: pip install 'ray>=2.60'") from error
    with connected() as nodes:
        yield nodes


def _team(options: DemoOptions) -> Team | RayTeam:
    if not options.ray:
        return Team()
    from rolecall.demo.cluster import RayTeam

    return RayTeam()


def _config(options: DemoOptions) -> MonitorConfig:
    return MonitorConfig.load(
        {
            "project": options.project,
            "name": options.name,
            "monitor_type": options.monitor_type,
            "monitor_args": options.monitor_args,
            "shared_run": options.shared_run,
            "monitor_dir": options.monitor_dir,
            "transport": "ray" if options.ray else "files",
        }
    )


def _start_roles(team: Team | RayTeam, config: MonitorConfig, task: Task) -> None:
    """Start every role with its ends of the pipes."""
    explorers = []
    for rank in range(task.explorers):
        to_explorer, to_trainer = team.pipe()
        team.start(f"explorer/{rank}", explore, config, task, rank, to_trainer)
        explorers.append(to_explorer)
    to_evaluator, from_trainer = team.pipe()
    team.start("trainer", train, config, task, explorers, to_evaluator, team.inbox())
    team.start("evaluator", evaluate, config, task, from_trainer, team.inbox())


def _urls(job: Job, reports: Sequence[Report]) -> dict[str, str | None]:
    """Where to look, for each backend."""
    # Where each role has a run of its own, the launcher has none: the role that reported last knows its own.
    backends = dict.fromkeys(plan.backend for plan in job.plan.backends)
    return {**backends, **reports[-1].urls, **job.urls}
