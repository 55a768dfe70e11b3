"""The trainer's side of the training: the weights and the optimiser."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rolecall.demo.cartpole import Floats
from rolecall.demo.policy import initial_weights, split
from rolecall.demo.ppo import Batch, Hyper, loss_and_gradient
from rolecall.demo.rollout import Rollout

__all__ = ["Adam", "Learner"]


class Adam:
    """Adam (Kingma and Ba, 2015) with the paper's decay rates."""

    def __init__(self, size: int, learning_rate: float) -> None:
        self._learning_rate = learning_rate
        self._mean = np.zeros(size)
        self._square = np.zeros(size)
        self._steps = 0

    def step(self, gradient: Floats) -> Floats:
        """What to add to the weights."""
        self._steps += 1
        self._mean += 0.1 * (gradient - self._mean)
        self._square += 0.001 * (gradient**2 - self._square)
        mean = self._mean / (1 - 0.9**self._steps)
        square = self._square / (1 - 0.999**self._steps)
        return -self._learning_rate * mean / (np.sqrt(square) + 1e-8)


class Learner:
    """Improves a policy with one round of rollouts at a time."""

    def __init__(self, hyper: Hyper, rng: np.random.Generator) -> None:
        self._hyper = hyper
        self._rng = rng
        self._weights = initial_weights(rng)
        self._adam = Adam(self._weights.size, hyper.learning_rate)

    @property
    def actor(self) -> Floats:
        """The policy's weights, which explorers and the evaluator need."""
        return split(self._weights)[0]

    def learn(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Run some epochs of gradient steps over a round's episodes. Returns the metrics, averaged over the steps."""
        batch = self._judge(rollouts)
        seen = [
            self._descend(part)
            for _ in range(self._hyper.epochs)
            for part in batch.dealt(self._hyper.minibatches, self._rng)
        ]
        policy, value, entropy, kl, clipped, norm = np.mean(seen, axis=0).tolist()
        return {
            "loss/policy": policy,
            "loss/value": value,
            "policy/entropy": entropy,
            "policy/kl": kl,
            "policy/clip_fraction": clipped,
            "gradient/norm": norm,
            "batch/steps": len(batch),
        }

    def _judge(self, rollouts: Sequence[Rollout]) -> Batch:
        _, critic = split(self._weights)
        return Batch.joined([Batch.of(rollout, critic, self._hyper) for rollout in rollouts])

    def _descend(self, batch: Batch) -> tuple[float, ...]:
        losses, gradient = loss_and_gradient(self._weights, batch, self._hyper)
        norm = float(np.linalg.norm(gradient))
        self._weights = self._weights + self._adam.step(gradient * min(1.0, self._hyper.gradient_limit / norm))
        return (*losses, norm)
