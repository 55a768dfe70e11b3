"""What the files of an offline run hold, read by the SDK itself."""

from __future__ import annotations

import json
import math
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rolecall import Media, Rejected, Row, TableData, Unavailable

Read = Callable[..., Any]
Open = Callable[..., Any]
MakeRow = Callable[..., Row]


def test_rows_keep_steps_and_times(open_run: Open, row: MakeRow, read: Read) -> None:
    run = open_run()
    run.log([row(1, {"reward/mean": 0.5, "count": 2**62}, step=7, time=1.7e9 + 0.25)])
    run.flush(10.0)
    assert read().points == {"reward/mean": {7: (0.5, 1.7e9 + 0.25)}, "count": {7: (float(2**62), 1.7e9 + 0.25)}}


def test_numbers_that_json_has_not(open_run: Open, row: MakeRow, read: Read) -> None:
    run = open_run()
    run.log([row(1, {"nan": math.nan, "up": math.inf, "down": -math.inf, "far": 1e300, "yes": True})])
    run.flush(10.0)
    held = read()
    assert repr([held.points[key][1][0] for key in ("nan", "up", "down", "far", "yes")]) == (
        "[nan, inf, -inf, 1e+300, 1.0]"
    )


def test_flushed_rows_are_in_the_file(open_run: Open, row: MakeRow, read: Read) -> None:
    """Before the run ends: the SDK itself writes them when it ends."""
    run = open_run()
    run.log([row(seq) for seq in range(1, 2_001)])
    run.flush(10.0)
    assert read().steps("reward") == [(seq, seq / 2) for seq in range(1, 2_001)]
    assert read().states == []


def test_steps_of_keys_are_independent(open_run: Open, row: MakeRow, read: Read) -> None:
    run = open_run()
    run.log([row(1, {"a": 1.0}, step=100), row(2, {"b": 2.0}, step=3), row(3, {"a": 3.0}, step=50)])
    run.flush(10.0)
    assert (read().steps("a"), read().steps("b")) == ([(50, 3.0), (100, 1.0)], [(3, 2.0)])


def test_a_step_keeps_the_first_value(open_run: Open, row: MakeRow, read: Read) -> None:
    for value in (1.0, 2.0):
        run = open_run()
        run.log([row(1, {"a": value}), row(2, {"a": value}, step=1)])
        run.close("finished")
    assert read().steps("a") == [(1, 1.0)]
    assert len(read().folders) == 2


def test_keys_that_swanlab_refuses(open_run: Open, row: MakeRow, read: Read) -> None:
    run = open_run()
    keys = ["/a/", "a", ".a", "a\nb", "__swanlab__.a", "k" * 600, "ü @#%[]"]
    run.log([row(1, {key: float(at) for at, key in enumerate(keys)})])
    run.flush(10.0)
    held = read()
    assert sorted(value for values in held.points.values() for value, _ in values.values()) == [0, 1, 2, 3, 4, 5, 6]
    assert {"a", "ü @#%[]"} < held.points.keys()
    assert all(len(key) <= 512 and not key.startswith(("__swanlab__", ".", "/")) for key in held.points)


def test_run_has_name_group_tags_and_config(open_run: Open, read: Read) -> None:
    run = open_run(tags=("a",), config={"lr": 0.1, "seed": 2**70, "path": Path("x"), "model": {"layers": 3}})
    run.merge_config({"extra": 1})
    run.close("failed")
    held = read()
    (start,) = held.starts
    assert (start.project, start.name, start.group, list(start.tags)) == ("gsm8k", "grpo-1", "grpo", ["a"])
    config = yaml.safe_load((held.folders[0] / "files" / "config.yaml").read_text())
    assert {key: each["value"] for key, each in config.items()} == {
        "lr": 0.1,
        "seed": 2**70,
        "path": "x",
        "model": {"layers": 3},
        "extra": 1,
    }


@pytest.mark.parametrize(("status", "state"), [("finished", 1), ("failed", 2), ("killed", 3)])
def test_status_is_kept(open_run: Open, read: Read, status: str, state: int) -> None:
    from swanlab.proto.swanlab.run.v1 import run_pb2

    open_run().close(status)
    names = ("RUN_STATE_FINISHED", "RUN_STATE_CRASHED", "RUN_STATE_ABORTED")
    assert read().states == [getattr(run_pb2, names[state - 1])]


def test_several_runs_in_a_process(open_run: Open, row: MakeRow, read: Read) -> None:
    """As `rolecall deliver` has them."""
    runs = [open_run(run_id=f"run-{at}") for at in range(3)]
    for at, run in enumerate(runs):
        run.log([row(1, {"a": float(at)})])
    for run in runs:
        run.close("finished")
    assert [read(f"run-{at}").steps("a") for at in range(3)] == [[(1, 0.0)], [(1, 1.0)], [(1, 2.0)]]


def test_axes_are_of_define_metric(open_run: Open, row: MakeRow, read: Read) -> None:
    """The definition comes before the first point of its key; the axis' own points are rows'."""
    run = open_run(shared=True)
    run.define({"explorer/0/reward": "explorer/0/step"})
    run.log([row(1, {"explorer/0/reward": 0.5, "explorer/0/step": 5, "other": 1.0}, step=5)])
    run.flush(10.0)
    assert read().axes == {"explorer/0/reward": "explorer/0/step"}
    assert (read().steps("explorer/0/reward"), read().steps("explorer/0/step")) == ([(5, 0.5)], [(5, 5.0)])


def test_strings_are_texts(open_run: Open, row: MakeRow, read: Read) -> None:
    run = open_run()
    run.log([row(1, {}, text={"note": "hi, ü"}), row(2, {"note": 2.0}), row(3, {}, text={"note": ""})])
    run.flush(10.0)
    assert read().media["note"] == {1: [("hi, ü".encode(), "")], 3: [(b"", "")]}
    assert read().steps("note_number") == [(2, 2.0)]


def test_table_is_one_of_swanlabs(open_run: Open, row: MakeRow, read: Read) -> None:
    table = TableData(name="samples", columns=("prompt", "n"), rows=(("2+2", 1), ("a|b", None), ("c", math.nan)))
    run = open_run()
    run.log_table(row(1, {}, table=table))
    run.flush(10.0)
    ((content, _),) = read().media["samples"][1]
    assert json.loads(content) == {
        "_swanLab": "table",
        "colDefs": [{"field": "prompt"}, {"field": "n"}],
        "rowData": [{"prompt": "2+2", "n": 1}, {"prompt": "a|b", "n": None}, {"prompt": "c", "n": None}],
    }


@pytest.mark.parametrize(
    ("kind", "mime"),
    [
        ("image", "image/png"),
        ("figure", "image/png"),
        ("audio", "audio/wav"),
        ("video", "image/gif"),
        ("html", "text/html"),
    ],
)
def test_media_are_kept_as_they_are(
    open_run: Open, row: MakeRow, read: Read, tmp_path: Path, kind: Any, mime: str
) -> None:
    file = tmp_path / "bytes"
    file.write_bytes(content := b"GIF89a some bytes")
    media = tuple(Media(key="m", kind=kind, path=file, mime=mime, caption=caption) for caption in ("one", ""))
    run = open_run()
    run.log_media(row(1, {}, step=3, media=media))
    run.flush(10.0)
    assert read().media == {"m": {3: [(content, "one"), (content, "")]}}


def test_histogram_is_a_chart_of_bars(open_run: Open, row: MakeRow, read: Read) -> None:
    run = open_run()
    run.log_media(row(1, {}, media=(Media(key="h", kind="histogram", counts=(1.0, 2.0), edges=(0.0, 0.5, 1.0)),)))
    run.flush(10.0)
    ((content, _),) = read().media["h"][1]
    chart = json.loads(content)
    assert chart["xAxis"][0]["data"] == ["0 to 0.5", "0.5 to 1"]
    assert chart["series"][0]["data"] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("kind", "mime", "size"),
    [("figure", "application/json", 10), ("video", "video/mp4", 10), ("image", "image/png", 10 * 1024**2 + 1)],
)
def test_other_media_are_rejected(
    open_run: Open, row: MakeRow, tmp_path: Path, kind: Any, mime: str, size: int
) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(size))
    with pytest.raises(Rejected, match="swanlab does not take"):
        open_run().log_media(row(1, {}, media=(Media(key="m", kind=kind, path=file, mime=mime),)))


def test_steps_and_strings_that_are_rejected(open_run: Open, row: MakeRow, read: Read) -> None:
    run = open_run()
    bad = [row(2, step=-1), row(3, step=2**48 + 1), row(4, {"\ud800": 1.0}), row(5, {}, text={"a": "\ud800"})]
    with pytest.raises(Rejected) as caught:
        run.log([row(1), *bad, row(6, step=2**48)])
    assert list(caught.value.rows) == bad
    run.flush(10.0)
    assert [step for step, _ in read().steps("reward")] == [1, 2**48]


def test_full_disk_loses_no_row(open_run: Open, row: MakeRow, read: Read) -> None:
    """No file may grow; then the run goes on in another folder, with the rows that come again."""
    run = open_run()
    run.log([row(1)])
    run.flush(10.0)
    file, limits = run._core._store._fp, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises((Unavailable, OSError), match="File too large"):
            run.log([row(seq) for seq in range(2, 2_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        file.close()
    run.log([row(seq) for seq in range(2, 2_000)])
    run.flush(10.0)
    assert [step for step, _ in read().steps("reward")] == list(range(1, 2_000))
    assert len(read().folders) == 2
