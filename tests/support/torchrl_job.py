"""A tiny PPO on CartPole with TorchRL, in one process, or as a collector and a trainer that are roles of one job."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path
from typing import Any

import torch
from tensordict.nn import TensorDictModule
from torchrl.collectors import Collector
from torchrl.envs import GymEnv
from torchrl.modules import OneHotCategorical, ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from rolecall import MonitorConfig, launch, open_monitor
from rolecall.integrations.torchrl import RolecallLogger

BATCHES, FRAMES = 3, 64


def policy() -> Any:
    """A policy of one layer."""
    module = TensorDictModule(torch.nn.Linear(4, 2), in_keys=["observation"], out_keys=["logits"])
    return ProbabilisticActor(module, in_keys=["logits"], distribution_class=OneHotCategorical, return_log_prob=True)


def collect(actor: Any) -> Any:
    """Batches of CartPole."""
    return Collector(GymEnv("CartPole-v1"), actor, frames_per_batch=FRAMES, total_frames=FRAMES * BATCHES)


def train(logger: Any) -> list[dict[str, float]]:
    """PPO; returns what was logged at each step, as a dictionary of tensors was."""
    torch.manual_seed(0)
    actor, critic = policy(), ValueOperator(torch.nn.Linear(4, 1), in_keys=["observation"])
    advantage, loss = GAE(gamma=0.99, lmbda=0.95, value_network=critic), ClipPPOLoss(actor, critic)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.01)
    logged = []
    for step, batch in enumerate(collect(actor)):
        advantage(batch)
        losses = loss(batch.reshape(-1))
        optimizer.zero_grad()
        sum(losses[key] for key in ("loss_objective", "loss_critic", "loss_entropy")).backward()
        optimizer.step()
        found = losses.select("loss_objective", "loss_critic").detach()
        logger.log_metrics(found, step=step)
        logger.log_scalar("reward", batch["next", "reward"].sum(), step=step)
        logged.append({key: float(value) for key, value in found.items()})
    return logged


def collector_role(config: MonitorConfig) -> None:
    """A process that collects, and logs what it sees."""
    with open_monitor(config, "collector", 0) as monitor:
        logger = RolecallLogger("collector", monitor=monitor)
        for step, batch in enumerate(collect(policy())):
            logger.log_scalar("frames", batch.numel() * (step + 1), step=step)
        logger.shutdown()


def trainer_role(config: MonitorConfig) -> None:
    """A process that trains."""
    with open_monitor(config, "trainer") as monitor:
        train(RolecallLogger("trainer", monitor=monitor))


def two_roles(settings: dict[str, Any]) -> None:
    """One run of two processes."""
    spawn = multiprocessing.get_context("spawn")
    with launch({**settings, "shared_run": "relay"}) as job:
        roles = [spawn.Process(target=target, args=(job.config,)) for target in (collector_role, trainer_role)]
        for role in roles:
            role.start()
        for role in roles:
            role.join()
    if any(role.exitcode for role in roles):
        raise SystemExit("a role has failed")


if __name__ == "__main__":
    kind, folder = sys.argv[1], Path(sys.argv[2])
    logger = RolecallLogger("failing", "cartpole", monitor_dir=folder / "job")
    train(logger)
    raise RuntimeError(kind)
