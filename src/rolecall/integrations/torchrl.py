"""rolecall as a logger of TorchRL."""

import os
from typing import Any, Final, Unpack

from rolecall import Histogram, Monitor, Video
from rolecall.integrations.given import GivenRun, InitSettings

try:
    import numpy as np
    import torch
    from torchrl.record.loggers.common import Logger, _make_metrics_safe
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in {"numpy", "torch", "torchrl"}:
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
        monitor: log to this one instead, as a role of a job does. Whoever opened it closes it. Then give no project
            and no settings.
        **settings: further arguments of `rolecall.init`; `monitor_dir` is what TorchRL calls `log_dir`.

    Raises:
        ConfigError: `monitor` is no monitor, or is given beside settings of a run. Else what `rolecall.init` raises.
        TypeError: `rolecall.init` has no such argument.
    """

    def __init__(
        self,
        exp_name: str,
        project: str | None = None,
        *,
        monitor: Monitor | None = None,
        **settings: Unpack[InitSettings],
    ) -> None:
        self._run = GivenRun("RolecallLogger", monitor, {"project": project, **settings})
        self._run.settings["name"] = exp_name  # TorchRL asks for it, also if a monitor is given
        monitor_dir = settings.get("monitor_dir")
        super().__init__(exp_name, None if monitor_dir is None else os.fspath(monitor_dir))

    def _create_experiment(self) -> Monitor:
        """TorchRL keeps it as `experiment`."""
        return self._run.open()

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
        if self._run.is_own and self.is_alive:
            self.experiment.close(**({} if timeout is None else {"timeout": timeout}))
        self._service_shutdown = True

    def __repr__(self) -> str:
        return f"RolecallLogger(experiment={self.experiment!r})"
