"""PPO-clip (Schulman et al., 2017) with generalised advantage estimation (2016), with gradients written by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, Self

import numpy as np

from rolecall.demo.cartpole import Actions, Floats
from rolecall.demo.policy import ACTOR, CRITIC, features, log_softmax, split
from rolecall.demo.rollout import Rollout

__all__ = ["Batch", "Hyper", "Losses", "advantages", "loss_and_gradient"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyper:
    """The hyper-parameters of the trainer."""

    discount: float = 0.995
    trace: float = 0.98
    epochs: int = 3
    minibatches: int = 4
    learning_rate: float = 1e-3
    clip: float = 0.2
    entropy_weight: float = 0.01
    gradient_limit: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Steps of episodes, one in each row, in any order."""

    features: Floats
    actions: Actions
    log_probs: Floats
    advantages: Floats
    targets: Floats

    def __len__(self) -> int:
        return len(self.actions)

    @classmethod
    def of(cls, rollout: Rollout, critic: Floats, hyper: Hyper) -> Self:
        """The steps of a rollout, with the critic's values."""
        seen = features(rollout.observations)
        values = CRITIC.forward(critic, seen)[0][..., 0]
        gains = advantages(rollout, values, hyper)
        alive = rollout.alive
        return cls(
            features=seen[:-1][alive],
            actions=rollout.actions[alive],
            log_probs=rollout.log_probs[alive],
            advantages=gains[alive],
            targets=(gains + values[:-1])[alive],
        )

    @classmethod
    def joined(cls, batches: Sequence[Batch]) -> Self:
        """Join batches into one, with advantages scaled to mean 0 and standard deviation 1."""
        columns = {f.name: np.concatenate([getattr(b, f.name) for b in batches]) for f in fields(cls)}
        gains = columns["advantages"]
        columns["advantages"] = (gains - gains.mean()) / (gains.std() + 1e-8)
        return cls(**columns)

    def dealt(self, parts: int, rng: np.random.Generator) -> Iterator[Batch]:
        """All rows, shuffled and split into minibatches."""
        for rows in np.array_split(rng.permutation(len(self)), parts):
            yield Batch(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


class Losses(NamedTuple):
    """The losses of one gradient step, averaged over its minibatch."""

    policy: float
    value: float
    entropy: float
    kl: float
    clipped: float

    def total(self, hyper: Hyper) -> float:
        """The loss that the gradient belongs to."""
        return self.policy + self.value - hyper.entropy_weight * self.entropy


def advantages(rollout: Rollout, values: Floats, hyper: Hyper) -> Floats:
    """`(T, E)` advantages for the values `(T + 1, E)` of the observations.

    After an episode that the step limit ended, the critic's estimate counts; after a fall, nothing. Rewards are scaled
    so that values are in 0..1 for every discount.
    """
    goes_on = hyper.discount * ~rollout.fell
    surprise = (1 - hyper.discount) * rollout.rewards + goes_on * values[1:] - values[:-1]
    gains = np.zeros_like(values)
    for step in reversed(range(len(surprise))):
        gains[step] = surprise[step] + hyper.trace * goes_on[step] * gains[step + 1]
    return gains[:-1]


def loss_and_gradient(weights: Floats, batch: Batch, hyper: Hyper) -> tuple[Losses, Floats]:
    """The losses of a minibatch, and the gradient of their total with respect to all weights."""
    actor, critic = split(weights)
    policy, entropy, kl, clipped, actor_gradient = _actor_loss(actor, batch, hyper)
    value, critic_gradient = _critic_loss(critic, batch)
    return Losses(policy, value, entropy, kl, clipped), np.concatenate([actor_gradient, critic_gradient])


def _actor_loss(actor: Floats, batch: Batch, hyper: Hyper) -> tuple[float, float, float, float, Floats]:
    """The clipped surrogate loss, entropy, KL from the policy that acted, share of clipped rows, and gradient.

    With probabilities `p`: d log p[a] / d logits = onehot(a) - p, and d entropy / d logits = -p (log p + entropy).
    A row whose clipped term is the smaller one has gradient 0.
    """
    logits, hidden = ACTOR.forward(actor, batch.features)
    log_probs = log_softmax(logits)
    probs = np.exp(log_probs)
    chosen = np.eye(ACTOR.outputs)[batch.actions]

    log_ratio = (log_probs * chosen).sum(axis=1) - batch.log_probs
    ratio = np.exp(log_ratio)
    free = ratio * batch.advantages
    held = np.clip(ratio, 1 - hyper.clip, 1 + hyper.clip) * batch.advantages
    entropy = -(probs * log_probs).sum(axis=1)

    pull = np.where(free <= held, free, 0.0)[:, None] * (chosen - probs)
    spread = probs * (log_probs + entropy[:, None])
    slopes = (hyper.entropy_weight * spread - pull) / len(batch)
    return (
        -float(np.minimum(free, held).mean()),
        float(entropy.mean()),
        float((ratio - 1 - log_ratio).mean()),
        float((np.abs(ratio - 1) > hyper.clip).mean()),
        ACTOR.gradient(actor, batch.features, hidden, slopes),
    )


def _critic_loss(critic: Floats, batch: Batch) -> tuple[float, Floats]:
    values, hidden = CRITIC.forward(critic, batch.features)
    errors = values - batch.targets[:, None]
    gradient = CRITIC.gradient(critic, batch.features, hidden, errors / len(batch))
    return 0.5 * float((errors**2).mean()), gradient
