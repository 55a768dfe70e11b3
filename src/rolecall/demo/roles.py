"""The roles of the job: copy this part. Each role is a function that runs in its own process.

In each round the trainer sends its policy to the explorers, learns from the episodes that they send back, and sends the
new policy to the evaluator. The data depends on the seed alone, never on which process was faster.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.connection import Connection

import numpy as np

from rolecall import MonitorConfig, open_monitor
from rolecall.demo.cartpole import Floats
from rolecall.demo.learner import Learner
from rolecall.demo.policy import choose, greedy
from rolecall.demo.ppo import Hyper
from rolecall.demo.rollout import Rollout, roll_out
from rolecall.demo.scores import episode_table, mean_return, reward_metrics, trial_metrics

__all__ = ["Report", "Task", "evaluate", "explore", "train"]

TRAINER, EVALUATOR, EXPLORER = 1, 2, 3
"""Each role has its own stream of random numbers: `(seed, role)`; explorers add their rank."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The config of the training, which all roles know.

    Attributes:
        steps: the number of rounds.
        seed: of all random numbers.
        explorers: the number of explorer processes.
        episodes: how many each explorer plays in a round.
        trials: how many episodes the evaluator plays in a round.
        hyper: the trainer's hyper-parameters.
    """

    steps: int
    seed: int
    explorers: int = 2
    episodes: int = 8
    trials: int = 10
    hyper: Hyper = field(default_factory=Hyper)

    def rng(self, role: int, rank: int = 0) -> np.random.Generator:
        """The random numbers of one role."""
        return np.random.default_rng([self.seed, role + rank])


@dataclass(frozen=True, slots=True)
class Report:
    """What a role reports to the launcher, which shows it.

    Attributes:
        role: the role that reports.
        step: on that role's axis.
        mean_return: of the episodes of this step.
        urls: where to look at this role's run, as far as it is known by now.
    """

    role: str
    step: int
    mean_return: float
    urls: Mapping[str, str | None]


def explore(config: MonitorConfig, task: Task, rank: int, trainer: Connection[Rollout, Floats]) -> None:
    """Play episodes with the newest policy and send them to the trainer."""
    rng = task.rng(EXPLORER, rank)
    with open_monitor(config, "explorer", rank, run_config={"episodes": task.episodes}) as monitor:
        for step in range(1, task.steps + 1):
            actor = trainer.recv()
            began = time.perf_counter()
            rollout = roll_out(actor, task.episodes, rng, partial(choose, rng=rng))
            seconds = time.perf_counter() - began
            trainer.send(rollout)
            monitor.log(reward_metrics(rollout, seconds), step)


def train(
    config: MonitorConfig,
    task: Task,
    explorers: Sequence[Connection[Floats, Rollout]],
    evaluator: Connection[Floats, None],
    launcher: Connection[Report, None],
) -> None:
    """Improve the policy, round by round."""
    learner = Learner(task.hyper, task.rng(TRAINER))
    with open_monitor(config, "trainer", run_config=asdict(task.hyper)) as monitor:
        for step in range(1, task.steps + 1):
            for explorer in explorers:
                explorer.send(learner.actor)
            rollouts = [explorer.recv() for explorer in explorers]
            metrics = learner.learn(rollouts)
            evaluator.send(learner.actor)
            monitor.log(metrics, step)
            launcher.send(Report("trainer", step, mean_return(rollouts), monitor.urls))


def evaluate(
    config: MonitorConfig, task: Task, trainer: Connection[None, Floats], launcher: Connection[Report, None]
) -> None:
    """Score each policy with its most likely actions, without chance."""
    rng = task.rng(EVALUATOR)
    with open_monitor(config, "evaluator", run_config={"episodes": task.trials}) as monitor:
        for step in range(1, task.steps + 1):
            rollout = roll_out(trainer.recv(), task.trials, rng, greedy)
            monitor.log(trial_metrics(rollout), step)
            if step in (1, task.steps):
                monitor.log_table("trial/episodes", episode_table(rollout), step)
            launcher.send(Report("evaluator", step, mean_return([rollout]), monitor.urls))
