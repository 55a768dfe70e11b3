"""rolecall as a logger of TorchRL."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import rolecall
from rolecall import Histogram, Monitor, Video
from rolecall.integrations.given import check_monitor

try:
    import numpy as np
    import torch
    from torchrl.record.loggers.common import Logger, _make_metrics_safe
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "torchrl":
        raise  # it is here, and lacks something itself
    raise ImportError(
        "rolecall.integrations.torchrl needs TorchRL, which is not installed: pip install torchrl pillow"
    ) from error

_BATCH_OF_VIDEOS: Final = 5
"""Dimensions: videos, frames, channels, height, width; TorchRL's VideoRecorder makes batches (0.14.1)."""


class RolecallLogger(Logger):  # type: ignore[misc]  # TorchRL is not installed where types are checked
    """Log what TorchRL logs to one run, on any tracker.

    The run begins with the logger. `shutdown` ends it, or else the end of the program, which is `failed` after an
    exception. With `service_backend="ray"` or `"process"`, as of all of TorchRL's loggers, it is in a process of its
    own, and all that have its `client()` log to one run.

    Args:
        exp_name: the run's display name.
        project: where backends file the run; by default the name of the working directory.
        config: the run's config, beside what `log_hparams` adds.
        monitor_type: the backend, or several, as in `rolecall.init`, whose arguments the next five are, too.
        monitor_args: the arguments of the backend.
        monitor_dir: where the journal is; `log_dir`, as TorchRL calls it.
        tags: labels of the run.
        resume: what to do if there is a run of that name: `"allow"` continues it.
        system_metrics: whether CPU, memory, disk, network and GPUs are logged.
        monitor: log to this one instead, as a role of a job does. Whoever opened it closes it.

    Raises:
        ConfigError: `monitor` is no monitor, or is given beside settings of a run. Else what `rolecall.init` raises.
    """

    def __init__(  # noqa: PLR0913 - all but the first two by name
        self,
        exp_name: str,
        project: str | None = None,
        *,
        config: object = None,
        monitor_type: str | list[str] | None = None,
        monitor_args: Mapping[str, Any] | None = None,
        monitor_dir: str | os.PathLike[str] | None = None,
        tags: Sequence[str] = (),
        resume: Literal["auto", "allow", "must", "never"] = "never",
        system_metrics: bool = False,
        monitor: Monitor | None = None,
    ) -> None:
        self._monitor = monitor
        self._settings: dict[str, Any] = {
            "project": project,
            "config": config,
            "monitor_type": monitor_type,
            "monitor_args": monitor_args,
            "monitor_dir": monitor_dir,
            "tags": tags,
            "system_metrics": system_metrics,
        }
        if monitor is not None:
            check_monitor("RolecallLogger", monitor, {**self._settings, "resume": resume})
        self._settings |= {"name": exp_name, "resume": resume}
        super().__init__(exp_name, None if monitor_dir is None else os.fspath(monitor_dir))

    def _create_experiment(self) -> Monitor:
        """TorchRL keeps it as `experiment`."""
        return self._monitor or rolecall.init(**self._settings)

    def log_scalar(self, name: str, value: float, step: int | None = None) -> None:
        """Record a number, or a tensor with one."""
        self.experiment.log({name: value}, step)

    def log_metrics(self, metrics: Any, step: int | None = None, *, keys_sep: str = "/") -> dict[str, Any]:
        """Record a dictionary or a TensorDict in one row, and return what was recorded."""
        # TorchRL's own: one copy from the GPU for all tensors, as its loggers do.
        found: dict[str, Any] = _make_metrics_safe(metrics, keys_sep=keys_sep)
        self.experiment.log(found, step)
        return found

    def log_video(self, name: str, video: torch.Tensor, step: int | None = None, *, fps: float = 32) -> None:
        """Record a video, or a batch of them. Needs Pillow.

        Args:
            name: its key.
            video: frames of `uint8`, of shape (time, channels, height, width), or with a batch dimension before.
            step: as in `log_scalar`.
            fps: frames per second.
        """
        frames = video.detach().cpu().numpy()
        videos = list(frames) if frames.ndim == _BATCH_OF_VIDEOS else [frames]
        self.experiment.log({name: [Video(each, fps=fps) for each in videos]}, step)

    def log_hparams(self, cfg: object) -> None:
        """Add to the run's config; `cfg` may be of any kind, as OmegaConf's."""
        self.experiment.update_config(cfg)

    def log_histogram(self, name: str, data: Any, step: int | None = None, *, bins: int | str = 64) -> None:
        """Record the distribution of values.

        Args:
            name: its key.
            data: a tensor, an array or a sequence, of any shape.
            step: as in `log_scalar`.
            bins: how many, or numpy's name of a rule, such as `"auto"`.
        """
        values = np.ravel(data.detach().cpu().numpy() if isinstance(data, torch.Tensor) else data)
        if isinstance(bins, str):
            counts, edges = np.histogram(values, bins)
            histogram = Histogram(counts=counts, edges=edges)
        else:
            histogram = Histogram(values, bins=bins)
        self.experiment.log({name: histogram}, step)

    def log_str(self, name: str, value: str, step: int | None = None) -> None:
        """Record a string."""
        self.experiment.log({name: value}, step)

    def shutdown(self, timeout: float | None = None) -> None:
        """End the run, if it is the logger's own, and wait for it to be delivered.

        Args:
            timeout: seconds; by default 30. What is left then, the courier's process sends.
        """
        if self._monitor is None and self.is_alive:
            self.experiment.close(**({} if timeout is None else {"timeout": timeout}))
        self._service_shutdown = True

    def __repr__(self) -> str:
        return f"RolecallLogger(experiment={self.experiment!r})"
