"""What a run holds: keys, values, steps, times, axes, tables, media, config, summary, tags and its end."""

import base64
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, get_args

import pytest

from rolecall.rows import Media, MediaKind, Row, TableData
from rolecall.states import Status
from rolecall.testing.author import Contract
from rolecall.testing.builders import TIME
from rolecall.testing.compare import Found, axes_of, is_axis, same_value
from rolecall.testing.stage import Stage
from rolecall.testing.team import Mode, Team

KINDS: Final = get_args(MediaKind)
LISTED: Final = ("image", "audio", "video")
"""Kinds of which a key may have several at a step."""
LONG: Final = "long/" + "x" * 200
PLAIN: Final = ("a/b", "a_b", "a-b", "a.b", "A/b", "a/b/c", "ab", "x" * 100, "x" * 100 + "y")
"""Keys that every backend must take."""
ODD: Final = (
    "a b",
    "a@b",
    "a#b",
    "a%2Fb",
    "a:b",
    "a=b",
    "a,b",
    "a[0]",
    "\u00e9",  # the same letter twice, in two spellings that Unicode normalises to one
    "e\u0301",
    "日本",
    f"{LONG}1",
    f"{LONG}2",
    "a//b",
    "a..b",
)
"""Keys that a backend may refuse, if it says so."""
MANY: Final = 300
HARD: Final[Mapping[str, float]] = {
    "nan": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "zero": 0,
    "minus zero": -0.0,
    "huge": 1e300,
    "tiny": 5e-324,
    "beyond floats": 2**53 + 1,
    "largest": 2**63 - 1,
    "smallest": -(2**63),
    "third": 1 / 3,
}
MILLISECOND: Final = 0.001


class Content(Contract):
    """Tests of what a run holds, each in one run whose rows come through one courier."""

    def _deliver_again(self, team: Team, rows: Sequence[Row]) -> None:
        """Deliver rows and close the run; twice, where the backend can say that it holds them."""
        team.deliver(rows)
        if "progress" in self.can:
            team.kill()
            team.open()
            team.deliver(rows)
        team.close()

    def test_keeps_distinct_keys_apart(self, stage: Stage) -> None:
        team = _team(self, stage)
        courier = team.courier("trainer")
        values = {key: at + 0.5 for at, key in enumerate((*PLAIN, *ODD))}
        rows = [team.row("trainer", {key: value}, seq=at) for at, (key, value) in enumerate(values.items(), start=1)]
        many = {f"many/{number}": number + 1000.5 for number in range(MANY)}
        rows.append(team.row("trainer", many, seq=len(rows) + 1))
        team.deliver(rows)
        team.close()
        refused = {seq for _, _, seq in courier.rejected}
        assert not {seq for seq in refused if seq <= len(PLAIN) or seq == len(rows)}, (
            f"expected these keys to be taken: {PLAIN}; rejected were the rows {sorted(refused)}"
        )
        held = stage.points(team.runs()[0])
        _one_key_each([each for each in rows if each.seq not in refused], held)

    def test_keeps_hard_values(self, stage: Stage) -> None:
        """NaN, infinities and numbers that a float cannot hold, and the plain ones beside them."""
        team = _team(self, stage)
        rows = [
            team.row("trainer", {name: value, "easy": at}, seq=at)
            for at, (name, value) in enumerate(HARD.items(), start=1)
        ]
        team.deliver(rows)
        team.close()
        team.holds(rows)

    def test_keeps_repeated_and_decreasing_steps(self, stage: Stage) -> None:
        """After a restart from a checkpoint steps come again, with other values; two writers share a key."""
        self.needs("steps", "many")
        team = Team(stage, "many")
        team.open()
        rows = []
        for writer, offset in (("explorer/0", 0.0), ("trainer", 0.5)):
            for seq, step in enumerate((5, 5, 7, 3, 1, 5, 0, 2**40), start=1):
                rows.append(team.row(writer, {"loss": seq + offset}, seq=seq, step=step, time=TIME + seq))
        for part in (rows[:3], rows[3:11], rows[11:]):
            team.deliver(part)
        team.close()
        team.holds(rows)

    def test_keeps_times(self, stage: Stage) -> None:
        """When the role logged, and not when the courier delivered."""
        self.needs("times")
        team = _team(self, stage)
        times = {1: TIME + 0.25, 2: TIME + 0.875, 3: TIME + 86_400.5}
        rows = [team.row("trainer", {"loss": 0.5}, seq=step, time=time) for step, time in times.items()]
        team.deliver(rows)
        team.close()
        held = stage.read("times", team.runs()[0])
        found = dict(map(tuple, held.get(team.key("trainer", "loss"), [])))
        assert found.keys() == times.keys(), f"loss: expected times of the steps {[*times]}, held {held}"
        wrong = {step: found[step] for step in times if abs(found[step] - times[step]) > MILLISECOND}
        assert not wrong, f"loss: expected the times {times}, held {found}"

    @pytest.mark.parametrize("mode", ["many", "shared"])
    def test_binds_the_axes_of_all_writers(self, stage: Stage, mode: Mode) -> None:
        """Also where each writer is a process of its own, and one that joins may undo what others declared."""
        self.needs("axes", mode)
        team = Team(stage, mode)
        team.open()
        first, second = team.rows(range(1, 6)), team.rows(range(6, 9), seq=6)
        # Keys that come later are declared alone, and those before stay as they are.
        late = [replace(each, metrics={**each.metrics, f"{each.writer}/late": 0.5}) for each in second]
        for rows in (first, late):
            team.declare_all(rows)
            team.deliver(rows)
        team.close()
        held = stage.read("axes", team.runs()[0])
        wanted = {key: axis for each in (*first, *late) for key, axis in axes_of(each).items()}
        found = {key: held.get(key) for key in wanted}
        assert found == wanted, f"expected {wanted}, held {found}"

    def test_keeps_text(self, stage: Stage) -> None:
        self.needs("text")
        team = _team(self, stage)
        key = team.key("trainer", "answer")
        texts = {1: "four", 2: "vier | ✓\nzwei", 3: "four"}
        rows = [replace(team.row("trainer", {"loss": 0.5}, seq=step), text={key: text}) for step, text in texts.items()]
        team.deliver(rows)
        team.close()
        held = stage.read("text", team.runs()[0])
        found = sorted(map(tuple, held.get(key, [])))
        assert found == sorted(texts.items()), f"{key}: expected {texts}, held {held}"

    def test_keeps_tables(self, stage: Stage) -> None:
        self.needs("tables")
        team = _team(self, stage)
        key = team.key("trainer", "samples")
        cells = {step: (("2+2", step + 0.5, step), ('a|b, "c" ✓', -1.5, 0)) for step in (3, 4)}
        columns = ("prompt", "reward", "length")
        tables = {step: TableData(name=key, columns=columns, rows=found) for step, found in cells.items()}
        self._deliver_again(team, [team.row("trainer", {}, seq=step, table=table) for step, table in tables.items()])
        held = stage.read("tables", team.runs()[0]).get(key, [])
        steps = sorted(step for step, _, _ in held)
        assert steps == [*tables], f"{key}: expected tables at the steps {[*tables]}, held {steps}"
        for step, found, rows in held:
            _same_table(f"{key} at {step}", (found, rows), tables[step])

    def test_keeps_growing_tables(self, stage: Stage) -> None:
        """New rows are added: each step is held as a table of its own, or the last one has all rows."""
        self.needs("tables")
        team = _team(self, stage)
        key = team.key("trainer", "growing")
        parts = {step: ((f"row {step}", step / 2), (f"another {step}", step / 4)) for step in (1, 2, 5)}
        tables = {
            step: TableData(name=key, columns=("prompt", "reward"), rows=rows, append=True)
            for step, rows in parts.items()
        }
        for step, table in tables.items():
            team.deliver([team.row("trainer", {}, seq=step, table=table)])
        team.close()
        held = sorted(stage.read("tables", team.runs()[0]).get(key, []))
        assert held, f"{key}: expected a table, held none"
        last, found = held[-1][2], [cells for _, _, rows in held for cells in rows]
        wanted = [cells for rows in parts.values() for cells in rows]
        kept = last if len(last) == len(wanted) else found
        _same_table(key, (held[-1][1], kept), replace(tables[1], rows=tuple(wanted)))

    def test_keeps_images_in_tables(self, stage: Stage) -> None:
        self.needs("tables", "table_media")
        team = _team(self, stage)
        key, path = team.key("trainer", "drawn"), stage.root / "tmp" / "cell.png"
        path.write_bytes(_png(40))
        image = Media(key="picture", kind="image", path=path, mime="image/png")
        table = TableData(name=key, columns=("prompt", "picture"), rows=(("a cat", image),))
        team.deliver([team.row("trainer", {}, seq=1, table=table)])
        team.close()
        held = stage.read("tables", team.runs()[0]).get(key, [])
        found = [_bytes(cell) for _, _, rows in held for cells in rows for cell in cells if _is_bytes(cell)]
        assert found == [path.read_bytes()], f"{key}: expected the image of a cell, held {held}"

    @pytest.mark.parametrize("kind", KINDS)
    def test_keeps_media(self, stage: Stage, kind: MediaKind) -> None:
        self.needs(f"media:{kind}")
        team = _team(self, stage)
        key = team.key("trainer", f"some {kind}")
        each = [_media(kind, key, stage.root / "tmp" / f"{kind}-{number}", number) for number in (1, 2, 3)]
        last = (each[1], each[2]) if kind in LISTED else (each[1],)
        rows = [
            team.row("trainer", {}, seq=1, step=2, media=(each[0],)),
            team.row("trainer", {}, seq=2, step=5, media=last),
        ]
        self._deliver_again(team, rows)
        held = sorted(stage.read("media", team.runs()[0]).get(key, []), key=itemgetter(0))
        wanted = [(made.step, media) for made in rows for media in made.media]
        steps = [step for step, _ in held]
        assert steps == [step for step, _ in wanted], f"{key}: expected {len(wanted)} media, held some at {steps}"
        for (step, found), (_, media) in zip(held, wanted, strict=True):
            _same_media(f"{key} at {step}", found, media)

    def test_keeps_config(self, stage: Stage) -> None:
        """The config of the ticket, and what is merged later, which wins."""
        self.needs("config")
        team = _team(self, stage, config={"lr": 0.5, "optimizer": {"name": "adam"}})
        courier, wanted = team.courier("trainer"), {"lr": 0.5, "optimizer.name": "adam"}
        if courier.has("SupportsConfig"):
            is_many = team.mode == "many"  # then a config comes under the name of its writer, as in a shared run
            for config in ({"layers": 3}, {"layers": 3}, {"layers": 3, "heads": 8}):
                courier.call("merge_config", {"trainer": config} if is_many else config)
            wanted |= {"trainer.layers": 3, "trainer.heads": 8} if is_many else {"layers": 3, "heads": 8}
        team.deliver(team.rows(range(1, 3)))
        team.close()
        held = dict(_flat(stage.read("config", team.runs()[0])))
        found = {name: held.get(name) for name in wanted}
        assert _texts(found) == _texts(wanted), f"expected the config {wanted}, held {held}"

    def test_keeps_summary(self, stage: Stage) -> None:
        """The last values that were set, without those that were removed."""
        self.needs("summary")
        team = _team(self, stage)
        courier = team.courier("trainer")
        best, note, gone = (team.key("trainer", name) for name in ("best", "note", "gone"))
        for summary in ({best: 0.25, gone: 1.5}, {best: 0.875, note: "good"}, {best: 0.875, note: "good"}):
            courier.call("merge_summary", summary)
            team.deliver(team.rows(range(1, 3)))
        team.close()
        held = stage.read("summary", team.runs()[0])
        assert held.get(note) == "good", f"{note}: expected 'good', held {held}"
        assert same_value(held.get(best, math.nan), 0.875, self.tolerance), f"{best}: expected 0.875, held {held}"
        if "removal" not in self.cannot:
            assert gone not in held, f"{gone}: expected to be removed, held {held}"

    def test_keeps_config_of_all_writers(self, stage: Stage) -> None:
        """In a shared run each has its own, and all couriers merge all of them, as soon as they know them."""
        self.needs("config", "shared")
        team = Team(stage, "shared")
        team.open(config={"lr": 0.5})
        first, second = {"explorer/0": {"seed": 1, "env": "maze"}}, {"trainer": {"seed": 2}}
        wanted = {"lr": 0.5, "explorer.0.seed": 1, "explorer.0.env": "maze", "trainer.seed": 2}
        if not team.courier("trainer").has("SupportsConfig"):
            pytest.skip("its config does not change")
        for writer, config in (("explorer/0", first), ("trainer", second), ("explorer/0", first | second)):
            team.courier(writer).call("merge_config", config)
        team.courier("trainer").call("merge_config", first | second)
        team.deliver(team.rows(range(1, 3)))
        team.close(config=first | second)
        held = dict(_flat(stage.read("config", team.runs()[0])))
        found = {name: held.get(name) for name in wanted}
        assert _texts(found) == _texts(wanted), f"expected the config {wanted}, held {held}"

    def test_keeps_summary_of_all_writers(self, stage: Stage) -> None:
        """In a shared run each sets its own."""
        self.needs("summary", "shared")
        team = Team(stage, "shared")
        team.open()
        wanted = {"explorer/0/best": 0.25, "trainer/best": 0.5}
        for writer in team.writers:
            team.courier(writer).call("merge_summary", {f"{writer}/best": wanted[f"{writer}/best"]})
        team.deliver(team.rows(range(1, 3)))
        team.close()
        held = stage.read("summary", team.runs()[0])
        found = {key: held.get(key) for key in wanted}
        assert found == wanted, f"expected the summary {wanted}, held {held}"

    def test_keeps_tags(self, stage: Stage) -> None:
        self.needs("tags")
        team = _team(self, stage, tags=("first", "second"))
        courier = team.courier("trainer")
        wanted = {"first", "second"}
        if courier.has("SupportsTags"):
            for tags in (["first", "second"], ["second", "third"]):
                courier.call("set_tags", tags)
            wanted = {"second", "third"}
        team.deliver(team.rows(range(1, 3)))
        team.close()
        held = set(stage.read("tags", team.runs()[0]))
        ours = held & {"first", "second", "third"}
        assert ours == wanted, f"expected the tags {sorted(wanted)}, held {sorted(held)}"

    @pytest.mark.parametrize("status", get_args(Status))
    def test_keeps_status(self, stage: Stage, status: Status) -> None:
        self.needs("status", *({status} & {"killed"}))
        team = _team(self, stage)
        rows = team.rows(range(1, 3))
        team.log(rows)
        # Not after `flush`: where rows are confirmed while the run is open, that comes at its end.
        team.has_status(None)
        team.flush(rows)
        team.close(status)
        team.has_status(status)

    def test_keeps_end_time(self, stage: Stage) -> None:
        """When the writers ended, and not when the rows arrived, which may be minutes later."""
        self.needs("end_time")
        team = _team(self, stage)
        team.deliver(team.rows(range(1, 3)))
        if team.courier("trainer").has("SupportsEndTime"):
            team.courier("trainer").call("end_at", TIME + 100.5)
            team.close()
        else:
            team.kill()
            team.open(ended=TIME + 100.5)
            team.close()
        held = stage.read("end_time", team.runs()[0])
        assert abs(held - TIME - 100.5) <= 1, f"expected the end {TIME + 100.5}, held {held}"

    def test_a_role_does_not_end_a_shared_run(self, stage: Stage) -> None:
        self.needs("shared", "status")
        team = Team(stage, "shared")
        team.open()
        rows = team.rows(range(1, 6))
        team.deliver(rows)
        team.courier("trainer").close("finished")
        team.has_status(None)
        team.courier("explorer/0").close("failed")
        team.end("failed")
        team.has_status("failed")
        team.holds(rows)


def _team(contract: Contract, stage: Stage, **changes: Any) -> Team:
    """One writer, whose run is open: as one of many, if the backend can."""
    team = Team(stage, "separate" if "many" in contract.cannot else "many", ("trainer",))
    team.open(**changes)
    return team


def _one_key_each(rows: Sequence[Row], held: Found) -> None:
    """Assert that each metric of the rows has a key to itself. A key may be held under another name."""
    # The values are halves, and all different.
    names: dict[int, list[str]] = {}
    for name, points in held.items():
        for _, value in points:
            names.setdefault(round(2 * value), []).append(name)
    for each in rows:
        for key, value in each.metrics.items():
            if is_axis(key):
                continue
            found = names.get(round(2 * value), [])
            assert len(found) == 1, f"{key}: expected {value} under one key, held under {found}"
            steps = [step for step, _ in held[found[0]]]
            assert steps == [each.step], f"{key}: expected step {each.step} alone, held {held[found[0]]}"


def _same_table(where: str, held: tuple[Sequence[str], Sequence[Sequence[Any]]], wanted: TableData) -> None:
    columns, rows = held
    assert list(columns) == list(wanted.columns), f"{where}: expected the columns {wanted.columns}, held {columns}"
    assert len(rows) == len(wanted.rows), f"{where}: expected {len(wanted.rows)} rows, held {rows}"
    for cells, others in zip(rows, wanted.rows, strict=True):
        # A backend may show tables as text.
        assert [*map(str, cells)] == [*map(str, others)], f"{where}: expected {others}, held {cells}"


def _same_media(where: str, held: Any, media: Media) -> None:
    if media.path is None:
        for name, numbers in (("counts", media.counts), ("edges", media.edges)):
            wrong = f"{where}: expected {name} {numbers}, held {held[name]}"
            assert list(held[name]) == pytest.approx(list(numbers)), wrong
        return
    more = {} if _is_bytes(held) else held
    data = held if _is_bytes(held) else held["data"]
    wanted = media.path.read_bytes()
    assert _bytes(data) == wanted, f"{where}: expected {len(wanted)} bytes, held others: {_bytes(data)[:40]!r}"
    for name in more.keys() & {"mime", "caption"}:
        value = getattr(media, name)
        assert more[name] == value, f"{where}: expected the {name} {value!r}, held {more[name]!r}"


def _is_bytes(held: Any) -> bool:
    return isinstance(held, dict) and held.keys() == {"base64"}


def _bytes(held: Any) -> bytes:
    return base64.b64decode(held["base64"])


def _media(kind: MediaKind, key: str, path: Path, number: int) -> Media:
    """A small valid object of a kind, another one for each number."""
    if kind == "histogram":
        return Media(key=key, kind=kind, counts=(1.0, number + 0.5, 2.0), edges=(0.0, 0.5, 1.0, 1.5))
    make: dict[str, tuple[str, str, Callable[[int], bytes]]] = {
        "image": ("png", "image/png", _png),
        "figure": ("png", "image/png", _png),
        "markdown": ("md", "text/markdown", lambda at: f"# number {at}\n\nand *more*".encode()),
        "html": ("html", "text/html", lambda at: f"<p>number {at}</p>".encode()),
        "audio": ("wav", "audio/wav", _wav),
        "video": ("gif", "image/gif", _gif),
        "file": ("bin", "application/octet-stream", lambda at: bytes(range(256)) + bytes([at])),
    }
    suffix, mime, content = make[kind]
    file = path.with_suffix(f".{suffix}")
    file.write_bytes(content(number))
    return Media(key=key, kind=kind, path=file, mime=mime, caption=f"number {number}")


def _png(shade: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    pixels = zlib.compress(bytes([0, shade, shade, shade]))
    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _wav(number: int) -> bytes:
    samples = struct.pack("<64h", *(number * 100 for _ in range(64)))
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    body = b"WAVE" + form + b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _gif(number: int) -> bytes:
    colours = bytes([number, number, number, 255, 255, 255])
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + colours
    return screen + b"," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00;"


def _flat(config: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """A nested config with dots between names."""
    for name, value in config.items():
        full = f"{above}{name}".replace("/", ".")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{full}.")
        else:
            yield full, value


def _texts(config: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in config.items()}
