"""Makes tickets and rows of a writer, and reads event files with TensorBoard's own reader."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rolecall import Row, RunTicket, testing
from rolecall_tensorboard import plugin
from rolecall_tensorboard.args import TensorBoardArgs
from rolecall_tensorboard.run import TensorBoardRun


def pytest_configure(config: pytest.Config) -> None:
    """tensorboardX 2.6 and the protobuf 3.20 that it needs deprecate each other at import."""
    config.addinivalue_line("filterwarnings", "ignore:Call to deprecated create function:Warning")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The backend's own folder, which does not exist yet."""
    return tmp_path / "backends" / "tensorboard"


@pytest.fixture
def ticket(folder: Path) -> Callable[..., RunTicket]:
    def make(writer: str | None = "explorer/0", run_id: str = "k3x9", **config: Any) -> RunTicket:
        return RunTicket(
            project="gsm8k",
            name="grpo-1_explorer_0",
            group="grpo-1",
            run_id=run_id,
            backend_run_id=None,
            shared=False,
            primary=True,
            writer=writer,
            role=writer and writer.partition("/")[0],
            config=config,
            directory=folder,
            pid=4711,
        )

    return make


@pytest.fixture
def open_run(ticket: Callable[..., RunTicket]) -> Iterator[Callable[..., TensorBoardRun]]:
    runs: list[TensorBoardRun] = []

    def make(writer: str = "explorer/0", log_dir: str = ".", **ticketed: Any) -> TensorBoardRun:
        run = plugin.open_run(ticket(writer, **ticketed), TensorBoardArgs(log_dir=Path(log_dir)))
        assert isinstance(run, TensorBoardRun)
        runs.append(run)
        return run

    yield make
    for run in runs:
        with suppress(OSError):
            run.close("finished")


@pytest.fixture
def row() -> Callable[..., Row]:
    def make(seq: int, metrics: Mapping[str, float] | None = None, **fields: Any) -> Row:
        values = {"reward": seq / 2} if metrics is None else metrics
        return testing.row(**{"seq": seq, "writer": "explorer/0", "metrics": values, **fields})

    return make


@pytest.fixture
def accumulate() -> Callable[[str], Any]:
    """Read a directory with TensorBoard's own reader."""

    def load(directory: str) -> Any:
        found = EventAccumulator(directory, size_guidance={"scalars": 0, "tensors": 0})
        found.Reload()
        return found

    return load


@pytest.fixture
def read(accumulate: Callable[[str], Any]) -> Callable[[str], dict[str, list[tuple[int, float]]]]:
    """The scalars in a directory, by tag."""

    def scalars(directory: str) -> dict[str, list[tuple[int, float]]]:
        found = accumulate(directory)
        return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}

    return scalars


@pytest.fixture
def read_text(accumulate: Callable[[str], Any]) -> Callable[[str], dict[str, list[tuple[int, str]]]]:
    """The strings in a directory, by tag."""

    def texts(directory: str) -> dict[str, list[tuple[int, str]]]:
        found = accumulate(directory)
        events = {tag: found.Tensors(tag) for tag in found.Tags()["tensors"]}
        return {
            tag: [(event.step, event.tensor_proto.string_val[0].decode()) for event in tensors]
            for tag, tensors in events.items()
        }

    return texts
