"""A small training with `RolecallTracker` on the CPU; `accelerate launch` starts it in several processes.

`accelerate_job.py MONITOR_DIR [--fail]`, or `train` in a process that is there.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from rolecall.integrations.accelerate import RolecallTracker

STEPS = 6


def train(log_with: Any, *, fails: bool = False) -> Accelerator:
    """Fit a line in `STEPS` steps; the loss is the mean of all processes. Leaves the tracker open.

    Args:
        log_with: as `Accelerator` takes it: `RolecallTracker`, the name of another tracker, or nothing.
        fails: whether to raise at the fourth step.
    """
    torch.manual_seed(7)
    accelerator = Accelerator(cpu=True, log_with=log_with, project_dir=".")
    accelerator.init_trackers("lines", {"lr": 0.1, "model": "line"})
    x = torch.linspace(-1, 1, 48).reshape(-1, 1)
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, 2 * x + 1), batch_size=4)
    model = torch.nn.Linear(1, 1)
    model, optimizer, data = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1), data)
    for step, (inputs, targets) in zip(range(1, STEPS + 1), data, strict=False):
        if fails and step == 4:
            raise RuntimeError("the fourth step fails")
        loss = torch.nn.functional.mse_loss(model(inputs), targets)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        mean = accelerator.gather(loss.detach()).mean().item()
        accelerator.log({"loss": mean, "processes": accelerator.num_processes}, step=step)
    return accelerator


def log_more(accelerator: Accelerator) -> None:
    """An image and a table, by the methods that Accelerate's own trackers have for them."""
    tracker = accelerator.get_tracker("rolecall")
    tracker.log_images({"squares": [np.full((4, 4, 3), 7, np.uint8)]}, step=STEPS)
    tracker.log_table("guesses", ["x", "guess"], [[0, 1.0], [1, 3.0]], step=STEPS)


def main(monitor_dir: str, *flags: str) -> None:
    """Train with rolecall's files as the tracker."""
    accelerator = train(RolecallTracker("lines", monitor_dir=monitor_dir), fails="--fail" in flags)
    accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
