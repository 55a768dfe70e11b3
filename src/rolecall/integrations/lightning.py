"""rolecall as a logger of Lightning 2, of its package `lightning` as of `pytorch_lightning`."""

import copy
import importlib
import multiprocessing
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Unpack

from rolecall import ConfigError, File, Image, Monitor, Status, Table
from rolecall.integrations.given import GivenRun, InitSettings

_PACKAGES: Final = ("lightning.pytorch", "pytorch_lightning")
_MISSING: Final = (
    "rolecall.integrations.lightning needs Lightning 2, and neither lightning nor pytorch_lightning is installed: "
    "pip install lightning"
)


def _import_loggers() -> Any:
    """The module of Lightning's own base class of loggers, from the package that the program uses.

    `lightning` installs `pytorch_lightning`, too (2.6): each has classes of its own, and takes seconds to import.
    """
    imported = [name for name in _PACKAGES if name in sys.modules]
    for name in (*imported, *_PACKAGES):
        try:
            return importlib.import_module(f"{name}.loggers.logger")
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name.partition(".")[0]):
                raise  # Lightning is here, and lacks something itself
    raise ImportError(_MISSING)


_LOGGERS: Final = _import_loggers()
_Logger: Any = _LOGGERS.Logger
# One function for both packages, which set its `rank` (2.0 to 2.6): with it, only rank 0 calls what it decorates.
rank_zero_only: Final = importlib.import_module("lightning_utilities.core.rank_zero").rank_zero_only


class RolecallLogger(_Logger):  # type: ignore[misc]  # Lightning is not installed where types are checked
    """Log what Lightning logs to one run, on any tracker; only rank 0 logs.

    The run begins with the first `fit`, `validate` or `test`, or where you use `experiment`. It goes on in those that
    follow, and ends with the program, or by `experiment.finish()`. If one of them raises, the run is `failed`; the
    next one continues it. A logger that is pickled, as for `ddp_spawn`, leaves its run to the process that gets it.

    Args:
        project: where backends file the run; by default the name of the working directory.
        name: the run's display name; generated if not given. Lightning puts its checkpoints in `{project}/{name}`.
        log_model: which checkpoints become files of the run: `True` those that are left after the training, `"all"`
            each that `ModelCheckpoint` saves.
        monitor: log to this one instead, such as a role of a job; you close it, and give no name, project or settings.
        **settings: further arguments of `rolecall.init`. `config` is joined by the hyper-parameters that Lightning
            logs; `resume="allow"` continues a run of that name, for `fit(ckpt_path=...)`.

    Raises:
        ConfigError: `log_model` or `monitor`. The settings are checked where the run begins, which raises what
            `rolecall.init` raises.
        TypeError: `rolecall.init` has no such argument.
    """

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        *,
        log_model: bool | Literal["all"] = False,
        monitor: Monitor | None = None,
        **settings: Unpack[InitSettings],
    ) -> None:
        super().__init__()
        if log_model not in {False, True, "all"}:
            raise ConfigError(f"log_model: {log_model!r}: must be False, True, or 'all'")
        self._run = GivenRun("RolecallLogger", monitor, {"project": project, "name": name, **settings})
        self._project = project or Path.cwd().name or "rolecall"
        self._name = name or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        self._run.settings |= {"project": self._project, "name": self._name}
        # Nothing has a generated name yet, but a forked child may begin the run unseen by its parent.
        if name is None and settings.get("resume", "never") == "never":
            self._run.settings["resume"] = "allow"
        self._log_model = log_model
        self._kept: dict[int, Any] = {}
        self._logged: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Close the run, so that the process that unpickles the logger can go on with it.

        Raises:
            ConfigError: the monitor was given, and belongs to this process.
        """
        if not self._run.is_own:
            what = "a monitor belongs to the process that opened it, and this strategy starts others: use 'ddp', or"
            raise ConfigError(f"monitor: {what} leave it out")
        self._close("finished")
        state = {**self.__dict__, "_run": copy.copy(self._run), "_kept": {}}  # weak references cannot be pickled
        self._run.settings = {**self._run.settings, "resume": "allow"}  # what the other process has begun
        return state

    @property
    def name(self) -> str:
        """The project, as in Lightning's own loggers."""
        return self._project

    @property
    def version(self) -> str:
        """The run's name."""
        return self._name

    @property
    @_LOGGERS.rank_zero_experiment  # type: ignore[untyped-decorator]
    def experiment(self) -> Monitor:
        """The run's `rolecall.Monitor`, for everything that it can log; on other ranks than 0, calls of it do nothing.

        Raises:
            ConfigError, BackendError, DirectoryError, WriterConflict, BackendRefused: as `rolecall.init` does.
        """
        monitor = self._run.open()
        self._run.settings["resume"] = "allow"  # for what follows
        return monitor

    @rank_zero_only  # type: ignore[untyped-decorator]
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Record metrics at a step, which is Lightning's `global_step`."""
        self.experiment.log(metrics, step)

    @rank_zero_only  # type: ignore[untyped-decorator]
    def log_hyperparams(self, params: object, metrics: Mapping[str, float] | None = None) -> None:
        """Add to the run's config; `metrics`, as TensorBoardLogger takes them, become its summary."""
        self.experiment.update_config(params)
        self.experiment.summary.update(metrics or {})

    @rank_zero_only  # type: ignore[untyped-decorator]
    def log_image(
        self, key: str, images: Sequence[Any], step: int | None = None, caption: Sequence[str] | None = None
    ) -> None:
        """Record images, as WandbLogger does.

        Args:
            key: their key.
            images: tensors, arrays, images of Pillow or paths, as `rolecall.Image` takes them.
            step: as in `log_metrics`.
            caption: a line for each of them.

        Raises:
            ValueError: there is not one caption for each image.
        """
        captions = [""] * len(images) if caption is None else list(caption)
        if len(captions) != len(images):
            raise ValueError(f"log_image({key!r}): {len(images)} images and {len(captions)} captions: give one to each")
        boxed = [Image(image, caption=text) for image, text in zip(images, captions, strict=True)]
        self.experiment.log({key: boxed}, step)

    @rank_zero_only  # type: ignore[untyped-decorator]
    def log_table(
        self,
        key: str,
        columns: Sequence[str] | None = None,
        data: Any = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """Record a table, as WandbLogger does: `columns` and rows of `data`, or a data frame."""
        self.experiment.log({key: Table(data, columns) if dataframe is None else Table(dataframe)}, step)

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Record the checkpoints that `log_model` asks for. Lightning calls it on rank 0."""
        if self._log_model == "all" or (self._log_model and checkpoint_callback.save_top_k == -1):
            self._log_checkpoints(checkpoint_callback)
        elif self._log_model:
            self._kept[id(checkpoint_callback)] = checkpoint_callback

    @rank_zero_only  # type: ignore[untyped-decorator]
    def finalize(self, status: str) -> None:
        """Record the checkpoints that are left. End the run if training failed, or if this process ends with it."""
        if self._run.monitor is None:
            return  # nothing was logged in this process: with `ddp_spawn`, the one that started the others
        if status == "failed":
            self._close("failed")
            return
        for callback in self._kept.values():
            self._log_checkpoints(callback)
        self._kept = {}  # they live as long as their trainer
        # Processes of `ddp_spawn` end by `os._exit`, and what a program does at its end is not done there.
        if multiprocessing.parent_process() is not None:
            self._close("finished")

    def _close(self, status: Status) -> None:
        self._run.finish(status)
        if self._run.is_own:
            self._run.monitor = None

    def _log_checkpoints(self, callback: Any) -> None:
        """Record each checkpoint that is there and that was not recorded as it is now."""
        for path in dict.fromkeys([callback.best_model_path, *callback.best_k_models, callback.last_model_path]):
            # A directory is a sharded checkpoint; what is not there is `""`, or was deleted for a better one.
            changed = Path(path).stat().st_mtime_ns if path and Path(path).exists() else None
            if changed is not None and self._logged.get(path) != changed:
                self._logged[path] = changed
                self.experiment.log({f"checkpoint/{Path(path).stem}": File(path)})
        if callback.best_model_score is not None:
            best = {"best": Path(callback.best_model_path).name, "best_score": callback.best_model_score}
            self.experiment.summary.update({f"checkpoint/{key}": value for key, value in best.items()})
