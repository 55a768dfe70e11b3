"""Ten scripts record the same with wandb itself and with `rolecall.compat.wandb`."""

from __future__ import annotations

from pathlib import Path

import pytest
from two_sides import SCRIPTS, Recorded, directories, with_rolecall, with_wandb

pytestmark = [pytest.mark.compat]
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py"))


def test_there_are_ten_scripts() -> None:
    assert len(NAMES) == 10


@pytest.mark.parametrize("name", NAMES)
def test_script_records_the_same(name: str, tmp_path: Path) -> None:
    theirs = with_wandb(name, tmp_path / "theirs")
    ours = with_rolecall(name, tmp_path / "ours", "local,tensorboard")
    assert len(theirs) == len(ours) > 0
    for their, our, directory in zip(theirs, ours, directories(tmp_path / "ours"), strict=True):
        compare(their, our)
        compare_tensorboard(our, directory)


def compare(their: Recorded, our: Recorded) -> None:
    assert our.points == their.points
    assert our.media == their.media
    assert our.tables == their.tables
    assert our.config == their.config
    assert our.tags == their.tags
    assert our.files == their.files
    assert our.about["project"] == their.about["project"]
    assert their.about["name"] in {"", our.about["name"]}
    # Every tracker shows the last value of a metric, also where wandb was told to show another one.
    assert {key: our.summary.get(key) for key in their.summary} == pytest.approx(their.summary)


def compare_tensorboard(our: Recorded, directory: Path) -> None:
    """The numbers are in TensorBoard, at the same steps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, list[tuple[float, float]]] = {}
    for folder in {path.parent for path in directory.rglob("events.out.tfevents*")}:
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, []).extend((event.step, event.value) for event in events.Scalars(tag))
    for key, points in our.points.items():
        numbers = [(x, value) for x, value in points if isinstance(value, int | float)]
        held = [(x, value) for x, value in found.get(key, []) if abs(value) < float("inf")]
        assert sorted(held) == [pytest.approx(point, rel=1e-6) for point in sorted(numbers)], key
