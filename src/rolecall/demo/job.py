"""The launcher of the job: checks the config, starts the roles and watches them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict

from rolecall import Job, MonitorConfig, launch
from rolecall.demo.options import DemoOptions, DemoResult
from rolecall.demo.processes import Team
from rolecall.demo.roles import Report, Task, evaluate, explore, train
from rolecall.demo.screen import Screen

__all__ = ["run_job"]


def run_job(options: DemoOptions) -> DemoResult:
    """Run the job to its end; errors as in `run_demo`."""
    began = time.monotonic()
    task = Task(steps=options.steps, seed=options.seed)
    screen = Screen(options)
    reports: list[Report] = []
    with launch(_config(options), run_config=asdict(task)) as job, Team() as team, screen:
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


def _config(options: DemoOptions) -> MonitorConfig:
    return MonitorConfig.load(
        {
            "project": options.project,
            "name": options.name,
            "monitor_type": options.monitor_type,
            "monitor_args": options.monitor_args,
            "shared_run": options.shared_run,
            "monitor_dir": options.monitor_dir,
        }
    )


def _start_roles(team: Team, config: MonitorConfig, task: Task) -> None:
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
