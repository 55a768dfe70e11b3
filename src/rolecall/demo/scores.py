"""The metrics and tables that the roles log about their episodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rolecall.demo.cartpole import POLE_LIMIT, STEP_LIMIT, TRACK_LIMIT, Floats
from rolecall.demo.rollout import Rollout

__all__ = ["episode_table", "mean_return", "reward_metrics", "trial_metrics"]


def mean_return(rollouts: Sequence[Rollout]) -> float:
    """The mean return of all episodes."""
    return float(np.concatenate([rollout.returns for rollout in rollouts]).mean())


def reward_metrics(rollout: Rollout, seconds: float) -> dict[str, float]:
    """The metrics of an explorer's round, which took this many seconds."""
    returns = rollout.returns
    return {
        "reward/mean": float(returns.mean()),
        "reward/min": float(returns.min()),
        "reward/max": float(returns.max()),
        "rollout/steps": int(returns.sum()),
        "rollout/steps_per_second": float(returns.sum()) / seconds,
        "rollout/seconds": seconds,
    }


def trial_metrics(rollout: Rollout) -> dict[str, float]:
    """The metrics of the evaluator's round; solved is the share of episodes that reached the step limit."""
    returns = rollout.returns
    return {
        "return/mean": float(returns.mean()),
        "return/min": float(returns.min()),
        "return/max": float(returns.max()),
        "return/solved": float((returns == STEP_LIMIT).mean()),
    }


def episode_table(rollout: Rollout) -> list[dict[str, int | str]]:
    """A table of how each episode ended."""
    lengths = rollout.returns.astype(int)
    lasts = rollout.observations[lengths, np.arange(len(lengths))]
    return [
        {"episode": number, "return": int(length), "end": _ending(last)}
        for number, (length, last) in enumerate(zip(lengths, lasts, strict=True), start=1)
    ]


def _ending(last: Floats) -> str:
    if abs(last[0]) > TRACK_LIMIT:
        return "left the track"
    return "the pole fell" if abs(last[2]) > POLE_LIMIT else "step limit"
