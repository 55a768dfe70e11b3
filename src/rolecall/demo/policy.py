"""A small actor and critic in numpy, with gradients written by hand.

All parameters of a network are one flat vector, which is easy to send through a pipe, to update with Adam, and to
perturb in the test of the gradients.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from rolecall.demo.cartpole import ACTIONS, OBSERVATIONS, POLE_LIMIT, TRACK_LIMIT, Actions, Floats

__all__ = [
    "ACTOR",
    "CRITIC",
    "Layers",
    "Network",
    "choose",
    "features",
    "greedy",
    "initial_weights",
    "log_policy",
    "log_softmax",
    "split",
]

SCALE: Final[Floats] = np.array([1 / TRACK_LIMIT, 0.5, 1 / POLE_LIMIT, 0.5])
"""Scales observations to about -1..1."""


class Layers(NamedTuple):
    """A network's weights, as views into its flat vector."""

    inner: Floats
    inner_bias: Floats
    outer: Floats
    outer_bias: Floats


@dataclass(frozen=True, slots=True)
class Network:
    """The shape of a network with one hidden layer of tanh units."""

    inputs: int
    hidden: int
    outputs: int

    @property
    def size(self) -> int:
        """How many parameters it has."""
        return (self.inputs + 1) * self.hidden + (self.hidden + 1) * self.outputs

    def layers(self, weights: Floats) -> Layers:
        """Views into a flat vector of `size` weights."""
        inner = self.inputs * self.hidden
        outer = inner + self.hidden + self.hidden * self.outputs
        return Layers(
            weights[:inner].reshape(self.inputs, self.hidden),
            weights[inner : inner + self.hidden],
            weights[inner + self.hidden : outer].reshape(self.hidden, self.outputs),
            weights[outer:],
        )

    def initial(self, rng: np.random.Generator) -> Floats:
        """Random weights; those of the last layer are so small that the first outputs are near 0."""
        weights = np.zeros(self.size)
        layers = self.layers(weights)
        layers.inner[:] = rng.normal(0, self.inputs**-0.5, layers.inner.shape)
        layers.outer[:] = rng.normal(0, 0.01, layers.outer.shape)
        return weights

    def forward(self, weights: Floats, inputs: Floats) -> tuple[Floats, Floats]:
        """Outputs `(B, outputs)` and the hidden units `(B, hidden)`, which `gradient` needs."""
        layers = self.layers(weights)
        hidden: Floats = np.tanh(inputs @ layers.inner + layers.inner_bias)
        return hidden @ layers.outer + layers.outer_bias, hidden

    def gradient(self, weights: Floats, inputs: Floats, hidden: Floats, slopes: Floats) -> Floats:
        """The flat gradient of a loss, given its `slopes` `(B, outputs)` in the outputs."""
        inner = (slopes @ self.layers(weights).outer.T) * (1 - hidden**2)
        parts = (inputs.T @ inner, inner.sum(axis=0), hidden.T @ slopes, slopes.sum(axis=0))
        return np.concatenate([part.ravel() for part in parts])


ACTOR: Final = Network(OBSERVATIONS, 32, ACTIONS)
CRITIC: Final = Network(OBSERVATIONS, 32, 1)


def initial_weights(rng: np.random.Generator) -> Floats:
    """Random weights of the actor, followed by those of the critic."""
    return np.concatenate([ACTOR.initial(rng), CRITIC.initial(rng)])


def split(weights: Floats) -> tuple[Floats, Floats]:
    """The actor's and the critic's part of a vector of weights, or of its gradient."""
    return weights[: ACTOR.size], weights[ACTOR.size :]


def features(observations: Floats) -> Floats:
    """The networks' inputs for observations `(..., 4)`."""
    return observations * SCALE


def log_softmax(logits: Floats) -> Floats:
    """Log-probabilities along the last axis."""
    shifted: Floats = logits - logits.max(axis=-1, keepdims=True)
    normaliser: Floats = np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return shifted - normaliser


def log_policy(actor: Floats, observations: Floats) -> Floats:
    """Log-probability of each action, `(B, 2)`, for observations `(B, 4)`."""
    logits, _ = ACTOR.forward(actor, features(observations))
    return log_softmax(logits)


def choose(log_probs: Floats, rng: np.random.Generator) -> Actions:
    """Sample one action for each row: the largest sum of log-probability and Gumbel noise."""
    return np.asarray(np.argmax(log_probs + rng.gumbel(size=log_probs.shape), axis=-1))


def greedy(log_probs: Floats) -> Actions:
    """The most likely action of each row."""
    return np.asarray(np.argmax(log_probs, axis=-1))
