"""The calls of wandb, MLflow and TensorBoard that slime, prime-rl and Trinity-RFT make, with the real packages.

`python framework_calls.py FRAMEWORK BACKEND TARGET [WRITER] [RUN_ID]`. TARGET is a directory, or MLflow's URI. Where
the calls were read is in `framework_shapes`.

With TRINITY_PACKAGE in the environment, Trinity-RFT's own classes make them. What these import and do not need to log
is not installed; `STAND_INS` are there in its place.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from framework_shapes import SHAPES, TABLE

STAND_INS: Final = ("ray", "torch", "torch.utils", "torch.utils.tensorboard")
"""Ray names a log file in an actor. torch's `SummaryWriter` is replaced by tensorboardX's, of the same interface."""
PROJECT, NAME = "gsm8k", "grpo-1"


def _go_on(*arguments: str) -> subprocess.Popen[bytes]:
    """Start the next process of the job."""
    # The service of the SDK would be inherited by children; Ray's actors and torchrun's ranks are none.
    environ = {key: value for key, value in os.environ.items() if key != "WANDB_SERVICE"}
    return subprocess.Popen([sys.executable, __file__, *arguments], env=environ)


def slime_wandb(directory: str, writer: str = "actor", run_id: str = "") -> None:
    """`init_wandb_primary`, `init_wandb_secondary`, `_init_wandb_common` and `logging_utils.log`."""
    import wandb

    if run_id:
        settings = wandb.Settings(mode="shared", x_primary=False, x_update_finish_state=False)
        wandb.init(id=run_id, project=PROJECT, resume="allow", reinit=True, settings=settings, dir=directory)
    else:
        settings = wandb.Settings(mode="shared", x_primary=True)
        wandb.init(project=PROJECT, group=NAME, name=NAME, settings=settings, dir=directory)
    for axis, families in {"train": ["train"], "rollout": ["rollout", "perf"], "eval": ["eval"]}.items():
        wandb.define_metric(f"{axis}/step")
        for family in families:
            wandb.define_metric(f"{family}/*", step_metric=f"{axis}/step")
    second = None if run_id else _go_on("slime", "wandb", directory, "perf", str(wandb.run and wandb.run.id))
    for call in SHAPES["slime"].of(writer):
        wandb.log({**call.metrics, f"{call.axis}/step": call.step})
    _finish(second)


def prime_wandb(directory: str, writer: str = "orchestrator", run_id: str = "") -> None:
    """`WandbMonitor.init` and `log_metrics` in shared mode, and `PeriodicLogger`."""
    import wandb

    settings = wandb.Settings(mode="shared", x_label=writer, x_primary=not run_id, x_update_finish_state=not run_id)
    wandb.init(id=run_id or "prl-1", resume="allow", project=PROJECT, name=NAME, dir=directory, settings=settings)
    wandb.define_metric("*", step_metric="step")
    second = None if run_id else _go_on("prime-rl", "wandb", directory, "trainer", "prl-1")
    calls = SHAPES["prime-rl"].of(writer)
    for key in sorted({key for call in calls if call.step is None for key in call.metrics}):
        wandb.define_metric(key, step_metric="_timestamp")
    for call in calls:
        wandb.log({**call.metrics, **({"_timestamp": time.time()} if call.step is None else {"step": call.step})})
    _finish(second)


def _finish(second: subprocess.Popen[bytes] | None) -> None:
    """End the run, the primary after all others."""
    import wandb

    if second is not None and second.wait():
        sys.exit("the second process failed")
    wandb.finish()


class TrinityWandb:
    """`WandbMonitor`."""

    def __init__(self, directory: str, role: str) -> None:
        import wandb

        self._sdk = wandb
        self._run = wandb.init(
            project=PROJECT, group=NAME, name=f"{NAME}_{role}", tags=[role], save_code=False, dir=directory
        )

    def log(self, data: dict[str, Any], step: int) -> None:
        """Metrics."""
        self._run.log(data, step=step, commit=False)

    def log_table(self, name: str, frame: Any, step: int) -> None:
        """A frame."""
        self.log({name: self._sdk.Table(dataframe=frame)}, step)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class TrinityMlflow:
    """`MlflowMonitor`."""

    def __init__(self, uri: str, role: str) -> None:
        import mlflow

        self._sdk = mlflow
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(PROJECT)
        mlflow.start_run(run_name=f"{NAME}_{role}", tags={"group": NAME, "role": role})

    def log(self, data: dict[str, Any], step: int) -> None:
        """Metrics."""
        self._sdk.log_metrics({key.replace("@", "_at_"): value for key, value in data.items()}, step=step)

    def log_table(self, name: str, frame: Any, step: int) -> None:
        """A frame, behind those of earlier steps."""
        frame["step"] = step
        self._sdk.log_table(data=frame, artifact_file=f"{name}.json")

    def close(self) -> None:
        """End the run."""
        self._sdk.end_run()


class TrinityTensorboard:
    """`TensorboardMonitor`."""

    def __init__(self, directory: str, role: str) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(Path(directory, "tensorboard", role)))

    def log(self, data: dict[str, Any], step: int) -> None:
        """Metrics."""
        for key, value in data.items():
            self._writer.add_scalar(key, value, step)

    def log_table(self, name: str, frame: Any, step: int) -> None:
        """Tables are left out."""

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def trinity_package(backend: str, target: str, role: str) -> Any:
    """The package's own class."""
    from tensorboardX import SummaryWriter

    sys.modules.update({name: ModuleType(name) for name in STAND_INS})
    sys.modules["torch.utils.tensorboard"].SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    from trinity.common.config import Config
    from trinity.utils import monitor

    for name in STAND_INS:  # MLflow and wandb ask a `torch` that was imported whether a value is its tensor
        del sys.modules[name]
    config = Config()
    config.monitor.cache_dir = target
    config.monitor.monitor_args = {"uri": target} if backend == "mlflow" else {}
    return monitor.MONITOR.get(backend)(PROJECT, NAME, NAME, role, config)


OWN: Final[dict[str, Callable[[str, str], Any]]] = {
    "wandb": TrinityWandb,
    "mlflow": TrinityMlflow,
    "tensorboard": TrinityTensorboard,
}


def trinity(backend: str, target: str, role: str = "") -> None:
    """Each role in a process of its own, one after the other."""
    if not role:
        started = [_go_on("trinity", backend, target, writer).wait() for writer in SHAPES["trinity"].writers]
        sys.exit(max(started))
    is_package = "TRINITY_PACKAGE" in os.environ
    monitor = trinity_package(backend, target, role) if is_package else OWN[backend](target, role)
    for call in SHAPES["trinity"].of(role):
        if call.table:
            import pandas as pd

            monitor.log_table(TABLE, pd.DataFrame(call.table), call.step)
        else:
            monitor.log(dict(call.metrics), call.step)
    monitor.close()


def plain_mlflow(framework: str, uri: str) -> None:
    """slime and prime-rl have no MLflow: the call that a port of them would make, into one run."""
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment(PROJECT)
    with mlflow.start_run(run_name=NAME):
        for call in SHAPES[framework].calls:
            mlflow.log_metrics(dict(call.metrics), step=call.step)


def plain_tensorboard(framework: str, directory: str) -> None:
    """slime's `_TensorboardAdapter`, in each process; prime-rl has no TensorBoard, a port would make the same calls."""
    from tensorboardX import SummaryWriter

    for writer in SHAPES[framework].writers:
        # tensorboardX names files by second and host, torch by process, too
        file = SummaryWriter(directory, filename_suffix=f".{writer}")
        for call in SHAPES[framework].of(writer):
            for key, value in call.metrics.items():
                file.add_scalar(key, value, call.step)
        file.close()


def main(framework: str, backend: str, *rest: str) -> None:
    """Log all that the framework's processes log, or what one of them does."""
    match framework, backend:
        case "slime", "wandb":
            slime_wandb(*rest)
        case "prime-rl", "wandb":
            prime_wandb(*rest)
        case "trinity", _:
            trinity(backend, *rest)
        case _, "mlflow":
            plain_mlflow(framework, *rest)
        case _:
            plain_tensorboard(framework, *rest)


if __name__ == "__main__":
    main(*sys.argv[1:])
