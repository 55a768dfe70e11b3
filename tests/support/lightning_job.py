"""A small classifier that Lightning trains, for its tests, for benchmarks, and as a script of several processes."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, TensorDataset

STEPS = 8
"""Of an epoch."""
# Of a model this small, more threads only wait for each other.
torch.set_num_threads(1)


class TrainingError(Exception):
    """What a training that is to fail raises."""


def points(batches: int = STEPS) -> DataLoader[Any]:
    """Points of a plane in two classes that a line parts."""
    torch.manual_seed(0)
    inputs = torch.randn(8 * batches, 2)
    return DataLoader(TensorDataset(inputs, (inputs.sum(dim=1) > 0).long()), batch_size=8)


def _module(package: str) -> Any:
    """The class of the model, made of this package of Lightning."""
    base: Any = importlib.import_module(package).LightningModule

    class Classifier(base):  # type: ignore[misc]
        def __init__(self, lr: float, fails_at: int | None) -> None:
            super().__init__()
            self.save_hyperparameters("lr")
            self.fails_at = fails_at
            self.layer = torch.nn.Linear(2, 2)

        def training_step(self, batch: Any, _: int) -> Any:
            if self.global_step == self.fails_at:
                raise TrainingError
            loss = torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
            self.log("train/loss", loss)
            return loss

        def validation_step(self, batch: Any, _: int) -> None:
            self._evaluate("val", batch)

        def test_step(self, batch: Any, batch_idx: int) -> None:
            self._evaluate("test", batch)

        def _evaluate(self, stage: str, batch: Any) -> None:
            logits = self.layer(batch[0])
            self.log(f"{stage}/loss", torch.nn.functional.cross_entropy(logits, batch[1]), sync_dist=True)
            self.log(f"{stage}/accuracy", (logits.argmax(dim=1) == batch[1]).float().mean(), sync_dist=True)

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.hparams["lr"])

    Classifier.__qualname__ = "Classifier"  # where `ddp_spawn` pickles it, it is found below
    return Classifier


Classifier: Any = _module("lightning.pytorch")


def classifier(package: str = "lightning.pytorch", fails_at: int | None = None, lr: float = 0.1) -> Any:
    """A model of this package of Lightning, the same each time; with `fails_at`, training raises at that step."""
    torch.manual_seed(0)
    kind = Classifier if package == "lightning.pytorch" else _module(package)
    return kind(lr, fails_at)


def trainer(logger: Any, folder: Path, package: str = "lightning.pytorch", **settings: Any) -> Any:
    """A trainer on CPUs that logs each step; two epochs, unless `settings` say otherwise."""
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}
    defaults = {"accelerator": "cpu", "devices": 1, "max_epochs": 2, "enable_checkpointing": False, **quiet}
    trainer: Any = importlib.import_module(package).Trainer
    return trainer(logger=logger, default_root_dir=folder, **{**defaults, **settings})


def main() -> None:
    """Train with two processes, as a user's script does."""
    from rolecall.integrations.lightning import RolecallLogger

    parser = argparse.ArgumentParser()
    parser.add_argument("strategy")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fails-at", type=int)
    arguments = parser.parse_args()
    logger = RolecallLogger("points", "two", monitor_dir=arguments.folder / "job")
    job = trainer(logger, arguments.folder, devices=2, strategy=arguments.strategy)
    model = classifier(fails_at=arguments.fails_at)
    job.fit(model, points(2 * STEPS), points())
    job.test(model, points(), verbose=False)


if __name__ == "__main__":
    main()
