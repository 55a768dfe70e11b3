"""What TensorBoard reads of the rows, strings, tables and configs that a run was given."""

from __future__ import annotations

import errno
import logging
import math
import os
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rolecall import (
    Rejected,
    Row,
    SupportsConfig,
    SupportsProgress,
    SupportsSummary,
    SupportsTables,
    SupportsTags,
    TableData,
    Unavailable,
)
from rolecall_tensorboard.eventfile import EventFile
from rolecall_tensorboard.records.markdown import MOST_ROWS, table_text
from rolecall_tensorboard.run import TensorBoardRun

Read = Callable[[str], dict[str, list[tuple[int, float]]]]
Open = Callable[..., TensorBoardRun]
MakeRow = Callable[..., Row]

Texts = Callable[[str], dict[str, list[tuple[int, str]]]]


def test_rows_are_read_back(open_run: Open, row: MakeRow, read: Read) -> None:
    run = open_run()
    run.log([row(seq, {"reward": seq / 2, "len": seq}) for seq in range(1, 101)])
    run.flush(1.0)
    found = read(run.id)
    assert found == {
        "reward": [(seq, seq / 2) for seq in range(1, 101)],
        "len": [(seq, float(seq)) for seq in range(1, 101)],
    }


def test_row_keeps_the_time_of_logging(open_run: Open, row: MakeRow, accumulate: Callable[[str], Any]) -> None:
    run = open_run()
    run.log([row(1, time=1234567890.25)])
    assert accumulate(run.id).Scalars("reward")[0].wall_time == 1234567890.25


@pytest.mark.parametrize(("writer", "below"), [("explorer/0", "explorer/0"), ("trainer", "trainer")])
def test_each_writer_has_a_directory(open_run: Open, folder: Path, writer: str, below: str) -> None:
    run = open_run(writer)
    assert run.id == str(folder / below)
    (file,) = Path(run.id).iterdir()
    assert f".{writer.replace('/', '-')}.4711." in file.name


def test_url_is_command_for_whole_job(open_run: Open, folder: Path) -> None:
    run = open_run(log_dir="my runs")
    assert run.url == f"tensorboard --logdir '{folder}/my runs' --samples_per_plugin scalars=100000,text=100"


def test_not_number_and_infinities_are_kept(open_run: Open, row: MakeRow, read: Read) -> None:
    run = open_run()
    run.log([row(1, {"nan": math.nan, "up": math.inf, "down": -math.inf})])
    found = {tag: points[0][1] for tag, points in read(run.id).items()}
    assert math.isnan(found["nan"])
    assert (found["up"], found["down"]) == (math.inf, -math.inf)


def test_overflow_of_32_bits_warns_once(
    open_run: Open, row: MakeRow, read: Read, caplog: pytest.LogCaptureFixture
) -> None:
    run = open_run()
    with caplog.at_level(logging.WARNING):
        run.log([row(seq, {"loss": 1e300, "inf": math.inf, "fine": 3.4e38}) for seq in (1, 2)])
    assert [record.getMessage() for record in caplog.records] == [
        "tensorboard: loss = 1e+300 does not fit in 32 bits; TensorBoard shows it as infinity"
    ]
    assert read(run.id)["loss"] == [(1, math.inf), (2, math.inf)]


KEYS = ["a@b", "a b", "a#b", "a_b", "/a_b", "a//b", "ü/平均", "<b>", "50%", "x?y&z=1", "reward", "k" * 300]


def test_no_two_keys_collide(open_run: Open, row: MakeRow, read: Read) -> None:
    run = open_run()
    run.log([row(1, {key: float(place) for place, key in enumerate(KEYS)})])
    assert read(run.id) == {key: [(1, float(place))] for place, key in enumerate(KEYS)}


def test_only_the_unencodable_row_is_rejected(open_run: Open, row: MakeRow, read: Read) -> None:
    run = open_run()
    wrong = [row(2, step=2**63), row(3, {"\ud800": 1.0})]
    with pytest.raises(Rejected) as caught:
        run.log([row(1), *wrong, row(4)])
    assert list(caught.value.rows) == wrong
    assert read(run.id) == {"reward": [(1, 0.5), (4, 2.0)]}


def test_repeated_row_is_written_once(open_run: Open, row: MakeRow, read: Read) -> None:
    run = open_run()
    run.log([row(seq) for seq in range(1, 6)])
    run.log([row(seq) for seq in range(3, 9)])
    assert [step for step, _ in read(run.id)["reward"]] == list(range(1, 9))


def test_empty_row_counts_as_held(open_run: Open, row: MakeRow) -> None:
    run = open_run()
    run.log([row(1, {})])
    run.log([])
    assert run.held("explorer/0", 1) == [(1, 1)]


def test_strings_are_text_beside_the_metrics(open_run: Open, row: MakeRow, read: Read, read_text: Texts) -> None:
    run = open_run()
    run.log([row(1, {"loss": 0.5}, text={"note": "a|b *x*\n平", "loss": "low"}), row(2, {"loss": 0.25})])
    run.log([row(3, {}, text={"note": ""}), row(4, {"loss": 0.125})])
    assert read(run.id) == {"loss": [(1, 0.5), (2, 0.25), (4, 0.125)]}
    assert read_text(run.id) == {"note/text_summary": [(1, "a|b *x*\n平"), (3, "")], "loss/text_summary": [(1, "low")]}
    assert run.held("explorer/0", 1) == [(1, 4)]


def test_repeated_string_row_is_written_once(open_run: Open, row: MakeRow, read_text: Texts) -> None:
    rows = [row(seq, {}, text={"note": f"at {seq}"}) for seq in (1, 2, 3)]
    open_run().log(rows[:2])
    run = open_run()
    run.log(rows)
    assert read_text(run.id)["note/text_summary"] == [(1, "at 1"), (2, "at 2"), (3, "at 3")]


def test_string_with_lone_surrogate_is_kept(open_run: Open, row: MakeRow, read_text: Texts) -> None:
    run = open_run()
    run.log([row(1, {}, text={"sample": "end \ud83d"})])
    assert read_text(run.id)["sample/text_summary"] == [(1, "end \\ud83d")]


def test_tables_are_text(open_run: Open, row: MakeRow, read_text: Texts) -> None:
    run = open_run()
    table = TableData(name="samples", columns=("prompt", "reward"), rows=(("1+1", 0.5), (None, True)))
    run.log_table(row(1, {}, step=7, table=table))
    (found,) = read_text(run.id)["samples/text_summary"]
    assert found == (7, "| prompt | reward |\n|---|---|\n| 1&#43;1 | 0&#46;5 |\n|  | True |")
    assert run.held("explorer/0", 1) == [(1, 1)]


def test_lone_surrogate_is_shown_as_escape(open_run: Open, row: MakeRow, read_text: Texts) -> None:
    run = open_run(note="\ud800")
    run.log_table(row(1, {}, table=TableData(name="samples", columns=("c",), rows=(("平\ud800",),))))
    assert read_text(run.id)["samples/text_summary"] == [(1, "| c |\n|---|\n| 平\\ud800 |")]
    assert "\\ud800" in read_text(run.id)["run_config/text_summary"][0][1]


CELLS = ["a|b", "<script>alert(1)</script>", "*x* _y_ `z`", "[l](http://x)", "\\", "&amp;", "two\nlines", "    in"]


@pytest.mark.filterwarnings("ignore:html5lib's sanitizer is deprecated:DeprecationWarning")
def test_cells_are_shown_as_they_are() -> None:
    """Through the renderer of TensorBoard's text tab."""
    from tensorboard.plugin_util import markdown_to_safe_html

    shown: list[str] = []

    class Cells(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag == "td":
                shown.append("")
            elif tag == "br":
                shown[-1] += "\n"
            else:
                assert tag in {"table", "thead", "tbody", "tr", "th"}

        def handle_data(self, data: str) -> None:
            if shown:
                shown[-1] += data

    table = TableData(name="t", columns=("c",), rows=tuple((cell,) for cell in CELLS))
    Cells().feed(markdown_to_safe_html(table_text(table)))
    assert [cell.strip() for cell in shown] == [cell.strip() for cell in CELLS]


def test_long_table_says_where_rest_is() -> None:
    text = table_text(TableData(name="t", columns=("c",), rows=((1,),) * (MOST_ROWS + 5)))
    assert text.count("\n| 1 |") == MOST_ROWS
    assert text.endswith("\n\n5 more rows are in the journal.")


def test_config_is_text_at_step_0(open_run: Open, read_text: Texts) -> None:
    run = open_run(lr=0.1, model={"name": "<b>"})
    ((step, text),) = read_text(run.id)["run_config/text_summary"]
    assert step == 0
    assert '    "lr": 0.1,\n' in text
    assert '"name": "<b>"' in text


def test_abilities(open_run: Open) -> None:
    run = open_run()
    assert isinstance(run, SupportsTables)
    assert isinstance(run, SupportsProgress)
    assert isinstance(run, SupportsConfig)
    assert isinstance(run, SupportsSummary)
    assert isinstance(run, SupportsTags)


def test_closing_twice_is_allowed(open_run: Open, row: MakeRow, read: Read) -> None:
    run = open_run()
    run.log([row(1)])
    run.close("failed")
    run.close("finished")
    assert read(run.id) == {"reward": [(1, 0.5)]}


# ------------------------------------------------------------------- details


def test_details_are_text(open_run: Open, row: MakeRow, read_text: Texts) -> None:
    run = open_run(lr=0.1)
    run.log([row(1)])
    run.merge_config({"lr": 0.2, "seed": 1})
    run.merge_summary({"best": 0.5})
    run.log([row(2)])
    run.merge_summary({"best": 0.9, "note": "a|b"})
    run.set_tags(["baseline", "debug"])
    run.flush(1.0)
    found = read_text(run.id)
    assert {tag: [step for step, _ in points][-1] for tag, points in found.items()} == {
        "run_config/text_summary": 0,
        "run_summary/text_summary": 0,
        "run_tags/text_summary": 0,
    }
    assert '"lr": 0.2' in found["run_config/text_summary"][-1][1]
    assert '"seed": 1' in found["run_config/text_summary"][-1][1]
    assert "| best | 0&#46;9 |" in found["run_summary/text_summary"][-1][1]
    assert "| note | a&#124;b |" in found["run_summary/text_summary"][-1][1]
    assert "| debug |" in found["run_tags/text_summary"][-1][1]


def test_details_are_no_rows(open_run: Open, row: MakeRow, read: Read) -> None:
    """The ledger counts rows alone, in this process and in one that opens the files later."""
    run = open_run(lr=0.1)
    for seq in (1, 3, 5):
        run.log([row(seq)])
        run.merge_summary({"best": seq})
    run.flush(1.0)
    assert run.held("explorer/0", 1) == [(1, 1), (3, 3), (5, 5)]
    run.close("finished")
    again = open_run(lr=0.1)
    assert again.held("explorer/0", 1) == [(1, 1), (3, 3), (5, 5)]
    again.log([row(seq) for seq in (3, 5, 6)])
    again.flush(1.0)
    assert [step for step, _ in read(again.id)["reward"]] == [1, 3, 5, 6]


def test_details_come_after_a_restart(open_run: Open, row: MakeRow, read_text: Texts) -> None:
    """TensorBoard drops what a restart from a checkpoint repeats, so it is said again."""
    run = open_run(lr=0.1)
    run.log([row(seq) for seq in (1, 2, 3)])
    run.merge_config({"lr": 0.2})
    run.merge_summary({"best": 0.9})
    run.set_tags(["baseline"])
    run.log([row(1, session=2, step=0)])
    run.flush(1.0)
    found = read_text(run.id)
    assert '"lr": 0.2' in found["run_config/text_summary"][-1][1]
    assert found["run_summary/text_summary"]
    assert found["run_tags/text_summary"]


def test_full_disk_takes_no_detail(
    open_run: Open, row: MakeRow, monkeypatch: pytest.MonkeyPatch, read_text: Texts
) -> None:
    run = open_run()
    run.log([row(1)])

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), run.id)

    with monkeypatch.context() as patch:
        patch.setattr(EventFile, "append", refuse)
        with pytest.raises(Unavailable):
            run.merge_summary({"best": 0.9})
    run.merge_summary({"best": 0.9})
    run.flush(1.0)
    assert run.held("explorer/0", 1) == [(1, 1)]
    assert len(read_text(run.id)["run_summary/text_summary"]) == 1
