"""What trackio holds of a run, read by trackio itself."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rolecall import Media, Rejected, Row, RunGone, TableData, Unavailable
from rolecall_trackio.run import TrackioRun

Read = Callable[..., dict[str, Any]]
Open = Callable[..., TrackioRun]
MakeRow = Callable[..., Row]


def test_rows_keep_step_time_and_keys(open_run: Open, row: MakeRow, read: Read) -> None:
    run = open_run()
    run.log([row(1, {"reward/mean": 0.5, "count": 2**62}, step=7, time=1.7e9 + 0.25, text={"note": "hi"})])
    run.flush(10.0)
    assert read()["rows"][1:] == [
        {"reward/mean": 0.5, "count": 2**62, "note": "hi", "step": 7, "timestamp": "2023-11-14T22:13:20.250000+00:00"}
    ]


def test_numbers_that_json_has_not(open_run: Open, row: MakeRow, read: Read) -> None:
    run = open_run()
    run.log([row(1, {"nan": float("nan"), "up": float("inf"), "down": float("-inf"), "far": 1e300})])
    run.flush(10.0)
    held = read()["rows"][-1]
    assert repr([held[key] for key in ("nan", "up", "down", "far")]) == "[nan, inf, -inf, 1e+300]"


def test_keys_of_columns_are_renamed(open_run: Open, row: MakeRow, read: Read) -> None:
    """As `trackio.Run.log` does: a metric `step` would be hidden by the row's step."""
    run = open_run()
    run.log([row(1, {"step": 5.0, "__step": 6.0, "time": 7.0, "a/step": 8.0})])
    run.flush(10.0)
    held = read()["rows"][-1]
    assert held["step"] == 1
    assert {key: held[key] for key in held if key not in ("step", "timestamp")} == {
        "__step": 5.0,
        "____step": 6.0,
        "__time": 7.0,
        "a/step": 8.0,
    }


def test_run_has_config_group_and_start(open_run: Open, read: Read) -> None:
    run = open_run(tags=("a",), config={"lr": 0.1, "seed": 2**70, "path": Path("x"), "model": {"layers": 3}})
    run.end_at(1.7e9 + 60)
    run.close("finished")
    found = read()
    assert found["runs"] == [{"id": "k3x9", "name": "grpo-1", "created_at": "2023-11-14T22:13:20.000000+00:00"}]
    assert found["config"] == {
        "lr": 0.1,
        "seed": str(2**70),
        "path": "x",
        "model": {"layers": 3},
        "tags": ["a"],
        "status": "finished",
        "ended": "2023-11-14T22:14:20.000000+00:00",
        "_Group": "grpo",
        "_Created": "2023-11-14T22:13:20.000000+00:00",
    }


def test_reopened_run_is_running(open_run: Open, read: Read) -> None:
    open_run().close("failed")
    run = open_run()
    config = read()["config"]
    assert (config["status"], config["ended"]) == ("running", None)
    run.end_at(1.7e9 + 60)
    run.close("killed")
    config = read()["config"]
    assert (config["status"], config["ended"]) == ("killed", "2023-11-14T22:14:20.000000+00:00")


def test_configs_of_roles_are_merged(open_run: Open, read: Read) -> None:
    open_run(shared=True, writer=None)
    joined = open_run(shared=True, primary=False, backend_run_id="k3x9")
    joined.merge_config({"explorer/0": {"lr": 0.2}})
    joined.merge_config({"explorer/0": {"lr": 0.2}, "trainer": {"lr": 0.3}})
    joined.close("finished")
    config = read()["config"]
    assert (config["lr"], config["explorer/0"], config["trainer"]) == (0.1, {"lr": 0.2}, {"lr": 0.3})
    assert config["status"] == "running", "only the primary ends it"


def test_row_that_comes_again_is_there_once(open_run: Open, row: MakeRow, read: Read) -> None:
    for last in (10, 15):
        run = open_run()
        run.log([row(seq) for seq in range(1, last + 1)])
        run.flush(10.0)
    assert [each["step"] for each in read()["rows"] if "reward" in each] == [*range(1, 16)]
    assert open_run().held("explorer/0", 1) == [(1, 15)]


def test_held_are_ranges_of_one_session(open_run: Open, row: MakeRow) -> None:
    run = open_run()
    run.log([row(seq) for seq in (1, 2, 4, 5, 10, 9)])
    run.log([row(3, session=2), row(7, writer="explorer/01"), row(8, session=11)])
    assert run.held("explorer/0", 1) == [], "they are not in the database yet"
    run.flush(10.0)
    assert run.held("explorer/0", 1) == [(1, 2), (4, 5), (9, 10)]
    assert run.held("explorer/0", 2) == [(3, 3)]


def test_rows_are_written_before_too_many_wait(open_run: Open, row: MakeRow) -> None:
    run = open_run()
    run.log([row(seq) for seq in range(1, 2_001)])
    assert run.held("explorer/0", 1) == [(1, 2_000)]


def test_keys_that_are_not_unicode_are_rejected(open_run: Open, row: MakeRow) -> None:
    run = open_run()
    bad = row(2, {"\ud800": 1.0})
    with pytest.raises(Rejected) as caught:
        run.log([row(1), bad, row(3)])
    assert list(caught.value.rows) == [bad]
    run.flush(10.0)
    assert run.held("explorer/0", 1) == [(1, 1), (3, 3)]


def test_table_is_one_of_trackios(open_run: Open, row: MakeRow, read: Read) -> None:
    table = TableData(name="samples", columns=("prompt", "n", "n"), rows=(("2+2", 1, None), ("a|b", 2.5, True)))
    run = open_run()
    run.log_table(row(1, {}, table=table))
    run.flush(10.0)
    rows = [{"prompt": "2+2", "n": 1, "n_2": None}, {"prompt": "a|b", "n": 2.5, "n_2": True}]
    assert read()["rows"][-1]["samples"] == {"_type": "trackio.table", "_value": rows}


@pytest.mark.parametrize(("kind", "mime"), [("image", "image/png"), ("audio", "audio/wav"), ("html", "text/html")])
def test_media_are_kept_once(open_run: Open, row: MakeRow, read: Read, folder: Path, kind: Any, mime: str) -> None:
    file = folder.parents[1] / "bytes"
    file.write_bytes(b"some bytes")
    media = tuple(Media(key="m", kind=kind, path=file, mime=mime, caption=caption) for caption in ("one", ""))
    for _ in range(2):
        run = open_run()
        run.log_media(row(1, {}, step=3, media=media))
        run.flush(10.0)
    held = read()["rows"][-1]
    assert [(held[key]["_type"], held[key]["caption"]) for key in ("m/0", "m/1")] == [
        (f"trackio.{kind}", "one"),
        (f"trackio.{kind}", None),
    ]
    files = [folder / "media" / held[key]["file_path"] for key in ("m/0", "m/1")]
    assert {path.read_bytes() for path in files} == {b"some bytes"}
    assert sorted(path for path in (folder / "media").rglob("*") if path.is_file()) == files


def test_histogram_keeps_bins(open_run: Open, row: MakeRow, read: Read) -> None:
    run = open_run()
    run.log_media(row(1, {}, media=(Media(key="h", kind="histogram", counts=(1.0, 2.0), edges=(0.0, 0.5, 1.0)),)))
    run.flush(10.0)
    assert read()["rows"][-1]["h"] == {"_type": "trackio.histogram", "bins": [0.0, 0.5, 1.0], "values": [1.0, 2.0]}


def test_plotly_figure_is_rejected(open_run: Open, row: MakeRow, tmp_path: Path) -> None:
    figure = Media(key="f", kind="figure", path=tmp_path / "f.json", mime="application/json")
    with pytest.raises(Rejected, match="figures of Plotly"):
        open_run().log_media(row(1, {}, media=(figure,)))


def test_media_stay_in_their_folder(open_run: Open, row: MakeRow, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "bytes"
    file.touch()
    image = Media(key="m", kind="image", path=file, mime="image/png")
    open_run(name="../../../x", project="../p").log_media(row(1, {}, media=(image,)))
    (kept,) = tmp_path.rglob("*.png")
    assert kept.resolve().is_relative_to((folder / "media").resolve())


def test_broken_database_loses_no_row(open_run: Open, row: MakeRow, folder: Path) -> None:
    run = open_run()
    run.log([row(1)])
    database = (folder / "gsm8k.db").rename(folder / "away")
    (folder / "gsm8k.db").write_bytes(b"no database" * 1000)
    with pytest.raises(Unavailable, match=r"trackio: .*gsm8k.db: file is not a database"):
        run.flush(10.0)
    database.rename(folder / "gsm8k.db")
    run.log([row(1), row(2)])
    run.flush(10.0)
    assert run.held("explorer/0", 1) == [(1, 2)]


def test_deleted_run_is_gone(open_run: Open, folder: Path) -> None:
    open_run()
    open_run(backend_run_id="k3x9")
    with closing(sqlite3.connect(folder / "gsm8k.db")) as db, db:
        db.execute("DELETE FROM metrics")
    with pytest.raises(RunGone, match="has no run k3x9"):
        open_run(backend_run_id="k3x9")
