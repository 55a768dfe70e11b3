"""The demo's training in one process, without monitor: prints the mean return of each round as JSON.

A script of its own, as the roles' numpy has one thread and this one must sum in the same order.
"""

from __future__ import annotations

import json
import sys
from functools import partial

from rolecall.demo.learner import Learner
from rolecall.demo.policy import choose
from rolecall.demo.roles import EXPLORER, TRAINER, Task
from rolecall.demo.rollout import roll_out
from rolecall.demo.scores import mean_return


def train(task: Task) -> list[float]:
    learner = Learner(task.hyper, task.rng(TRAINER))
    rngs = [task.rng(EXPLORER, rank) for rank in range(task.explorers)]
    returns = []
    for _ in range(task.steps):
        rollouts = [roll_out(learner.actor, task.episodes, rng, partial(choose, rng=rng)) for rng in rngs]
        learner.learn(rollouts)
        returns.append(mean_return(rollouts))
    return returns


if __name__ == "__main__":
    steps, seed = map(int, sys.argv[1:])
    print(json.dumps(train(Task(steps=steps, seed=seed))))
