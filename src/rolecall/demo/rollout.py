"""Whole episodes played with a policy: what explorers send to the trainer, and what the evaluator scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np

from rolecall.demo.cartpole import STEP_LIMIT, Actions, Floats, Mask, fallen, move, start
from rolecall.demo.policy import log_policy

__all__ = ["Rollout", "roll_out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A fixed number of episodes side by side: `T` steps (those of the longest) by `E` episodes.

    An episode that ended keeps its column; `alive` says which of its steps count.

    Attributes:
        observations: `(T + 1, E, 4)`: before each step, and after the last.
        actions: `(T, E)`.
        log_probs: `(T, E)`, of the chosen actions, under the policy that chose them.
        fell: `(T, E)`, whether the pole had fallen, or the cart had left its track, after this step.
        alive: `(T, E)`, whether the episode was still running at this step.
    """

    observations: Floats
    actions: Actions
    log_probs: Floats
    fell: Mask
    alive: Mask

    @classmethod
    def of(cls, steps: list[tuple[Floats, Actions, Floats, Mask, Mask]], last: Floats) -> Self:
        """Stack what each step recorded, and the observations after the last one."""
        observations, actions, log_probs, fell, alive = zip(*steps, strict=True)
        return cls(
            observations=np.stack([*observations, last]),
            actions=np.stack(actions),
            log_probs=np.stack(log_probs),
            fell=np.stack(fell),
            alive=np.stack(alive),
        )

    @property
    def rewards(self) -> Floats:
        """`(T, E)`: 1 for each step of an episode, the last one included."""
        return self.alive.astype(np.float64)

    @property
    def returns(self) -> Floats:
        """`(E,)`: the sum of each episode's rewards, the usual score of CartPole."""
        returns: Floats = self.rewards.sum(axis=0)
        return returns


def roll_out(actor: Floats, episodes: int, rng: np.random.Generator, pick: Callable[[Floats], Actions]) -> Rollout:
    """Play episodes to their end with a policy; `pick` turns its log-probabilities into actions."""
    states = start(rng, episodes)
    alive = np.ones(episodes, dtype=np.bool_)
    steps: list[tuple[Floats, Actions, Floats, Mask, Mask]] = []
    while alive.any() and len(steps) < STEP_LIMIT:
        log_probs = log_policy(actor, states.T)
        actions = pick(log_probs)
        after = move(states, actions)
        fell = fallen(after)
        steps.append((states.T, actions, log_probs[np.arange(episodes), actions], fell, alive))
        states, alive = after, alive & ~fell
    return Rollout.of(steps, last=states.T)
