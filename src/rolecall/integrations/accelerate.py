"""rolecall as a tracker of Accelerate."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack

from rolecall import Image, Monitor, Status, Table
from rolecall.integrations.given import GivenRun, InitSettings

try:
    from accelerate import tracking
    from accelerate.tracking import GeneralTracker, on_main_process
except ImportError as error:
    raise ImportError("rolecall.integrations.accelerate needs accelerate with torch: pip install accelerate") from error


class RolecallTracker(GeneralTracker):  # type: ignore[misc]  # accelerate is not where mypy runs
    """Log what an `Accelerator` logs: `Accelerator(log_with=RolecallTracker("my-project", monitor_type="wandb"))`.

    `Accelerator.init_trackers` opens the run and `Accelerator.end_training` ends it; if that is not called, the end of
    the program does, as `failed` after an exception. `init_trackers` of the next `Accelerator` begins another run. Only
    the main process has a run, and keys are those that you log.

    Args:
        project: as in `rolecall.init`. Accelerate tells its `project_name` to no tracker that you made.
        name: as there, the run's name. The attribute `name` is `rolecall`, for `Accelerator.get_tracker`.
        monitor: a role that you have opened in the main process, with `rolecall.open_monitor` for example, and close
            yourself. Then give no other argument.
        **settings: further arguments of `rolecall.init`.

    Raises:
        ConfigError: `monitor` is none, or is given with other arguments. What `rolecall.init` raises, `init_trackers`
            does.
        TypeError: `rolecall.init` has no such argument.
    """

    name = "rolecall"
    requires_logging_directory = False
    main_process_only = True

    def __init__(
        self,
        project: str | None = None,
        name: str | None = None,
        *,
        monitor: Monitor | None = None,
        **settings: Unpack[InitSettings],
    ) -> None:
        super().__init__()
        self._run = GivenRun("RolecallTracker", monitor, {"project": project, "name": name, **settings})

    @property
    def tracker(self) -> Monitor | None:
        """The run, to log to it yourself; `None` in other processes than the main one, and before `init_trackers`."""
        return self._run.monitor

    @on_main_process  # type: ignore[untyped-decorator]
    def start(self) -> None:
        """Open the run; after `finish`, another one."""
        self._run.open()

    @on_main_process  # type: ignore[untyped-decorator]
    def store_init_configuration(self, values: Mapping[str, Any]) -> None:
        """Record the run's config.

        Args:
            values: as `init_trackers` was given them.
        """
        self._open().update_config(values)

    @on_main_process  # type: ignore[untyped-decorator]
    def log(
        self,
        values: Mapping[str, Any],
        step: int | None = None,
        *,
        axis: str | None = None,
        backends: Sequence[str] | None = None,
    ) -> None:
        """Log metrics, and everything else that `Monitor.log` takes.

        Args:
            values: as in `Monitor.log`.
            step: as there.
            axis: as there; `Accelerator.log(..., log_kwargs={"rolecall": {"axis": "eval"}})`.
            backends: as there.
        """
        self._open().log(values, step, axis=axis, backends=backends)

    @on_main_process  # type: ignore[untyped-decorator]
    def log_images(self, values: Mapping[str, Iterable[Any]], step: int | None = None, *, caption: str = "") -> None:
        """Log images.

        Args:
            values: several images under each key, each as `rolecall.Image` takes it.
            step: as in `log`.
            caption: of all of them.
        """
        found = {key: [Image(image, caption=caption) for image in images] for key, images in values.items()}
        self._open().log(found, step)

    @on_main_process  # type: ignore[untyped-decorator]
    def log_table(
        self,
        table_name: str,
        columns: Sequence[str] | None = None,
        data: Sequence[Sequence[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """Log a table, of `columns` and `data`, or of a data frame.

        Args:
            table_name: its key.
            columns: the names of its columns.
            data: its rows.
            dataframe: of pandas or polars.
            step: as in `log`.
        """
        table = Table(data, columns) if dataframe is None else Table(dataframe)
        self._open().log({table_name: table}, step)

    @on_main_process  # type: ignore[untyped-decorator]
    def finish(self, status: Status = "finished") -> None:
        """End the run, if the tracker has opened it.

        Args:
            status: how training ended.
        """
        self._run.finish(status)

    def _open(self) -> Monitor:
        """The run, which is opened if there was none: accelerate 1.7.0 calls no `start`, 1.8.1 does."""
        return self._run.monitor or self._run.open()


# So that `log_with="rolecall"` finds it. Older releases take trackers alone.
if hasattr(tracking, "register_tracker_class"):
    tracking.register_tracker_class(RolecallTracker)
