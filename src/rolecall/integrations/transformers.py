"""rolecall as a callback of transformers' `Trainer`, and so of TRL's trainers, which are made of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Unpack

from rolecall import Monitor, Status, Table
from rolecall.integrations.given import GivenRun, InitSettings

try:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
    from transformers.integrations import rewrite_logs
except ImportError as error:
    raise ImportError(
        "rolecall.integrations.transformers needs transformers with torch: pip install 'transformers[torch]'"
    ) from error

# What `Trainer` logs once, at the end of training; `WandbCallback` has these in the summary (transformers 5.24.0,
# integrations/integration_utils.py).
_ONCE: Final = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss", "total_flos")


class RolecallCallback(TrainerCallback):  # type: ignore[misc]  # transformers is not where mypy runs
    """Log what a `Trainer` logs: `Trainer(..., callbacks=[RolecallCallback(monitor_type="wandb")])`.

    Keys are those of transformers' own `WandbCallback` and `TensorBoardCallback`: `train/loss`, `eval/loss`,
    `test/loss`. The step is the trainer's `global_step`. The run's config is that of the model and the
    `TrainingArguments`. Of a TRL trainer with `log_completions=True`, the table `completions` is logged, too.

    Only the process of rank 0 opens a run. It stays open after `train`, so that `evaluate`, `predict` and a second
    `train` go on in it. `finish` ends it, and otherwise the end of the program does, as `failed` after an exception.
    Each trial of a hyperparameter search has a run of its own.

    Args:
        monitor: a role that you have opened, with `rolecall.open_monitor` for example, and close yourself. Without one,
            the callback calls `rolecall.init` with the arguments below when training begins.
        project: as in `rolecall.init`; by default `TrainingArguments.project`, where transformers has it.
        name: as there; by default the trial's name, or else `TrainingArguments.run_name`.
        **settings: further arguments of `rolecall.init`.

    Raises:
        ConfigError: `monitor` is none, or is given with other arguments. What `rolecall.init` raises, `train` does.
        TypeError: `rolecall.init` has no such argument.
    """

    def __init__(
        self,
        monitor: Monitor | None = None,
        *,
        project: str | None = None,
        name: str | None = None,
        **settings: Unpack[InitSettings],
    ) -> None:
        self._run = GivenRun("RolecallCallback", monitor, {"project": project, "name": name, **settings})
        self._table_step: int | None = None

    @property
    def monitor(self) -> Monitor | None:
        """The run, to log to it yourself; `None` in processes of other ranks, and before training begins."""
        return self._run.monitor

    def finish(self, status: Status = "finished") -> None:
        """End the run that the callback has opened; the next `train` begins another one.

        Args:
            status: how training ended.
        """
        self._run.finish(status)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Open the run, and record the config."""
        if state.is_hyper_param_search:
            self.finish()
        self._table_step = None
        if state.is_world_process_zero:
            self._open(args, state).update_config(_config(args, kwargs.get("model")))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Log what the trainer logs."""
        if not state.is_world_process_zero or logs is None:
            return
        self._log_completions(args)
        monitor = self._open(args, state)
        monitor.log({**rewrite_logs(logs), "train/global_step": state.global_step}, state.global_step)
        monitor.summary.update({key: logs[key] for key in _ONCE if key in logs})
        # The last row, with the runtime, is of the step before, whose completions TRL then writes once more.
        if getattr(args, "log_completions", False) and "train_runtime" not in logs:
            self._table_step = state.global_step

    def on_predict(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any],
        **kwargs: Any,
    ) -> None:
        """Log the metrics of `Trainer.predict`, which the trainer itself does not log."""
        if state.is_world_process_zero:
            self._open(args, state).log(rewrite_logs(metrics), state.global_step)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the completions of the step before."""
        self._log_completions(args)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Log the completions of the evaluation."""
        self._log_completions(args)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the completions of the last step."""
        self._log_completions(args)

    def _open(self, args: TrainingArguments, state: TrainerState) -> Monitor:
        """The run, which is opened if there is none."""
        # Before transformers 5, `run_name` was the output directory where nobody gave one.
        given = args.run_name if args.run_name != args.output_dir else None
        return self._run.open(project=getattr(args, "project", None), name=state.trial_name or given)

    def _log_completions(self, args: TrainingArguments) -> None:
        """Log the table of completions, of which TRL tells no callback.

        TRL writes it to a file after each `on_log`, and hands it to wandb and Trackio alone (trl 1.16.0,
        `GRPOTrainer.log`). So it is read at the next event, whatever that is.
        """
        step, self._table_step = self._table_step, None
        if step is None or self._run.monitor is None:
            return
        path = Path(args.output_dir, "completions", f"completions_{step:05d}.parquet")
        if path.exists():
            from pyarrow.parquet import read_table  # TRL needs `datasets`, and that needs pyarrow

            self._run.monitor.log({"completions": Table(read_table(path).to_pylist())}, step)


def _config(args: TrainingArguments, model: Any) -> Mapping[str, Any]:
    """The run's config, as transformers' `WandbCallback` makes it: arguments, the model's config and its size."""
    found: dict[str, Any] = {}
    if (peft := getattr(model, "peft_config", None)) is not None:
        found["peft_config"] = peft
    if (config := getattr(model, "config", None)) is not None:
        found.update(config if isinstance(config, dict) else config.to_dict())
    found.update(args.to_dict())
    if hasattr(model, "num_parameters"):
        found["model/num_parameters"] = model.num_parameters()
    return found
