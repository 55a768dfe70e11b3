"""verl's `Tracking` and its two loggers of tables, by way of rolecall. Import them from here, not from verl."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import rolecall
from rolecall import Monitor, Table

try:
    from verl.utils.tracking import Tracking as _Tracking
except ImportError as error:
    raise ImportError(f"rolecall.integrations.verl needs verl ({error}): pip install verl", name=error.name) from error

__all__ = ["DapoFilteredRewardTableLogger", "Tracking", "ValidationGenerationsLogger"]

OWN: Final = frozenset({"console", "file", "clearml", "vemlp_wandb", "rl_insight"})
"""The loggers of verl 0.9.1 that stay verl's own: rolecall has no backend for them, or they print."""
# verl's old name of wandb
_RENAMED: Final = {"tracking": "wandb"}
# verl 0.9.1, `Tracking.__init__`: where MLflow's runs are if MLFLOW_TRACKING_URI does not say so
_MLFLOW: Final = "sqlite:////tmp/mlruns.db"
_GENERATIONS: Final = "val/generations"
_REWARD_COUNTS: Final = "training/filter_groups/filtered_reward_counts"

logger = logging.getLogger(__name__)


class Tracking(_Tracking):  # type: ignore[misc]  # verl is not installed where types are checked
    """verl's `Tracking`, whose trackers are rolecall's backends.

    `wandb`, `mlflow`, `swanlab`, `tensorboard`, `trackio` and all other backends of rolecall get their rows through
    `rolecall.init`: `log` waits for none of them. The loggers in `OWN` are verl's, as before. One process of verl's
    tracks, so the job has one role and bare keys.

    Where a tracker is, verl's own variables of the environment say: `MLFLOW_TRACKING_URI`, `TENSORBOARD_DIR`,
    `WANDB_ENTITY`, `SWANLAB_MODE` and those of the SDKs. The journal is in `{project}/{name}` below `ROLECALL_DIR`, or
    else below `rolecall` in the working directory.

    A training that verl resumes (`trainer.resume_mode`, by default `auto`) continues its run; with `disable`, there is
    a new one. verl finishes with an exit code of 1 if the training raised (0.9.1, `main_ppo.py`), and the run is
    `failed`. If nobody calls `finish`, the run ends with the program.

    Args:
        project_name: where backends file the run.
        experiment_name: the run's display name.
        default_backend: verl's `trainer.logger`: the name of a logger, or several.
        config: verl's whole config, which becomes the run's.

    Raises:
        ConfigError: a name is none of a backend, or a setting is wrong.
        BackendError, DirectoryError, WriterConflict, BackendRefused: as `rolecall.init` does.
    """

    def __init__(
        self,
        project_name: str,
        experiment_name: str,
        default_backend: str | Sequence[str] = "console",
        config: Mapping[str, Any] | None = None,
    ) -> None:
        given = [default_backend] if isinstance(default_backend, str) else list(default_backend)
        # before what can raise, as verl's `__del__` finishes what is there
        self._monitor: Monitor | None = None
        self._backends = [_RENAMED.get(name, name) for name in given if name not in OWN]
        super().__init__(project_name, experiment_name, [name for name in given if name in OWN], config)
        if self._backends:
            trainer = (config or {}).get("trainer") or {}
            args = {name: _arguments(name, project_name, trainer) for name in self._backends}
            self._monitor = rolecall.init(
                project_name,
                config,
                experiment_name,
                monitor_type=self._backends,
                monitor_args=args,
                resume="never" if trainer.get("resume_mode") == "disable" else "allow",
            )
            _CURRENT.tracking = self

    def log(self, data: Mapping[str, Any], step: int, backend: str | Sequence[str] | None = None) -> None:
        """Log metrics at a step, to all loggers or to those that `backend` names."""
        super().log(data, step, backend)
        self.log_row(data, step, [backend] if isinstance(backend, str) else backend)

    def log_row(self, data: Mapping[str, Any], step: int, to: Sequence[str] | None = None) -> None:
        """Log to rolecall's backends alone, to all of them or to those named."""
        if self._monitor is None:
            return
        named = self._backends if to is None else [_RENAMED.get(name, name) for name in to]
        backends = [name for name in self._backends if name in named]
        if backends:
            self._monitor.log(data, step, backends=None if backends == self._backends else backends)

    def finish(self, exit_code: int = 0) -> None:
        """End the run, and verl's own loggers; a second call does nothing.

        Args:
            exit_code: 0 for a run that is `finished`, anything else for one that is `failed`.
        """
        if hasattr(_Tracking, "finish"):  # not yet in verl 0.7.1
            super().finish(exit_code)
        if self._monitor is not None:
            self._monitor.finish("failed" if exit_code else "finished")

    def __del__(self) -> None:
        # verl's calls `finish`, for success. rolecall finishes the run when the program ends, and then knows how.
        own: Any = super()  # not `_Tracking`: a module's names are gone when the interpreter ends
        if hasattr(own, "finish"):
            own.finish()
        else:
            own.__del__()


@dataclass
class ValidationGenerationsLogger:
    """verl's logger of a few samples of each validation, as a table `val/generations`.

    Each call logs the samples of its step: a row for each, with the columns `step`, `input`, `output` and `score`. The
    table goes where the `Tracking` of this process logs to. Where there is none, samples are left out with a warning:
    in verl's `fully_async_policy` a process that does not track validates (0.9.1).

    Args:
        project_name: as `Tracking` has it.
        experiment_name: as `Tracking` has it.
    """

    project_name: str | None = None
    experiment_name: str | None = None

    def log(self, loggers: str | Sequence[str], samples: Sequence[Sequence[Any]], step: int) -> None:
        """Log a table.

        Args:
            loggers: verl's `trainer.logger`; those that are backends get the table.
            samples: a sequence of input, output and score for each.
            step: that of the training.
        """
        rows = [[step, *sample] for sample in samples]
        _log_table(_GENERATIONS, Table(rows, ["step", "input", "output", "score"]), loggers, step)


@dataclass
class DapoFilteredRewardTableLogger:
    """verl's logger of how many groups DAPO filtered out for each reward: a table that grows by a row a step.

    verl's own is for wandb alone. This one is for each backend.

    Args:
        project_name: as `Tracking` has it.
        experiment_name: as `Tracking` has it.
    """

    project_name: str | None = None
    experiment_name: str | None = None

    def log(self, loggers: str | Sequence[str], reward_counts: Mapping[Any, Any], step: int) -> None:
        """Add a row.

        Args:
            loggers: as in `ValidationGenerationsLogger.log`.
            reward_counts: the number of groups for each reward.
            step: that of the training.
        """
        counts = sorted((float(value), int(count)) for value, count in reward_counts.items())
        text = ", ".join(f"{value:g}:{count}" for value, count in counts)
        _log_table(_REWARD_COUNTS, Table([[step, text]], ["step", "reward_counts"], append=True), loggers, step)


class _Current:
    """The `Tracking` of this process, for the loggers of tables, which verl hands none. As wandb has `wandb.run`."""

    tracking: Tracking | None = None
    is_reported = False


_CURRENT: Final = _Current()


def _log_table(key: str, table: Table, loggers: str | Sequence[str], step: int) -> None:
    names = [loggers] if isinstance(loggers, str) else list(loggers)
    if _CURRENT.tracking is not None:
        _CURRENT.tracking.log_row({key: table}, step, names)
    elif not _CURRENT.is_reported and not OWN.issuperset(names):
        _CURRENT.is_reported = True
        logger.warning("%s: left out, as this process has no rolecall.integrations.verl.Tracking", key)


def _arguments(backend: str, project: str, trainer: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a backend, from where verl's own logger takes them (0.9.1, `Tracking.__init__`)."""
    match backend:
        case "mlflow":
            return {"uri": os.environ.get("MLFLOW_TRACKING_URI", _MLFLOW)}
        case "tensorboard":
            # rolecall's has a directory for each run below it
            return {"log_dir": os.path.abspath(os.environ.get("TENSORBOARD_DIR", f"tensorboard_log/{project}"))}
        case "wandb":
            proxy = trainer.get("wandb_proxy")
            entity = os.environ.get("WANDB_ENTITY")
            return {"entity": entity or None, "settings": {"https_proxy": proxy} if proxy else {}}
        case _:
            return {}
