"""The gradients are the losses' own, and what is built of them learns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from rolecall.demo.cartpole import Floats
from rolecall.demo.learner import Adam
from rolecall.demo.policy import ACTOR, choose, initial_weights, log_policy, log_softmax
from rolecall.demo.ppo import Batch, Hyper, advantages, loss_and_gradient
from rolecall.demo.rollout import Rollout

HYPER = Hyper(entropy_weight=0.1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def random_batch(rng: np.random.Generator, rows: int = 64) -> Batch:
    """Rows whose probability ratios lie on both sides of the clip."""
    return Batch(
        features=rng.normal(size=(rows, 4)),
        actions=rng.integers(0, 2, rows),
        log_probs=np.log(rng.uniform(0.3, 0.8, rows)),
        advantages=rng.normal(size=rows),
        targets=rng.uniform(size=rows),
    )


def make_rollout(alive: Floats, fell: Floats) -> Rollout:
    steps, episodes = alive.shape
    return Rollout(
        observations=np.zeros((steps + 1, episodes, 4)),
        actions=np.zeros((steps, episodes), dtype=np.int64),
        log_probs=np.zeros((steps, episodes)),
        fell=fell.astype(np.bool_),
        alive=alive.astype(np.bool_),
    )


def test_gradient_equals_that_of_finite_differences(rng: np.random.Generator) -> None:
    weights = initial_weights(rng) + rng.normal(0, 0.3, initial_weights(rng).shape)
    batch = random_batch(rng)
    losses, gradient = loss_and_gradient(weights, batch, HYPER)
    assert 0.1 < losses.clipped < 0.9

    def total(index: int, shift: float) -> float:
        moved = weights.copy()
        moved[index] += shift
        return loss_and_gradient(moved, batch, HYPER)[0].total(HYPER)

    numeric = [(total(i, 1e-6) - total(i, -1e-6)) / 2e-6 for i in range(weights.size)]
    np.testing.assert_allclose(gradient, numeric, atol=1e-8)


def test_a_clipped_row_pulls_no_further(rng: np.random.Generator) -> None:
    rows = random_batch(rng)
    certain = Batch(
        features=rows.features,
        actions=rows.actions,
        log_probs=np.full(len(rows), np.log(0.01)),
        advantages=np.ones(len(rows)),
        targets=rows.targets,
    )
    losses, gradient = loss_and_gradient(initial_weights(rng), certain, Hyper(entropy_weight=0.0))
    assert losses.clipped == 1
    assert losses.policy == pytest.approx(-1.2)
    assert not gradient[: ACTOR.size].any()


def test_advantages_are_discounted_until_a_fall() -> None:
    """One episode falls at its second step, the other is cut short after its third."""
    alive = np.array([[1, 1], [1, 1], [0, 1]])
    fell = np.array([[0, 0], [1, 0], [1, 0]])
    values = np.array([[0.1, 0.2], [0.3, 0.4], [9.0, 0.5], [9.0, 0.6]])
    hyper = Hyper(discount=0.9, trace=0.5)
    gains = advantages(make_rollout(alive, fell), values, hyper)
    fallen = [0.1 + 0.27 - 0.1 + 0.45 * (0.1 - 0.3), 0.1 - 0.3]
    last = 0.1 + 0.54 - 0.5
    middle = 0.1 + 0.45 - 0.4 + 0.45 * last
    np.testing.assert_allclose(gains[:2, 0], fallen)
    np.testing.assert_allclose(gains[:, 1], [0.1 + 0.36 - 0.2 + 0.45 * middle, middle, last])


def test_actions_are_drawn_with_their_probabilities(rng: np.random.Generator) -> None:
    log_probs = np.tile(np.log([0.2, 0.8]), (20_000, 1))
    assert choose(log_probs, rng).mean() == pytest.approx(0.8, abs=0.01)


def test_log_probabilities_do_not_overflow() -> None:
    np.testing.assert_allclose(log_softmax(np.array([[1000.0, 0.0], [-1000.0, -1000.0]])).max(axis=1), [0, -np.log(2)])


def test_a_fresh_policy_prefers_nothing(rng: np.random.Generator) -> None:
    actor = ACTOR.initial(rng)
    np.testing.assert_allclose(np.exp(log_policy(actor, rng.uniform(-0.05, 0.05, (9, 4)))), 0.5, atol=0.05)


def test_adams_first_steps_match_the_paper() -> None:
    adam = Adam(2, learning_rate=0.1)
    np.testing.assert_allclose(adam.step(np.array([3.0, -0.5])), [-0.1, 0.1], rtol=1e-6)
    mean, square = (0.9 * 0.3 + 0.1) / 0.19, (0.999 * 0.009 + 0.001) / 0.001999
    np.testing.assert_allclose(adam.step(np.array([1.0, 0.0]))[0], -0.1 * mean / np.sqrt(square))


def test_twenty_rounds_double_return_and_more(train_inline: Callable[..., list[float]]) -> None:
    returns = train_inline(steps=20, seed=1)
    assert np.mean(returns[-5:]) > 4 * np.mean(returns[:5])
