"""CartPole: keep a pole upright on a cart by pushing the cart left or right.

The physics, the start and the end of an episode are those of Gymnasium's `CartPole-v1`
(`gymnasium/envs/classic_control/cartpole.py`, 1.4), after Barto, Sutton and Anderson (1983). Many carts move at once,
because numpy's cost is per call and not per cart.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = [
    "ACTIONS",
    "OBSERVATIONS",
    "POLE_LIMIT",
    "STEP_LIMIT",
    "TRACK_LIMIT",
    "Actions",
    "Floats",
    "Mask",
    "fallen",
    "move",
    "start",
]

Floats = npt.NDArray[np.float64]
Actions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

OBSERVATIONS: Final = 4
"""Position of the cart, its speed, angle of the pole, its speed."""
ACTIONS: Final = 2
"""Push left, push right."""
STEP_LIMIT: Final = 500
TRACK_LIMIT: Final = 2.4
POLE_LIMIT: Final = 12 * 2 * np.pi / 360

GRAVITY: Final = 9.8
CART_MASS: Final = 1.0
POLE_MASS: Final = 0.1
TOTAL_MASS: Final = CART_MASS + POLE_MASS
HALF_POLE: Final = 0.5
FORCE: Final = 10.0
SECONDS_PER_STEP: Final = 0.02


def start(rng: np.random.Generator, episodes: int) -> Floats:
    """Initial states `(4, E)`: nearly upright and at rest."""
    return rng.uniform(-0.05, 0.05, size=(OBSERVATIONS, episodes))


def move(states: Floats, actions: Actions) -> Floats:
    """The states `(4, E)` one step (1/50 s) after each cart was pushed."""
    _, speed, angle, spin = states
    force = np.where(actions == 1, FORCE, -FORCE)
    sine, cosine = np.sin(angle), np.cos(angle)
    push = (force + POLE_MASS * HALF_POLE * spin**2 * sine) / TOTAL_MASS
    turn = (GRAVITY * sine - cosine * push) / (HALF_POLE * (4 / 3 - POLE_MASS * cosine**2 / TOTAL_MASS))
    pull = push - POLE_MASS * HALF_POLE * turn * cosine / TOTAL_MASS
    change: Floats = np.stack([speed, pull, spin, turn])
    return states + SECONDS_PER_STEP * change


def fallen(states: Floats) -> Mask:
    """Whether the cart has left its track or the pole leans too far."""
    fell: Mask = (np.abs(states[0]) > TRACK_LIMIT) | (np.abs(states[2]) > POLE_LIMIT)
    return fell
