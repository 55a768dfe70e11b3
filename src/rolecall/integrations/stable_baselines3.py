"""rolecall as a callback and an output format of Stable-Baselines3."""

import os
import tempfile
from collections.abc import Mapping
from typing import Any, Final, Unpack

from rolecall import File, Histogram, Image, Monitor, Video
from rolecall.integrations.given import GivenRun, InitSettings, check_monitor

try:
    import numpy as np
    import stable_baselines3.common.logger as sb3
    from stable_baselines3.common.callbacks import BaseCallback
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in {"numpy", "stable_baselines3"}:
        raise  # it is here, and lacks something itself
    raise ImportError(
        "rolecall.integrations.stable_baselines3 needs Stable-Baselines3, which is not installed: "
        "pip install stable-baselines3 pillow"
    ) from error

_STATE: Final = frozenset({"num_timesteps", "start_time", "verbose"})
"""Attributes of a model that are no hyper-parameters."""


class RolecallWriter(sb3.KVWriter):  # type: ignore[misc]  # it is not installed where types are checked
    """An output format for SB3's `Logger`: each `dump` is a row at the step of the timesteps.

    It records what SB3's own TensorBoard format records: numbers, strings, tensors and arrays as histograms, and SB3's
    `Image`, `Figure`, `Video` and `HParam`. What is recorded with `exclude="tensorboard"` or `"rolecall"` is left out.

    Args:
        monitor: what `rolecall.init` or `rolecall.open_monitor` returns. You close it.

    Raises:
        ConfigError: it is no monitor.
    """

    def __init__(self, monitor: Monitor) -> None:
        check_monitor("RolecallWriter", monitor)
        self._monitor = monitor

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, Any], step: int = 0) -> None:
        """Record what the logger gathered since its last `dump`."""
        row: dict[str, Any] = {}
        for key, value in key_values.items():
            # SB3 2 has a tuple of formats, or None.
            if {"tensorboard", "rolecall"} & set(key_excluded.get(key) or ()):
                continue
            if isinstance(value, sb3.HParam):
                # The values of `metric_dict` are placeholders, as TensorBoard wants no more than the names.
                self._monitor.update_config(value.hparam_dict)
            else:
                row[key] = _loggable(value)
        self._monitor.log(row, step)
        for value in key_values.values():
            if isinstance(value, sb3.Figure) and value.close:
                _close_figure(value.figure)

    def close(self) -> None:
        """Do nothing: the monitor is its opener's."""


class RolecallCallback(BaseCallback):  # type: ignore[misc]
    """Log a training to a run, on any tracker: what the model's logger records, and its hyper-parameters.

    The run goes on in a second `learn`, and ends with the program, or by `monitor.finish()`.

    Args:
        monitor: what `rolecall.init` or `rolecall.open_monitor` returns. In a `with` block of it, the run is `failed`
            if the training raises. Without one, `rolecall.init` is called with the settings when the training starts.
        log_model: whether the model becomes a file of the run when a training ends: `model.zip`.
        verbose: as in SB3's own callbacks.
        project: as in `rolecall.init`.
        name: as there.
        **settings: further arguments of `rolecall.init`.

    Raises:
        ConfigError: `monitor` is no monitor, or is given with other arguments.
        TypeError: `rolecall.init` has no such argument.
    """

    def __init__(
        self,
        monitor: Monitor | None = None,
        *,
        log_model: bool = False,
        verbose: int = 0,
        project: str | None = None,
        name: str | None = None,
        **settings: Unpack[InitSettings],
    ) -> None:
        super().__init__(verbose)
        self._run = GivenRun("RolecallCallback", monitor, {"project": project, "name": name, **settings})
        self._writer: RolecallWriter | None = None
        self._log_model = log_model

    @property
    def monitor(self) -> Monitor | None:
        """Where it logs to; `None` before the training starts, if none was given."""
        return self._run.monitor

    def _on_training_start(self) -> None:
        monitor, formats = self._run.open(), self.logger.output_formats
        monitor.update_config(_hyperparameters(self.model))
        # A logger of the user's own still has the writer of an earlier training, whose run may have ended.
        if self._writer in formats:
            formats.remove(self._writer)
        self._writer = RolecallWriter(monitor)
        formats.append(self._writer)

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        if self._log_model:
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, "model.zip")
                self.model.save(path)
                self._run.open().log({"model": File(path)}, self.num_timesteps)


def _hyperparameters(model: Any) -> Mapping[str, Any]:
    """The arguments that an algorithm keeps as attributes; of a schedule, no value is the one."""
    given = {name: value for name, value in vars(model).items() if not name.startswith("_") and name not in _STATE}
    plain = {name: value for name, value in given.items() if isinstance(value, bool | int | float | str)}
    return {"algorithm": type(model).__name__, "policy": model.policy_class.__name__, **plain}


def _loggable(value: Any) -> Any:
    """What `Monitor.log` takes, of what SB3's logger takes."""
    match value:
        case sb3.Figure():
            return value.figure
        case sb3.Image():
            return _images(value.image, value.dataformats)
        case sb3.Video():
            # As `SummaryWriter.add_video` takes them: videos, their frames, channels, height, width.
            return [Video(frames, fps=value.fps) for frames in value.frames]
        case _:
            # A scalar of NumPy and a tensor that holds one number have no dimensions.
            return Histogram(value) if getattr(value, "ndim", 0) else value


def _images(image: Any, dataformats: str) -> Any:
    """The images of an array whose axes have TensorBoard's names: N, H, W and C, in any order."""
    if not hasattr(image, "shape"):
        return Image(image)
    array = image.detach().cpu().numpy() if hasattr(image, "detach") else np.asarray(image)
    axes = dataformats.upper()
    if "C" not in axes:
        array, axes = array[..., None], f"{axes}C"
    array = array.transpose([axes.index(axis) for axis in "NHWC" if axis in axes])
    return [Image(each) for each in array] if "N" in axes else Image(array)


def _close_figure(figure: Any) -> None:
    """As `SummaryWriter.add_figure(close=True)` does; what Matplotlib does not know is not open."""
    import matplotlib.pyplot as plt  # whoever made the figure has it

    plt.close(figure)
