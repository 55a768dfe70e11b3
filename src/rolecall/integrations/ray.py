"""rolecall as a callback of Ray Tune, and as the monitor of Ray Train's workers."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

from rolecall import ConfigError, Job, Monitor, MonitorConfig, Status, launch, open_monitor

try:
    from ray import train
    from ray.tune.logger import LoggerCallback
except ImportError as error:  # Ray raises it, too, where Ray is here without what Tune or Train need
    raise ImportError(
        f"rolecall.integrations.ray needs Ray with Tune and Train ({error}): pip install 'ray[train,tune]'"
    ) from error

# What Tune adds to each result (ray/tune/trainable/trainable.py, 2.60.0): the step, and what is no metric.
_NO_METRICS: Final = frozenset(
    {
        "checkpoint_dir_name",
        "config",
        "date",
        "done",
        "experiment_tag",
        "hostname",
        "iterations_since_restore",
        "node_ip",
        "pid",
        "should_checkpoint",
        "time_since_restore",
        "timestamp",
        "training_iteration",
        "trial_id",
    }
)
_CLOSING_AT_ONCE: Final = 8


class RolecallLoggerCallback(LoggerCallback):  # type: ignore[misc]  # Ray is not installed where types are checked
    """Log the trials of Ray Tune: the search is a job, and each trial is a role of it, named by the trial's id.

    So each trial has a run of its own in the tracker, with its config and status, or with `shared_run` a part of one
    run. What a trial reports is logged at its `training_iteration`. A trial that Tune pauses, or runs again after a
    failure, goes on in its run, and so does a search that is restored.

    It runs in the driver, and ends the job with the search. Trials need not see `monitor_dir`.

    Args:
        config: the job's, as `rolecall.launch` takes it: a mapping, a `MonitorConfig`, or the path of a YAML file.

    Raises:
        ConfigError, BackendError: `config`. What else `rolecall.launch` raises comes from `Tuner.fit`.
    """

    def __init__(self, config: object) -> None:
        self._config = config if isinstance(config, MonitorConfig) else MonitorConfig.load(config)
        self._job: Job | None = None
        self._monitors: dict[str, Monitor] = {}
        self._closing: list[Future[None]] = []
        self._threads: ThreadPoolExecutor | None = None
        self._has_opened = False

    def __reduce__(self) -> tuple[type["RolecallLoggerCallback"], tuple[MonitorConfig]]:
        """Tune keeps its callbacks in the search's directory; a job belongs to this process."""
        return type(self), (self._config,)

    def setup(self, *_: Any, **__: Any) -> None:
        """Launch the job. Tune calls it when a search begins or is restored."""
        if self._job is None:
            self._job = launch(self._config)
            # The driver must not wait for a tracker each time that a trial ends.
            self._threads = ThreadPoolExecutor(_CLOSING_AT_ONCE, "rolecall-close")

    def log_trial_start(self, trial: Any) -> None:
        """Open the role of a trial, if it is not open already.

        Raises:
            BackendRefused, BackendError, DirectoryError, WriterConflict: as `rolecall.open_monitor` does.
        """
        if self._job is None or trial.trial_id in self._monitors:
            return
        # With the first trial, wrong credentials are found. For later ones, the driver must not wait for a tracker.
        patience = 0.0 if self._has_opened else None
        monitor = open_monitor(self._job.config, trial.trial_id, run_config=trial.config, open_timeout=patience)
        self._monitors[trial.trial_id] = monitor
        self._has_opened = True

    def log_trial_result(self, iteration: int, trial: Any, result: Mapping[str, Any]) -> None:
        """Record what a trial reported."""
        metrics = {key: value for key, value in result.items() if key not in _NO_METRICS}
        self._monitors[trial.trial_id].log(metrics, step=result["training_iteration"])

    def log_trial_end(self, trial: Any, failed: bool = False) -> None:
        """Close the role of a trial."""
        # A trial that failed before it started has no role.
        if (monitor := self._monitors.pop(trial.trial_id, None)) is not None:
            self._close(monitor, "failed" if failed else "finished")

    def on_experiment_end(self, trials: list[Any], **_: Any) -> None:
        """End the job. Trials that have not ended, as after Ctrl-C, are `killed`.

        Raises:
            Undelivered: with `on_backend_error: raise`, if rows are left.
        """
        if self._job is None or self._threads is None:
            return
        for monitor in self._monitors.values():
            self._close(monitor, "killed")
        self._threads.shutdown()  # it waits for them
        job, closing = self._job, self._closing
        self._job, self._threads, self._monitors, self._closing = None, None, {}, []
        job.close()
        for each in closing:
            each.result()

    def _close(self, monitor: Monitor, status: Status) -> None:
        monitor.summary["trial_status"] = status  # in a shared run, the run's own status is that of the search
        if self._threads is not None:
            self._closing.append(self._threads.submit(monitor.close, status))


def open_train_monitor(config: object, role: str = "trainer", run_config: object = None) -> Monitor:
    """Join a job as a worker of Ray Train. Each worker is a rank of the role, by its world rank.

    Call it in the training function, and close the monitor before that returns, as by a `with` block.

    Args:
        config: `job.config` of the driver, which can be passed in `train_loop_config`.
        role: as in `rolecall.open_monitor`.
        run_config: as there.

    Raises:
        ConfigError: this process is no worker of Ray Train.
        DirectoryError, WriterConflict, BackendError, BackendRefused: as `rolecall.open_monitor` does.
    """
    try:
        rank = train.get_context().get_world_rank()
    except RuntimeError:  # what Train raises elsewhere (ray/train/v2, 2.60.0)
        rank = None
    if rank is None:
        what = "this process is no worker of Ray Train; call it in the training function of a trainer"
        raise ConfigError(f"open_train_monitor: {what}, or use rolecall.open_monitor")
    return open_monitor(config, role, rank, run_config=run_config)
