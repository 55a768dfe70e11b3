"""What a framework's training takes with its own loggers and with rolecall's, beside none.

    python benchmarks/integrations.py [--framework lightning ...] [--logger none wandb rolecall ...] [--steps 200]
                                      [--rounds 3] [--json FILE]

A tiny model is trained on CPU and logs each step. Each cell is two processes of its own, one with four times the steps
of the other: the difference says what a step takes, and what is left is importing, opening and ending the logger, with
what the framework does before and after training. Both are medians of the rounds, in which all loggers take turns.
wandb is offline, MLflow has a file of sqlite, and rolecall delivers to TensorBoard (`rolecall`), to MLflow or wandb in
the same state, or to its directory alone. What is not installed, and what a framework has no logger for, is left out,
and reported.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from itertools import product
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from report import run_worker, show_and_keep

Train = Callable[[str, int, Path], None]
"""Trains with a logger for so many steps, in a folder."""
OURS = {"rolecall": "tensorboard", "rolecall, local": "local", "rolecall, mlflow": "mlflow", "rolecall, wandb": "wandb"}
LOGGERS = ("none", "wandb", "mlflow", "tensorboard", *OURS)


def main() -> None:
    """Measure every cell, and print them."""
    args = _options()
    if args.worker:
        _worker(args.framework[0], args.logger, args.steps, args.rounds)
        return
    seconds: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for framework in args.framework:
        numbers = ["--steps", str(args.steps), "--rounds", str(args.rounds)]
        options = ["--framework", framework, "--logger", *args.logger, *numbers]
        found = run_worker(__file__, ["--worker", *options], framework) or {}
        for logger, times in found.items():
            if isinstance(times, str):
                print(f"{framework} with {logger}: left out: {times}", file=sys.stderr, flush=True)
            else:
                seconds[framework, logger] = times
    show_and_keep(list(_rows(seconds, args.steps)), args.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", nargs="+", choices=FRAMEWORKS, default=list(FRAMEWORKS))
    parser.add_argument("--logger", nargs="+", choices=LOGGERS, default=list(LOGGERS))
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _worker(framework: str, loggers: Sequence[str], steps: int, rounds: int) -> None:
    """Measure the cells of a framework, and print the seconds of each with few and with many steps, in each round."""
    os.environ.update(CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1", MLFLOW_DISABLE_TELEMETRY="true")
    # A process for each cell begins where this one is, which has imported what takes seconds, and computed nothing.
    for module in IMPORTED[framework]:
        import_module(module)
    found: dict[str, list[list[float]]] = {logger: [] for logger in loggers}
    left_out: dict[str, str] = {}
    for _, logger in product(range(rounds), loggers):
        try:
            times = [_in_a_fork(framework, logger, count) for count in (steps, steps * 4)]
            found[logger].append(times)
        except (RuntimeError, EOFError) as error:
            left_out[logger] = str(error) or "its process died"
    print(json.dumps({**found, **left_out}))


def _in_a_fork(framework: str, logger: str, steps: int) -> float:
    context = multiprocessing.get_context("fork")
    answer, writer = context.Pipe(duplex=False)
    process = context.Process(target=_train, args=(framework, logger, steps, writer))
    process.start()
    writer.close()
    seconds, error = answer.recv()
    process.join()
    if error:
        raise RuntimeError(error)
    return float(seconds)


def _train(framework: str, logger: str, steps: int, answer: Connection) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ.update(
            WANDB_MODE="offline", WANDB_SILENT="true", MLFLOW_TRACKING_URI=f"sqlite:///{folder}/mlflow.db"
        )
        try:
            FRAMEWORKS[framework]("none", 2, Path(folder))  # the first one fills caches
            began = time.perf_counter()
            FRAMEWORKS[framework](logger, steps, Path(folder))
            answer.send((time.perf_counter() - began, ""))
        except Exception as error:  # noqa: BLE001 - whatever a logger may raise
            answer.send((0.0, repr(error)))


def _rows(seconds: Mapping[tuple[str, str], list[tuple[float, float]]], steps: int) -> Iterator[Mapping[str, Any]]:
    found = {}
    for cell, times in seconds.items():
        step = statistics.median((long - short) / (3 * steps) for short, long in times)
        found[cell] = (step, statistics.median(short for short, _ in times) - step * steps)
    for (framework, logger), (step, rest) in found.items():
        bare = found.get((framework, "none"))
        yield {
            "framework": framework,
            "logger": logger,
            "a step, ms": round(step * 1000, 2),
            "more than none, ms": round((step - bare[0]) * 1000, 2) if bare else None,
            "start and end, s": round(rest, 2),
            "more than none, s": round(rest - bare[1], 2) if bare else None,
        }


def _args(logger: str, folder: Path) -> Mapping[str, Any]:
    """The config of rolecall for one of `OURS`."""
    return {
        "project": "benchmark",
        "monitor_type": OURS[logger],
        "monitor_args": {"uri": os.environ["MLFLOW_TRACKING_URI"]} if OURS[logger] == "mlflow" else {},
        "monitor_dir": folder / "monitor",
    }


# ------------------------------------------------------------------ frameworks


def train_transformers(logger: str, steps: int, folder: Path) -> None:
    """`Trainer` with a GPT-2 of two layers."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    config = GPT2Config(vocab_size=32, n_positions=8, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    samples = [{"input_ids": row, "labels": row} for row in torch.randint(0, 32, (64, 8))]
    own = logger if logger in {"wandb", "mlflow", "tensorboard"} else "none"
    arguments = TrainingArguments(
        str(folder / "out"),
        max_steps=steps,
        per_device_train_batch_size=4,
        logging_steps=1,
        report_to=own,
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
    )
    callbacks = []
    if logger in OURS:
        from rolecall.integrations.transformers import RolecallCallback

        callbacks = [RolecallCallback(**_args(logger, folder))]
    trainer = Trainer(GPT2LMHeadModel(config), arguments, train_dataset=samples, callbacks=callbacks)
    trainer.log = _quiet(trainer.log)
    trainer.train()


def train_accelerate(logger: str, steps: int, folder: Path) -> None:
    """A loop that logs to the trackers of an `Accelerator`."""
    import torch
    from accelerate import Accelerator

    chosen: Any = [] if logger == "none" else [logger]
    if logger in OURS:
        from rolecall.integrations.accelerate import RolecallTracker

        chosen = [RolecallTracker("benchmark", **{k: v for k, v in _args(logger, folder).items() if k != "project"})]
    accelerator = Accelerator(cpu=True, log_with=chosen, project_dir=str(folder))
    model = accelerator.prepare(torch.nn.Linear(8, 1))
    if chosen:
        accelerator.init_trackers("benchmark", {"lr": 0.1})
    for step in range(steps):
        loss = model(torch.ones(4, 8)).square().mean()
        accelerator.backward(loss)
        accelerator.log({"loss": loss.item(), "lr": 0.1}, step=step)
    accelerator.end_training()


def train_lightning(logger: str, steps: int, folder: Path) -> None:
    """`Trainer` with a linear layer."""
    import logging

    import lightning
    import torch
    from lightning.pytorch import loggers

    class Model(lightning.LightningModule):  # type: ignore[misc]  # Lightning is not where types are checked
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(8, 1)

        def training_step(self, batch: Any, number: int) -> Any:
            loss = self.layer(batch[0]).square().mean()
            self.log_dict({"loss": loss, "lr": 0.1})
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    made: Any = False
    if logger == "wandb":
        made = loggers.WandbLogger(project="benchmark", offline=True, save_dir=folder)
    elif logger == "mlflow":
        made = loggers.MLFlowLogger("benchmark", tracking_uri=os.environ["MLFLOW_TRACKING_URI"])
    elif logger == "tensorboard":
        made = loggers.TensorBoardLogger(folder)
    elif logger in OURS:
        from rolecall.integrations.lightning import RolecallLogger

        made = RolecallLogger(**_args(logger, folder))
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = lightning.Trainer(logger=made, max_steps=steps, log_every_n_steps=1, accelerator="cpu", **quiet)
    batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.ones(4096, 8)), batch_size=4)
    trainer.fit(Model(), batches)


def train_stable_baselines3(logger: str, steps: int, folder: Path) -> None:
    """PPO on CartPole, a row for each rollout of 64 timesteps. It has a logger of its own for TensorBoard alone."""
    from stable_baselines3 import PPO

    if logger in {"wandb", "mlflow"}:
        raise ImportError(f"Stable-Baselines3 has no logger for {logger}")
    where = str(folder) if logger == "tensorboard" else None
    model = PPO("MlpPolicy", "CartPole-v1", n_steps=64, n_epochs=1, tensorboard_log=where, device="cpu")
    if logger not in OURS:
        model.learn(64 * steps, log_interval=1)
        return
    import rolecall
    from rolecall.integrations.stable_baselines3 import RolecallCallback

    with rolecall.init(**_args(logger, folder)) as run:
        model.learn(64 * steps, log_interval=1, callback=RolecallCallback(run))


def train_torchrl(logger: str, steps: int, folder: Path) -> None:
    """A linear layer, and a logger that gets two numbers a step."""
    from torchrl.record.loggers import get_logger

    made: Any = None
    if logger in OURS:
        from rolecall.integrations.torchrl import RolecallLogger

        settings = dict(_args(logger, folder))
        made = RolecallLogger("run", settings.pop("project"), **settings)
    elif logger == "mlflow":
        from torchrl.record.loggers.mlflow import MLFlowLogger

        made = MLFlowLogger("benchmark", os.environ["MLFLOW_TRACKING_URI"])
    elif logger != "none":
        own = {"wandb_kwargs": {"project": "benchmark", "offline": True}} if logger == "wandb" else {}
        made = get_logger(logger, str(folder), "benchmark", **own)

    def log(metrics: Mapping[str, float], step: int) -> None:
        if made is not None:
            for key, value in metrics.items():
                made.log_scalar(key, value, step=step)

    _train_linear(steps, log)
    if logger in OURS:
        made.shutdown()


def train_verl(logger: str, steps: int, folder: Path) -> None:
    """A linear layer, and verl's `Tracking`, called as its trainers do."""
    if logger == "none":
        _train_linear(steps)
        return
    from verl.utils.tracking import Tracking

    os.environ.update(TENSORBOARD_DIR=str(folder / "events"), ROLECALL_DIR=str(folder))
    if logger in OURS:
        from rolecall.integrations.verl import Tracking
    tracking: Any = Tracking("benchmark", "run", [OURS.get(logger, logger)], {"trainer": {}})
    _train_linear(steps, lambda metrics, step: tracking.log(data=metrics, step=step))
    tracking.finish()


def train_trinity(logger: str, steps: int, folder: Path) -> None:
    """A linear layer, and a monitor of Trinity-RFT, opened and called as its trainer does, without Ray."""
    if logger == "none":
        _train_linear(steps)
        return
    from trinity.common.config import Config
    from trinity.utils.monitor import MONITOR

    config = Config()
    config.monitor.cache_dir = str(folder / "monitor")
    config.monitor.monitor_type, config.monitor.monitor_args = logger, {}
    if logger == "mlflow":
        config.monitor.monitor_args = {"uri": os.environ["MLFLOW_TRACKING_URI"]}
    if logger in OURS:
        config.monitor.monitor_type = "rolecall.integrations.trinity.RolecallMonitor"
        args = _args(logger, folder)
        config.monitor.monitor_args = {key: args[key] for key in ("monitor_type", "monitor_args")}
    made = MONITOR.get(config.monitor.monitor_type)
    monitor = made(project="benchmark", group="", name="run", role="trainer", config=config)
    _train_linear(steps, monitor.log)
    monitor.close()


def train_ray_tune(logger: str, steps: int, folder: Path) -> None:
    """A trial on a Ray of this machine, with a result for each step."""
    import ray
    from ray import tune

    os.environ.update(TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AUTH_MODE="disabled")
    if not ray.is_initialized():
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    callbacks: list[Any] = []
    if logger == "wandb":
        from ray.air.integrations.wandb import WandbLoggerCallback

        callbacks = [WandbLoggerCallback(project="benchmark")]
    elif logger == "mlflow":
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        callbacks = [MLflowLoggerCallback(os.environ["MLFLOW_TRACKING_URI"], experiment_name="benchmark")]
    elif logger == "tensorboard":
        from ray.tune.logger import TBXLoggerCallback

        callbacks = [TBXLoggerCallback()]
    elif logger in OURS:
        from rolecall.integrations.ray import RolecallLoggerCallback

        callbacks = [RolecallLoggerCallback({**_args(logger, folder), "name": "search"})]

    def trial(config: Mapping[str, Any]) -> None:
        for step in range(steps):
            tune.report({"loss": config["rate"] / (step + 1)})

    run = tune.RunConfig(storage_path=str(folder / "tune"), callbacks=callbacks, verbose=0)
    tune.Tuner(trial, param_space={"rate": 0.1}, run_config=run).fit()


def _train_linear(steps: int, log: Callable[[Mapping[str, float], int], Any] | None = None) -> None:
    """Train a linear layer, and log two numbers for each step."""
    import torch

    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        loss = model(torch.ones(4, 8)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if log is not None:
            log({"loss": loss.item(), "lr": 0.1}, step)


def _quiet(call: Callable[..., Any]) -> Callable[..., Any]:
    """Without what it prints."""
    from contextlib import redirect_stdout

    def quiet(*args: Any, **kwargs: Any) -> Any:
        with redirect_stdout(sys.stderr):
            return call(*args, **kwargs)

    return quiet


# What each of them imports in any case; `torch._dynamo` comes with the first optimizer.
IMPORTED: Mapping[str, Sequence[str]] = {
    "transformers": ("torch._dynamo", "transformers.trainer", "transformers.models.gpt2"),
    "accelerate": ("torch._dynamo", "accelerate"),
    "lightning": ("torch._dynamo", "lightning"),
    "stable_baselines3": ("torch._dynamo", "stable_baselines3"),
    "torchrl": ("torch._dynamo", "torchrl.record.loggers"),
    "ray_tune": ("ray.tune", "ray.train"),
    "verl": ("torch._dynamo", "verl"),
    "trinity": ("torch._dynamo", "trinity"),
}
FRAMEWORKS: Mapping[str, Train] = {
    "transformers": train_transformers,
    "accelerate": train_accelerate,
    "lightning": train_lightning,
    "stable_baselines3": train_stable_baselines3,
    "torchrl": train_torchrl,
    "ray_tune": train_ray_tune,
    "verl": train_verl,
    "trinity": train_trinity,
}


if __name__ == "__main__":
    main()
