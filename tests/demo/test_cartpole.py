"""The physics are Gymnasium's, and an episode is counted as people count it."""

from __future__ import annotations

import numpy as np
import pytest

from rolecall.demo.cartpole import STEP_LIMIT, Actions, Floats, fallen, move, start
from rolecall.demo.policy import ACTOR, greedy
from rolecall.demo.rollout import roll_out
from rolecall.demo.scores import episode_table, trial_metrics

# What `CartPole-v1` of Gymnasium 1.4.0 made of these states in one step.
GYMNASIUM = (
    ((0.01, -0.02, 0.03, 0.04), 1, (0.0096, 0.17467919574755525, 0.0308, -0.2430687179600081), False),
    ((-1.2, 0.9, -0.15, -1.1), 0, (-1.182, 0.7071358809308708, -0.172, -0.857887116586486), False),
    ((2.39, 1.5, 0.2, -0.7), 1, (2.42, 1.6918703863384896, 0.186, -0.9236598461380127), True),
)


def column(*state: float) -> Floats:
    return np.array(state)[:, None]


def alternately(log_probs: Floats) -> Actions:
    return np.arange(len(log_probs)) % 2


def test_all_carts_move_as_gymnasiums_does() -> None:
    states = np.array([state for state, *_ in GYMNASIUM]).T
    after = move(states, np.array([action for _, action, *_ in GYMNASIUM]))
    np.testing.assert_allclose(after.T, np.array([state for *_, state, _ in GYMNASIUM]), rtol=1e-14)
    assert fallen(after).tolist() == [ended for *_, ended in GYMNASIUM]


@pytest.mark.parametrize(
    ("state", "ended"),
    [((2.39, 0, 0, 0), False), ((-2.41, 0, 0, 0), True), ((0, 9, 0.209, 9), False), ((0, 0, -0.2095, 0), True)],
)
def test_episode_ends_off_track_or_fallen(state: tuple[float, ...], ended: bool) -> None:
    assert fallen(column(*state)).tolist() == [ended]


def test_episodes_start_upright_almost_at_rest() -> None:
    states = start(np.random.default_rng(0), 1000)
    assert states.shape == (4, 1000)
    assert 0.04 < np.abs(states).max() <= 0.05


def test_each_episode_counts_to_its_end() -> None:
    rollout = roll_out(np.zeros(ACTOR.size), 6, np.random.default_rng(0), alternately)
    length, episodes = rollout.actions.shape
    assert rollout.observations.shape == (length + 1, episodes, 4)
    assert rollout.returns.max() == length < STEP_LIMIT
    for episode, steps in enumerate(rollout.returns.astype(int)):
        assert rollout.alive[:steps, episode].all()
        assert not rollout.alive[steps:, episode].any()
        assert rollout.fell[:steps, episode].tolist() == [False] * (steps - 1) + [True]
    np.testing.assert_allclose(rollout.log_probs, np.log(0.5))


def test_episode_stops_at_step_limit() -> None:
    """One hidden unit that leans as pole and cart do, and pushes that way, balances for ever."""
    actor = np.zeros(ACTOR.size)
    layers = ACTOR.layers(actor)
    layers.inner[:, 0] = (0.1, 0.5, 1.0, 1.0)
    layers.outer[0] = (-1, 1)
    rollout = roll_out(actor, 5, np.random.default_rng(0), greedy)
    assert rollout.returns.tolist() == [STEP_LIMIT] * 5
    assert not rollout.fell.any()
    assert trial_metrics(rollout)["return/solved"] == 1
    assert {row["end"] for row in episode_table(rollout)} == {"step limit"}


def test_table_says_how_each_episode_ended() -> None:
    rollout = roll_out(np.zeros(ACTOR.size), 2, np.random.default_rng(0), alternately)
    ends = rollout.observations[rollout.returns.astype(int), [0, 1]]
    ends[0] = (2.5, 0, 0, 0)
    rollout.observations[rollout.returns.astype(int), [0, 1]] = ends
    assert episode_table(rollout) == [
        {"episode": 1, "return": int(rollout.returns[0]), "end": "left the track"},
        {"episode": 2, "return": int(rollout.returns[1]), "end": "the pole fell"},
    ]
