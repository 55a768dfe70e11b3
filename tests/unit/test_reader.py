"""Rows are read back from a journal, by us and by anybody, and damage costs what it hits."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from zlib import crc32

import duckdb
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from journal_files import HEADER, damages, plant, read_all, rows

from rolecall.rows import Row, TableData
from rolecall.states import State
from rolecall.store.codec import Damage, encode, last_seq
from rolecall.store.journal import JournalWriter, put_attachment
from rolecall.store.layout import Layout
from rolecall.store.lease import Session, claim, end, succeed, this_process
from rolecall.store.reader import End, JournalReader, read_rows, read_to_end

EXAMPLES = settings(deadline=None, max_examples=60)
SMALL = TableData(name="samples", columns=("i", "text"), rows=((1, "a"), (None, "b")))


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return claim(tmp_path / "explorer", {"writer": "explorer", "config": {"lr": 0.1}}, "it")


def row(seq: int, /, **settings: Any) -> dict[str, Any]:
    return {"seq": seq, "step": seq, "time": 1764000000.0, "data": {"loss": 0.5}, **settings}


# --------------------------------------------------------- for every reader


def write_for_others(session: Session) -> None:
    journal = JournalWriter(session)
    journal.append({"loss": 0.5, "n": 2**62}, 1)
    journal.append({"loss": math.nan, "up": math.inf, "down": -math.inf}, 2)
    journal.append({"loss": -0.0, "note": 'a "quoted"\nline \u2603', "deep": {"x": 1e300}}, 3, more={"commit": True})
    journal.append({}, 4, values=[SMALL])
    journal.end("finished")


def test_standard_json_reads_journals(session: Session) -> None:
    write_for_others(session)
    lines = session.path.read_text(encoding="utf-8").splitlines()
    header, *found, ending = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    assert header["config"] == {"lr": 0.1}
    assert [line["seq"] for line in found] == [1, 2, 3, 4]
    assert found[0]["data"] == {"loss": 0.5, "n": 2**62}
    assert found[1]["data"] == {"loss": "NaN", "up": "Infinity", "down": "-Infinity"}
    assert found[2]["data"]["note"] == 'a "quoted"\nline \u2603'
    assert found[3]["values"][0]["table"]["rows"] == [[1, "a"], [None, "b"]]
    assert (ending["end"], ending["seq"]) == ("finished", 4)


def test_pandas_reads_journals(session: Session) -> None:
    write_for_others(session)
    frame = pd.read_json(session.path, lines=True, dtype=False)
    assert frame["seq"].dropna().tolist() == [1, 2, 3, 4, 4]
    data = pd.json_normalize(frame["data"].dropna().tolist())
    loss = data["loss"].astype(float)
    assert loss[0] == 0.5
    assert math.isnan(loss[1])
    assert data["up"].astype(float)[1] == math.inf
    assert data["down"].astype(float)[1] == -math.inf
    assert data["n"][0] == 2**62
    assert data["deep.x"][2] == 1e300


def test_duckdb_reads_journals(session: Session) -> None:
    write_for_others(session)
    query = """
        select seq, (data ->> '$.loss')::double, (data ->> '$.up')::double, (data ->> '$.n')::bigint
        from read_json(?, format = 'newline_delimited', columns = {seq: 'bigint', data: 'json'})
        where data is not null order by seq
    """
    found = duckdb.execute(query, [str(session.path)]).fetchall()
    assert [line[0] for line in found] == [1, 2, 3]
    assert found[0] == (1, 0.5, None, 2**62)
    assert math.isnan(found[1][1])
    assert found[1][2] == math.inf
    # Without a schema, too.
    count = duckdb.execute("select count(data) from read_json_auto(?)", [str(session.path)]).fetchone()
    assert count == (3,)


def test_values_mean_what_was_logged(session: Session) -> None:
    write_for_others(session)
    first, second, third, fourth = rows(session)
    assert (first.writer, first.session, first.seq, first.step) == ("explorer", 1, 1, 1)
    assert first.metrics == {"loss": 0.5, "n": 2**62}
    assert math.isnan(second.metrics["loss"])
    assert (second.metrics["up"], second.metrics["down"]) == (math.inf, -math.inf)
    assert third.metrics == {"loss": -0.0, "deep/x": 1e300}
    assert third.text == {"note": 'a "quoted"\nline \u2603'}
    assert (third.commit, first.commit) == (True, False)
    assert (fourth.table, fourth.metrics) == (SMALL, {})
    assert read_all(session)[-1].value == End(State.FINISHED, 4)


def deep(levels: int, value: Any) -> Any:
    return {"a": deep(levels - 1, value)} if levels else value


@pytest.mark.parametrize(
    ("value", "metrics", "text"),
    [
        (True, {"x": 1}, {}),
        (False, {"x": 0}, {}),
        (None, {}, {}),
        (7, {"x": 7}, {}),
        (2**63, {"x": 2.0**63}, {}),
        (10**400, {}, {}),
        ("word", {}, {"x": "word"}),
        ("", {}, {"x": ""}),
        ("Infinity", {"x": math.inf}, {}),
        ("infinity", {}, {"x": "infinity"}),
        ({"a": {"b": 0.5}, "c": "t"}, {"x/a/b": 0.5}, {"x/c": "t"}),
        ({}, {}, {}),
        ([0.5], {}, {}),
        (deep(50, 0.5), {"x" + "/a" * 50: 0.5}, {}),
        (deep(51, 0.5), {}, {}),
    ],
    ids=range(15),
)
def test_what_values_mean(tmp_path: Path, value: Any, metrics: dict[str, Any], text: dict[str, str]) -> None:
    session = plant(tmp_path / "w" / "1.jsonl", row(1, data={"x": value}), row(2))
    found = rows(session)
    assert [each.seq for each in found] == [1, 2]
    assert found[0].metrics == metrics
    assert [type(each) for each in found[0].metrics.values()] == [type(each) for each in metrics.values()]
    assert found[0].text == text


# ------------------------------------------------------ sectors and pages


ROWS = 5000


@pytest.fixture(scope="module")
def long_journal(tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, list[Row]]:
    folder = tmp_path_factory.mktemp("journal") / "explorer"
    session = claim(folder, {"writer": "explorer", "config": {"lr": 0.1}}, "it")
    journal = JournalWriter(session)
    for step in range(1, ROWS + 1):
        journal.append({"loss": step / 7, "note": "x" * (step % 50)}, step)
    journal.end("finished")
    return session, rows(session)


def fill(kind: str, size: int, seed: int) -> bytes:
    noise = random.Random(seed).randbytes(size)
    return {
        "zeros": bytes(size),
        "random": noise,
        "newlines": bytes(0x0A if byte < 32 else byte for byte in noise),
        "only newlines": b"\n" * size,
    }[kind]


def numbers(damage: Damage) -> set[int]:
    """Which rows are lost, by what the damage says in words."""
    words = damage.lost.split()
    match words:
        case ["row", seq, "is", "lost"]:
            return {int(seq)}
        case ["rows", first, "to", last, "are", "lost"]:
            return set(range(int(first), int(last) + 1))
        case ["it", "follows", "row", seq]:
            return set(range(int(seq) + 1, ROWS + 1))
        case _:
            assert damage.lost == ""
            return set()


@pytest.mark.parametrize("size", [512, 4096])
@pytest.mark.parametrize("kind", ["zeros", "random", "newlines", "only newlines"])
def test_bad_sector_costs_its_rows(
    long_journal: tuple[Session, list[Row]], size: int, kind: str, tmp_path: Path
) -> None:
    """Each sector and each page in turn: rows with no byte there are read, and readers say which are lost."""
    source, given = long_journal
    data = source.path.read_bytes()
    assert len(given) == ROWS
    offsets = [0]
    for line in data.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    # What the checksums start from depends on the names, so they stay.
    session = Session(tmp_path / "explorer" / "1.jsonl", 1)
    session.path.parent.mkdir()
    session.path.write_bytes(data)
    copy = source.path.with_name("1.header.json")
    session.path.with_name(copy.name).write_bytes(copy.read_bytes())
    here = 0
    with session.path.open("r+b", buffering=0) as file:
        for start in range(0, len(data), size):
            stop = min(start + size, len(data))
            file.seek(start)
            file.write(fill(kind, stop - start, start))
            while offsets[here + 1] <= start:
                here += 1
            hit = {at for at in range(here, ROWS + 2) if offsets[at] < stop and offsets[at + 1] > start}
            # Read what is around it: from two heres before to two heres behind.
            first = max(0, here - 2)
            behind = offsets[min(max(hit) + 3, ROWS + 2)]
            reader = JournalReader("explorer", session, max(0, first - 1))
            found = [entry.value for entry in reader.read(offsets[first], behind - offsets[first])]
            seen = {value.seq: value for value in found if isinstance(value, Row)}
            around = set(range(max(1, first), min(max(hit) + 2, ROWS) + 1))
            lost = around - seen.keys()
            assert lost <= hit, "only rows with bytes there are lost"
            assert all(given[seq - 1] == value for seq, value in seen.items()), "no row is changed"
            said = {seq for value in found if isinstance(value, Damage) for seq in numbers(value)}
            if ROWS + 1 in hit:
                # Then nothing says how many there were; that the end is missing shows by itself.
                assert said >= lost or session.status() is None
            else:
                assert said == lost
            if start < offsets[1]:
                assert session.header()["config"] == {"lr": 0.1}
                assert session.owner() == this_process()
                assert session.status() == "finished"
            file.seek(start)
            file.write(data[start:stop])
    assert session.path.read_bytes() == data


def test_whole_journal_with_bad_sectors(long_journal: tuple[Session, list[Row]], tmp_path: Path) -> None:
    """Read from its start, with three faults at once."""
    source, given = long_journal
    data = bytearray(source.path.read_bytes())
    session = Session(tmp_path / "explorer" / "1.jsonl", 1)
    session.path.parent.mkdir()
    for start in (0, 512 * 100, 512 * 101, 512 * 300):
        data[start : start + 512] = fill("newlines", 512, start)
    session.path.write_bytes(data)
    found = read_all(session)
    seen = [entry.value for entry in found if isinstance(entry.value, Row)]
    lost = {each.seq for each in given} - {each.seq for each in seen}
    said = [numbers(entry.value) for entry in found if isinstance(entry.value, Damage)]
    assert len(said) == 3, "neighbouring sectors are one fault"
    assert set().union(*said) == lost
    assert len(lost) < 40


# ------------------------------------------------------------------- damage


LINES = [
    HEADER,
    row(1, data={"loss": 0.5, 'a "quoted" {"seq":': math.inf}),
    row(2, commit=True),
    {"seq": 3, "step": 3, "time": 1.5, "table": {"name": "t", "columns": ["i"], "rows": [[1]]}},
    row(4, data={"loss": 0.125, "\u2603": 2**60, "note": "\u2603"}),
    row(5, data={"deep": {"seq": 1}}),
]
SEED = Session(Path("explorer/1.jsonl"), 1).seed
SOUND = [encode(line, SEED) for line in LINES]
END = encode({"end": "finished", "seq": 5, "time": 2.5}, SEED)
ENDS = [sum(map(len, SOUND[: count + 1])) for count in range(len(SOUND))]


def read_bytes(data: bytes) -> tuple[list[Row], list[Damage]]:
    with tempfile.TemporaryDirectory() as folder:
        session = Session(Path(folder, "explorer", "1.jsonl"), 1)
        session.path.parent.mkdir()
        session.path.write_bytes(data)
        return rows(session), damages(session)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, ENDS[-1] - 1), st.sampled_from(b'\n\x00 {}"09af\xff') | st.integers(0, 255))
def test_changed_byte_costs_one_row(place: int, new: int) -> None:
    sound = b"".join(SOUND)
    given, _ = read_bytes(sound + END)
    found, _ = read_bytes(sound[:place] + bytes([new]) + sound[place + 1 :] + END)
    hit = sum(place >= end for end in ENDS)
    expected = [each for each in given if each.seq != hit]
    assert [each for each in found if each in expected] == expected
    assert all(each in given for each in found), "damage is never read as a row"


@EXAMPLES
@given(st.integers(0, ENDS[-1]))
def test_cut_journal_keeps_earlier_rows(cut: int) -> None:
    sound = b"".join(SOUND)
    given, _ = read_bytes(sound)
    found, damaged = read_bytes(sound[:cut])
    assert found == [each for each, end in zip(given, ENDS[1:], strict=True) if end <= cut]
    assert not damaged


def test_damage_names_lost_rows(tmp_path: Path) -> None:
    lines = [encode(row(seq), SEED) for seq in range(1, 9)]
    lines[0] = lines[2] = lines[3] = b"damaged\n"
    lines[7] = b"more\nnonsense\n"
    session = plant(tmp_path / "explorer" / "1.jsonl", *lines)
    assert [each.seq for each in rows(session)] == [2, 5, 6, 7]
    lost = [damage.lost for damage in damages(session)]
    assert lost == ["row 1 is lost", "rows 3 to 4 are lost", "it follows row 7"]
    with session.path.open("ab") as file:
        file.write(encode({"end": "finished", "seq": 9}, SEED))
    assert [damage.lost for damage in damages(session)][2] == "rows 8 to 9 are lost"
    (damage, *_) = damages(session)
    assert (damage.path, damage.end - damage.offset) == (session.path, 8)


def test_empty_damage_loses_no_row(tmp_path: Path) -> None:
    session = plant(tmp_path / "w" / "1.jsonl", row(1), b"torn\n", row(2))
    (damage,) = damages(session)
    assert damage.lost == ""


def test_left_out_row_is_not_lost(tmp_path: Path) -> None:
    """A row that cannot be understood is named once: damage after it does not name it again."""
    session = plant(tmp_path / "w" / "1.jsonl", row(1), row(2, step=None), b"damaged\n", row(4), row(5, time=None))
    lost = [damage.lost for damage in damages(session)]
    assert lost == ["row 2 is left out", "row 3 is lost", "row 5 is left out"]


@pytest.mark.parametrize("limit", [1, 100, 1 << 20])
def test_damage_longer_than_one_read(tmp_path: Path, limit: int) -> None:
    session = plant(tmp_path / "w" / "1.jsonl", row(1), b"damaged\n" * 100, row(4), row(5))
    (damage,) = [entry.value for entry in read_all(session, limit) if isinstance(entry.value, Damage)]
    assert (damage.lost, damage.end - damage.offset) == ("rows 2 to 3 are lost", 800)
    assert [each.seq for each in rows(session)] == [1, 4, 5]


def test_read_goes_on_after_damage(tmp_path: Path) -> None:
    session = plant(tmp_path / "w" / "1.jsonl", b"damaged\n", row(1))
    reader = JournalReader("explorer", session)
    first, second = reader.read()
    assert isinstance(first.value, Damage)
    assert [entry.value for entry in reader.read(first.offset)] == [second.value]


def rich(*values: Any, **settings: Any) -> dict[str, Any]:
    """A line whose rows are tables and media."""
    line = row(2, values=list(values), **settings)
    del line["data"]
    return line


DEEP = json.loads("[" * 150 + "]" * 150)
CRAFTED: dict[str, dict[str, Any]] = {
    "seq is a string": row(2, seq="2"),
    "seq is true": row(2, seq=True),
    "seq is a float": row(2, seq=2.0),
    "seq is null": row(2, seq=None),
    "seq is huge": row(2, seq=2**63),
    "step is missing": {"seq": 2, "time": 1.0, "data": {}},
    "step is null": row(2, step=None),
    "step is huge": row(2, step=2**63),
    "step is small": row(2, step=-(2**63) - 1),
    "time is missing": {"seq": 2, "step": 2, "data": {}},
    "time is a string": row(2, time="1764000000.0"),
    "time is huge": row(2, time=10**400),
    "time is nan": row(2, time=math.nan),
    "time is infinite": row(2, time=math.inf),
    "time is true": row(2, time=True),
    "time is null": row(2, time=None),
    "data is null": row(2, data=None),
    "data is a list": row(2, data=[["loss", 0.5]]),
    "data is a string": row(2, data="loss"),
    "data is a number": row(2, data=5),
    "axis is a number": row(2, axis=5),
    "axis is a list": row(2, axis=["a"]),
    "end without a row": {"end": "finished", "seq": None},
    "table is null": rich({"table": None}),
    "table is a string": rich({"table": "file"}),
    "table is a list": rich({"table": ["file"]}),
    "table has no name": rich({"table": {"columns": ["a"], "rows": []}}),
    "table has no rows": rich({"table": {"name": "t", "columns": ["a"]}}),
    "rows are a number": rich({"table": {"name": "t", "columns": ["a"], "rows": 5}}),
    "columns are a number": rich({"table": {"name": "t", "columns": 5, "rows": []}}),
    "rows are ragged": rich({"table": {"name": "t", "columns": ["a", "b"], "rows": [[1, 2], [1]]}}),
    "cell is a mapping": rich({"table": {"name": "t", "columns": ["a"], "rows": [[{}]]}}),
    "cell is nested": rich({"table": {"name": "t", "columns": ["a"], "rows": [[DEEP]]}}),
    "values are null": row(2, values=None),
    "values are a number": row(2, values=5),
    "value is null": rich(None),
    "value is a string": rich("table"),
    "more rows than are said": row(2, values=[{"key": "x", "media": []}]),
    "fewer rows than are said": rich({"key": "x", "media": []}, rows=2),
    "media are null": rich({"key": "x", "media": None}),
    "media have no key": rich({"media": []}),
    "media of no kind": rich({"key": "x", "media": [{"kind": "smell"}]}),
    "media file is missing": rich(
        {"key": "x", "media": [{"kind": "image", "file": {"name": "x", "size": 1, "sum": "0"}}]}
    ),
    "media file is elsewhere": rich(
        {"key": "x", "media": [{"kind": "image", "file": {"name": "../x", "size": 1, "sum": ""}}]}
    ),
    "counts are words": rich({"key": "x", "media": [{"kind": "histogram", "counts": ["many"]}]}),
    "attached is null": row(2, attached=None),
    "attached is a string": row(2, attached="2.json"),
    "attached without a size": row(2, attached={"name": "2.json", "sum": "00000000"}),
}


@pytest.mark.parametrize("crafted", CRAFTED.values(), ids=CRAFTED.keys())
def test_crafted_row_costs_itself_alone(tmp_path: Path, crafted: dict[str, Any]) -> None:
    session = plant(tmp_path / "w" / "1.jsonl", row(1), crafted, row(3))
    assert [each.seq for each in rows(session)] == [1, 3]
    (damage,) = damages(session)
    assert damage.offset == len(encode(HEADER) + encode(row(1)))
    assert damage.lost.endswith("left out")


@pytest.mark.parametrize("line", [{}, {"rolecall": 2}, {"event": "new"}, {"config": {"lr": 1}}], ids=range(4))
def test_lines_of_later_versions_are_skipped(tmp_path: Path, line: dict[str, Any]) -> None:
    session = plant(tmp_path / "w" / "1.jsonl", row(1), line, row(2))
    assert [each.seq for each in rows(session)] == [1, 2]
    assert not damages(session)


@pytest.mark.parametrize("status", ["exploded", ["finished"], None], ids=range(3))
def test_unknown_end_is_a_kill(tmp_path: Path, status: Any) -> None:
    session = plant(tmp_path / "w" / "1.jsonl", row(1), {"end": status, "seq": 1})
    assert read_all(session)[-1].value == End(State.KILLED, 1)


def test_undamaged_lines_may_lack_data(tmp_path: Path) -> None:
    session = plant(tmp_path / "w" / "1.jsonl", {"seq": 1, "step": 1, "time": 1})
    (found,) = rows(session)
    assert (found.metrics, found.text, found.table, found.time) == ({}, {}, None, 1.0)


# -------------------------------------------------------------- attachments


CONTENT = b'{"data":{"loss":0.25}}'
REFERENCE = {"name": "2.json", "size": len(CONTENT), "sum": f"{crc32(CONTENT):08x}"}


def plant_attached(tmp_path: Path, **settings: Any) -> Session:
    attached = {"seq": 2, "step": 2, "time": 1.0, "attached": {**REFERENCE, **settings}}
    session = plant(tmp_path / "w" / "1.jsonl", row(1), attached, row(3))
    session.attachments.mkdir()
    return session


def test_attached_row_is_read(tmp_path: Path) -> None:
    session = plant_attached(tmp_path)
    assert put_attachment(session.attachments, "2.json", CONTENT) == REFERENCE
    assert [each.metrics["loss"] for each in rows(session)] == [0.5, 0.25, 0.5]
    assert not damages(session)


@pytest.mark.parametrize(
    "content",
    [None, CONTENT[:-1], CONTENT + b" ", CONTENT.replace(b"5", b"6"), b"", b"x" * 100_000],
    ids=["missing", "short", "long", "damaged", "empty", "other"],
)
def test_unsound_attachment_costs_its_row(tmp_path: Path, content: bytes | None) -> None:
    session = plant_attached(tmp_path)
    if content is not None:
        (session.attachments / "2.json").write_bytes(content)
    assert [each.seq for each in rows(session)] == [1, 3]
    (damage,) = damages(session)
    assert "its attachment 2.json is " in damage.reason
    assert damage.lost == "row 2 is left out"


@pytest.mark.parametrize(
    "name",
    ["../secret.json", "{root}/secret.json", "./2.json", ".", "..", "", "\x00", "x" * 5000, 5, None],
    ids=["up", "absolute", "dotted", "folder", "above", "empty", "nul", "long", "number", "null"],
)
def test_attachment_names_lead_nowhere(tmp_path: Path, name: Any) -> None:
    (tmp_path / "secret.json").write_bytes(CONTENT)
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "secret.json").write_bytes(CONTENT)
    session = plant_attached(tmp_path, name=name.format(root=tmp_path) if isinstance(name, str) else name)
    (session.attachments / "2.json").write_bytes(CONTENT)
    assert [each.seq for each in rows(session)] == [1, 3]
    assert len(damages(session)) == 1


@pytest.mark.parametrize("kind", ["link", "pipe", "directory", "device"])
def test_other_than_files_are_not_attached(tmp_path: Path, kind: str) -> None:
    (tmp_path / "2.json").write_bytes(CONTENT + b" ")
    session = plant_attached(tmp_path)
    path = session.attachments / "2.json"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case _:
            path.symlink_to(tmp_path / "2.json" if kind == "link" else "/dev/zero")
    assert [each.seq for each in rows(session)] == [1, 3]
    assert len(damages(session)) == 1


@pytest.mark.parametrize(
    "content",
    [b"[" * 200_000, b"columns", b"\xff\xfe\xfd", b"[]", b"5", b"null", b'{"data":[1]}', b'{"seq":null}'],
    ids=["nested", "words", "encoding", "list", "number", "null", "data", "seq"],
)
def test_crafted_attachment_is_damage(tmp_path: Path, content: bytes) -> None:
    session = plant_attached(tmp_path, size=len(content), sum=f"{crc32(content):08x}")
    put_attachment(session.attachments, "2.json", content)
    assert [each.seq for each in rows(session)] == [1, 3]
    assert len(damages(session)) == 1


# ------------------------------------------------------------------- readers


def test_reading_writes_nothing(session: Session) -> None:
    journal = JournalWriter(session)
    journal.append({"loss": 0.5})
    journal.append({"note": "x" * (5 << 20)})
    journal.abandon()
    with session.path.open("ab") as file:
        file.write(b"damaged\ntorn")
    folder = session.path.parent
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) == 3
    for path in files:
        os.utime(path, (1, 1))
    before = [path.read_bytes() for path in files]
    assert len(rows(session)) == 2
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == files
    assert [path.read_bytes() for path in files] == before
    assert {path.stat().st_mtime for path in files} == {1}


def test_long_header_hides_no_row(tmp_path: Path) -> None:
    """Longer than what is read at once."""
    session = claim(tmp_path / "explorer", {"config": {"text": "x" * 3_000_000}}, "it")
    journal = JournalWriter(session)
    journal.append({"loss": 0.5}, 7)
    journal.abandon()
    assert [each.step for each in rows(session)] == [7]
    assert [entry.value.seq for entry in read_to_end("explorer", session) if isinstance(entry.value, Row)] == [1]


def test_many_unknown_lines_hide_no_row(tmp_path: Path) -> None:
    session = plant(tmp_path / "w" / "1.jsonl", *[{"event": "x" * 100}] * 20_000, row(1))
    assert [each.seq for each in rows(session)] == [1]


def test_reading_beside_a_writer(session: Session) -> None:
    """It sees whole rows, in order."""
    journal = JournalWriter(session)

    def write() -> None:
        for step in range(1, 3001):
            journal.append({"loss": step / 7}, step)

    writer = threading.Thread(target=write)
    writer.start()
    reader = JournalReader("explorer", session)
    seen: list[Row] = []
    offset = 0
    deadline = time.monotonic() + 60
    while len(seen) < 3000:
        assert time.monotonic() < deadline
        for entry in reader.read(offset, limit=300):
            assert isinstance(entry.value, Row), entry.value
            seen.append(entry.value)
            offset = entry.offset
    writer.join()
    journal.abandon()
    assert [(each.seq, each.step, each.metrics["loss"]) for each in seen] == [
        (step, step, step / 7) for step in range(1, 3001)
    ]


def test_read_errors_are_no_damage(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = JournalWriter(session)
    for _ in range(5):
        journal.append({"loss": 0.5})
    whole = read_to_end("explorer", session)
    found = [next(whole) for _ in range(5)]

    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr("rolecall.store.codec.open_regular", refuse)
    with pytest.raises(OSError, match="too many"):
        next(whole)
    monkeypatch.undo()
    assert read_all(session) == found


# ----------------------------------------------------------- several sessions


def write_session(layout: Layout, *losses: float, ended: bool = True) -> Session:
    session = claim(layout.journal("explorer"), {"config": {}}, "it")
    journal = JournalWriter(session)
    for loss in losses:
        journal.append({"loss": loss})
    if ended:
        journal.end("finished")
    else:
        journal.abandon()
    return session


def test_sessions_are_read_in_order(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_session(layout, 1.0, 2.0)
    write_session(layout, 3.0)
    found = list(read_rows(layout, "explorer"))
    assert [(each.session, each.seq) for each in found if isinstance(each, Row)] == [(1, 1), (1, 2), (2, 1)]
    assert list(read_rows(layout, "nobody")) == []


@pytest.mark.parametrize("kept", [0, 1, 2, 3])
def test_continued_rows_are_read_once(tmp_path: Path, kept: int) -> None:
    """A session that continues an earlier one holds its rows again."""
    layout = Layout(tmp_path)
    first = write_session(layout, 1.0, 2.0, 3.0, ended=False)
    lines = first.path.read_bytes().splitlines(keepends=True)
    first.path.write_bytes(b"".join(lines[: kept + 1]))
    second = succeed(first, {"config": {}})
    with second.path.open("ab") as file:
        for seq in range(1, 5):
            file.write(encode(row(seq), second.seed))
    end(second, "finished")
    found = list(read_rows(layout, "explorer"))
    assert [each.seq for each in found if isinstance(each, Row)] == [1, 2, 3, 4]
    assert [each.session for each in found if isinstance(each, Row)] == [1] * kept + [2] * (4 - kept)


@pytest.mark.parametrize(
    ("line", "seq"), [(None, 0), ({}, 0), ({"seq": 5}, 5), ({"seq": "5"}, 0), ({"end": "failed", "seq": 7}, 7)]
)
def test_number_of_the_last_row(line: dict[str, Any] | None, seq: int) -> None:
    assert last_seq(line) == seq
