"""Run: what `wandb.init` returns."""

import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Self

from rolecall import File, Monitor, Status
from rolecall.compat.wandb.absent import UnsupportedError, explain_absent
from rolecall.compat.wandb.artifact import Artifact, artifact_of
from rolecall.compat.wandb.configs import Config
from rolecall.compat.wandb.media import flat
from rolecall.compat.wandb.metrics import Metric, Metrics
from rolecall.compat.wandb.summaries import Scalar, Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a run is called, and where it is."""

    id: str
    name: str
    project: str
    directory: Path
    entity: str | None = None
    group: str | None = None
    job_type: str | None = None
    notes: str | None = None
    mode: str = "online"
    first_step: int = 0
    resumed: bool = False


class Run:
    """A run, as `wandb.Run`. Made by `init`.

    `log` promises what `Monitor.log` does: it blocks on no tracker, raises nothing, and the row survives the process.

    Args:
        monitor: the role that records it.
        about: what it is called.
        config: its config.
    """

    def __init__(self, monitor: Monitor, about: About, config: Mapping[str, Any]) -> None:
        self.monitor = monitor
        self.config = Config(config, monitor.update_config)
        self.summary = Summary(monitor)
        self.start_time = time.time()
        self._about = about
        self._metrics = Metrics()
        self._step = about.first_step
        self._lock = threading.RLock()
        self._is_finished = False

    def __repr__(self) -> str:
        return f"<Run {self.name!r}, {self.path}>"

    def __getattr__(self, name: str) -> Any:
        """What the run is called, such as `run.id`, and otherwise words that say that there is no such thing."""
        if name in {"id", "project", "entity", "group", "job_type", "notes", "resumed"}:
            return getattr(self._about, name)
        return explain_absent("a Run of rolecall.compat.wandb", name)

    @property
    def name(self) -> str:
        """The display name. It cannot be changed, as it names the run in the job's directory."""
        return self._about.name

    @name.setter
    def name(self, name: str) -> NoReturn:
        raise UnsupportedError(f"run.name = {name!r}: a run keeps its name; give it to init(name=...)")

    @property
    def path(self) -> str:
        """The project and the id."""
        return f"{self._about.project}/{self._about.id}"

    @property
    def dir(self) -> str:
        """A directory beside the journal for files of the script's own."""
        folder = self._about.directory / "files"
        if not self.disabled:
            folder.mkdir(parents=True, exist_ok=True)
        return str(folder)

    @property
    def url(self) -> str | None:
        """Where you look at the run; `None` if its trackers have no page."""
        return self.monitor.url

    @property
    def tags(self) -> tuple[str, ...]:
        """The run's labels."""
        return tuple(self.monitor.tags)

    @tags.setter
    def tags(self, tags: Sequence[str]) -> None:
        self.monitor.tags = set(tags)

    @property
    def step(self) -> int:
        """The step of the next line."""
        return self._step

    @property
    def is_finished(self) -> bool:
        """Whether `finish` was called."""
        return self._is_finished

    @property
    def disabled(self) -> bool:
        """Whether nothing is recorded."""
        return self.monitor.run_id is None

    @property
    def offline(self) -> bool:
        """Whether wandb would not upload."""
        return self._about.mode == "offline"

    def log(self, data: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        """Record values.

        Args:
            data: numbers, strings, tables and media. What is in a nested mapping is named with dots, as in wandb.
            step: the run's own step: by default the one after the last call's, from 0. wandb drops a lower one than
                the last; rolecall keeps the row.
            commit: whether the next call without a step has the next one; by default if `step` is not given.
        """
        given: object = data
        if not isinstance(given, Mapping):
            self.monitor.log(data)  # which says what is wrong
            return
        with self._lock:
            line = self._line(step, commit)
            row = flat(data)
            for part in self._metrics.split(row, line):
                self.monitor.log(part.data, part.step, axis=part.axis)
            self._summarize(row)

    def _line(self, step: Any, commit: bool | None) -> Any:
        """The step of this call; the next call's is set."""
        if step is None:
            line: Any = self._step
        else:
            line = int(step) if isinstance(step, float) and step.is_integer() else step
            if isinstance(line, int):
                self._step = max(self._step, line)
        if commit or (commit is None and step is None):
            self._step += 1
        return line

    def _summarize(self, row: Mapping[Any, Any]) -> None:
        values = {key: found for key, value in row.items() if (found := _scalar(value)) is not None}
        for key, kinds in self._metrics.summaries(values).items():
            self.summary.take(key, values[key], kinds)

    def define_metric(
        self,
        name: str,
        step_metric: str | Metric | None = None,
        step_sync: bool | None = None,
        hidden: bool | None = None,
        summary: str | None = None,
        overwrite: bool | None = None,
    ) -> Metric:
        """Say over which step a key is shown, and what the summary has of it.

        Args:
            name: the key, or the beginning of several and a `*`.
            step_metric: the metric that is its step; its values are whole numbers.
            step_sync: ignored: the last value of the step is taken where a call has none, as if it was true.
            hidden: ignored.
            summary: `min`, `max`, `mean`, `first`, `last` or `none`, or several of them with commas.
            overwrite: ignored: what is said later replaces what was said before.

        Raises:
            Error: one of these is none.
        """
        return self._metrics.define(name, step_metric, summary)

    def log_artifact(
        self,
        artifact_or_path: Artifact | str | os.PathLike[str],
        name: str | None = None,
        type: str | None = None,  # noqa: A002 - wandb's own
        aliases: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
    ) -> Artifact:
        """Copy the files of an artifact, or a file; the key of each is `{artifact}/{file}`.

        Args:
            artifact_or_path: the artifact, a file or a directory.
            name: of a file or a directory, what the artifact is called.
            type: of these, what it is.
            aliases: ignored, as `tags`: an artifact has no versions here, but a step.
            tags: as above.
        """
        artifact = artifact_of(artifact_or_path, name, type)
        files = {f"{artifact.name}/{name}": File(path, name=Path(name).name) for name, path in artifact.files.items()}
        self.monitor.log(files, self._step)
        about = {"type": artifact.type, "description": artifact.description, **artifact.metadata}
        if artifact.metadata or artifact.description:
            self.monitor.update_config({f"artifact/{artifact.name}": about})
        return artifact

    def finish(self, exit_code: int | None = None, quiet: bool | None = None) -> None:
        """End the run.

        Args:
            exit_code: what is not 0 is a failure.
            quiet: ignored; `ROLECALL_LOG=error` silences what is printed.
        """
        self.close("failed" if exit_code else "finished")

    def close(self, status: Status) -> None:
        """End the run with a status of rolecall's."""
        self._is_finished = True
        self.monitor.close(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.finish(0 if error is None else 1)


def _scalar(value: Any) -> Scalar | None:
    """What a summary can hold of a value that was logged; `None` if that is nothing."""
    if isinstance(value, bool | float | int | str):
        return value
    if getattr(value, "shape", None) != ():
        return None
    try:
        # Of numpy and torch; `log` has waited for the GPU already.
        found = value.item()
    except Exception:  # noqa: BLE001 - anyone's object raises anything
        return None
    return found if isinstance(found, bool | float | int | str) else None
