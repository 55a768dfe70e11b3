"""Tables, images and other objects, from `log` to the rows that a courier reads."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import sys
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from PIL.GifImagePlugin import GifImageFile

from rolecall import (
    Audio,
    File,
    Histogram,
    Html,
    Image,
    Job,
    Media,
    Monitor,
    MonitorConfig,
    Rejected,
    Row,
    Table,
    TableData,
    Text,
    Video,
    open_monitor,
)
from rolecall.__main__ import main
from rolecall.delivery.pictures import Pictures
from rolecall.job.history import read_rows
from rolecall.store.codec import Damage
from rolecall.store.layout import Layout
from rolecall.store.pictures import netpbm, png_of
from rolecall.store.reader import read_rows as read_all

MakeConfig = Callable[..., MonitorConfig]

PIXELS = np.arange(2 * 5 * 3, dtype=np.uint8).reshape(2, 5, 3) * 7
GIF = b"GIF89a" + bytes(20)


def rows(job: Job) -> list[Row]:
    return list(read_rows(job.config.monitor_dir))


def media(job: Job) -> list[Media]:
    return [each for row in rows(job) for each in row.media]


def pixels_of(path: Path) -> np.ndarray[Any, Any]:
    """What another program reads in a PNG, made of what was stored."""
    return np.asarray(PIL.Image.open(io.BytesIO(png_of(path))))


# --------------------------------------------------------------- one call


def test_one_call_is_one_line(job: Job, monitor: Monitor) -> None:
    """Its numbers and strings come first, then each value as a row of its own, in order."""
    monitor.log({"loss": 0.5}, 1)
    monitor.log({"a": Image(PIXELS), "loss": 0.25, "b": {"c": Table([{"x": 1}])}, "note": Text("hi")}, 7)
    monitor.log({"loss": 0.125}, 8)
    monitor.close()
    path = job.config.monitor_dir / "journal" / "trainer" / "1.jsonl"
    _, first, second, third, end = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["seq"], line.get("rows", 1)) for line in (first, second, third)] == [(1, 1), (4, 3), (5, 1)]
    assert end["seq"] == 5
    found = rows(job)
    assert [row.seq for row in found] == [1, 2, 3, 4, 5]
    assert [row.step for row in found] == [1, 7, 7, 7, 8]
    _, numbers, image, table, _ = found
    assert (numbers.metrics, numbers.text, numbers.table, numbers.media) == ({"loss": 0.25}, {"note": "hi"}, None, ())
    assert [each.key for each in image.media] == ["a"]
    assert table.table is not None
    assert (table.table.name, table.table.rows) == ("b/c", ((1,),))
    assert not image.metrics
    assert not table.metrics


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_text_that_spells_a_number_is_text(job: Job, monitor: Monitor, word: str) -> None:
    """Also in a nested mapping and beside the number itself; a plain string is the number."""
    monitor.log(
        {"note": Text(word), "deep": {"note": Text(word)}, "loss": float(word), "plain": word, "more": Text("a")}
    )
    monitor.log({"note": word, "deep": {"note": Text("a")}, "five": Text(5)})  # type: ignore[arg-type]
    first, second = rows(job)
    assert first.text == {"note": word, "deep/note": word, "more": "a"}
    assert first.metrics == pytest.approx({"loss": float(word), "plain": float(word)}, nan_ok=True)
    assert (second.text, [*second.metrics]) == ({"deep/note": "a", "five": "5"}, ["note"])


def test_exported_text_can_be_told_from_numbers(
    job: Job, monitor: Monitor, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monitor.log({"note": Text("NaN"), "loss": math.nan})
    monitor.close()
    assert main(["export", str(job.config.monitor_dir)]) == 0
    line = json.loads(capfdbinary.readouterr().out)
    assert (line["data"], line["text"]) == ({"note": "NaN", "loss": "NaN"}, ["note"])


def test_markdown_is_a_file(job: Job, monitor: Monitor) -> None:
    monitor.log({"loss": 0.5, "note": Text("# Half\udc80 *way*", markdown=True)}, 3)
    numbers, note = rows(job)
    assert (numbers.text, numbers.metrics) == ({}, {"loss": 0.5})
    (media,) = note.media
    assert (media.key, media.kind, media.mime) == ("note", "markdown", "text/markdown")
    assert media.path is not None
    assert media.path.read_text() == "# Half? *way*"
    pictures = Pictures()
    (page,) = pictures.page(note).media  # for a backend that shows HTML alone
    assert (page.kind, page.mime, page.key) == ("html", "text/html", "note")
    assert page.path is not None
    assert "<h1>Half? <em>way</em></h1>" in page.path.read_text()
    pictures.clear()
    assert not page.path.exists()


def test_values_alone_are_no_row_of_numbers(job: Job, monitor: Monitor) -> None:
    monitor.log({"a": Image(PIXELS)})
    monitor.log({"a": [Image(PIXELS), Image(PIXELS)], "b": {"c": Html("<p>")}})
    assert [(row.seq, row.step, len(row.media)) for row in rows(job)] == [(1, 1, 1), (2, 2, 2), (3, 2, 1)]


def test_what_cannot_be_logged_costs_itself(job: Job, monitor: Monitor, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        monitor.log({"loss": 0.5, "bad": Image(np.zeros((2, 2, 9))), "good": Image(PIXELS)})
    assert monitor.dropped == 2
    (message,) = [message for message in caplog.messages if "bad" in message]
    reason = "an image has a height, a width and 1, 3 or 4 channels, not the shape (2, 2, 9)"
    assert message == f"trainer: bad: this Image cannot be logged: {reason}"
    assert [(row.metrics, len(row.media)) for row in rows(job)] == 2 * [({"loss": 0.5}, 0), ({}, 1)]


def test_steps_are_kept_beside_values(job: Job) -> None:
    """Also where the line that would have them is not the thousandth row itself."""
    with open_monitor(job.config, "trainer") as monitor:
        for step in range(1, 700):
            monitor.log({"loss": 0.5, "a": Html("x")}, step)
    lines = (job.config.monitor_dir / "journal" / "trainer" / "1.jsonl").read_text().splitlines()
    assert [line["seq"] for line in map(json.loads, lines) if "steps" in line and "end" not in line] == [1000]
    with open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 0.5})
    assert rows(job)[-1].step == 700


def test_lost_lines_count_all_their_rows(job: Job, monitor: Monitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor.log({"loss": 0.5})
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:10]))
    monitor.log({"loss": 0.5, "a": Html("x"), "b": Html("y")})
    monkeypatch.undo()
    monitor.log({"loss": 0.25})
    assert monitor.lost == 3
    assert [row.seq for row in rows(job)] == [1, 5]


# ------------------------------------------------------------------- images


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (PIXELS, PIXELS),
        (PIXELS.transpose(2, 0, 1), PIXELS),
        (PIXELS[:, :, :1], PIXELS[:, :, 0]),
        (PIXELS[:, :, 0], PIXELS[:, :, 0]),
        (PIXELS[:, :, :1].transpose(2, 0, 1), PIXELS[:, :, 0]),
        (np.dstack([PIXELS, PIXELS[:, :, 0]]), np.dstack([PIXELS, PIXELS[:, :, 0]])),
        (PIXELS.astype(np.int64), PIXELS),
        (PIXELS / 255, PIXELS),
        ((PIXELS / 255).astype(np.float16), PIXELS),
        (np.array([[-1.0, 0.0, 0.5, 1.0, 2.0, np.nan, np.inf]]), np.array([[0, 0, 128, 255, 255, 0, 255]])),
        (np.array([[True, False]]), np.array([[255, 0]])),
        (PIXELS[::-1, ::-1], PIXELS[::-1, ::-1]),
        (PIXELS.tolist(), PIXELS),
    ],
    ids=["HWC", "CHW", "HW1", "HW", "1HW", "RGBA", "ints", "floats", "halves", "odd", "bools", "view", "lists"],
)
def test_arrays_are_images(job: Job, monitor: Monitor, given: Any, expected: np.ndarray[Any, Any]) -> None:
    monitor.log({"a": Image(given, caption="what it is")})
    assert monitor.dropped == 0
    (found,) = media(job)
    assert (found.kind, found.caption) == ("image", "what it is")
    assert found.path is not None
    assert np.array_equal(pixels_of(found.path), expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "1", "CMYK"])
def test_pillow_images(job: Job, monitor: Monitor, mode: str) -> None:
    picture = PIL.Image.fromarray(PIXELS).convert(mode)
    monitor.log({"boxed": Image(picture, caption="c"), "bare": picture})
    assert monitor.dropped == 0
    boxed, bare = media(job)
    assert (boxed.caption, bare.caption) == ("c", "")
    plain = picture if mode in ("L", "RGB", "RGBA") else picture.convert("RGBA" if mode == "LA" else "RGB")
    for found in (boxed, bare):
        assert found.path is not None
        assert np.array_equal(pixels_of(found.path), np.asarray(plain))


@pytest.mark.parametrize(
    ("box", "data", "mime"),
    [
        (Image, b"\x89PNG\r\n\x1a\n" + bytes(20), "image/png"),
        (Image, b"\xff\xd8\xff" + bytes(20), "image/jpeg"),
        (Image, GIF, "image/gif"),
        (Image, b"RIFF\0\0\0\0WEBPVP8 " + bytes(20), "image/webp"),
        (Audio, b"RIFF\0\0\0\0WAVEfmt " + bytes(20), "audio/wav"),
        (Audio, b"ID3" + bytes(20), "audio/mpeg"),
        (Audio, b"OggS" + bytes(20), "audio/ogg"),
        (Audio, b"fLaC" + bytes(20), "audio/flac"),
        (Video, b"\0\0\0\x20ftypisom" + bytes(20), "video/mp4"),
        (Video, b"\x1aE\xdf\xa3" + bytes(20), "video/webm"),
        (Video, GIF, "image/gif"),
    ],
)
def test_files_are_copied_as_they_are(
    job: Job, monitor: Monitor, tmp_path: Path, box: Callable[..., object], data: bytes, mime: str
) -> None:
    path = tmp_path / "given"
    path.write_bytes(data)
    monitor.log({"bytes": box(data), "path": box(path), "text": box(str(path))})
    path.unlink()
    assert monitor.dropped == 0
    for found in media(job):
        assert found.path is not None
        assert (found.mime, found.path.read_bytes()) == (mime, data)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Image(b"text"), "it is not a file of PNG, JPEG, GIF, WebP"),
        (Image("/nowhere/x.png"), "No such file"),
        (Image(np.zeros((0, 5))), "not the shape (0, 5"),
        (Image(np.zeros(5)), "not the shape (5,)"),
        (Image(np.full((2, 2), 256)), "numbers from 0 to 255 or floats from 0 to 1, not int64"),
        (Image(np.array([["a"]])), "not <U1"),
        (Image(None), "not the shape ()"),
        (Histogram([]), "needs a value that is finite"),
        (Histogram(np.array([np.nan])), "needs a value that is finite"),
        (Histogram([1.0], bins=0), "has 1 to 1000 bins"),
        (Histogram(counts=[1, 2], edges=[0, 1]), "2 counts has 3 edges, not 2"),
        (Histogram(), "TypeError"),
        (Audio(np.zeros(5)), "need a rate"),
        (Audio(np.zeros((2, 2, 2)), rate=8000), "one or two dimensions"),
        (Video(PIXELS[0, 0]), "an image has a height"),
        (File("/nowhere"), "No such file"),
        (File("/dev/zero"), "is not a file"),
        (Html(Path("/nowhere")), "No such file"),
        ([Image(PIXELS), Html("x")], "of one kind"),
        ([Image(PIXELS), 5], "of one kind"),
        ([Image(PIXELS)] * 1001, "up to 1000"),
        (Table(5), "TypeError"),
        (Table([[1, 2], [3]], ["a", "b"]), "not as wide as its columns"),
    ],
)
def test_bad_values_are_reported(
    job: Job, monitor: Monitor, caplog: pytest.LogCaptureFixture, value: object, words: str
) -> None:
    monitor.log({"bad": value, "loss": 0.5})
    assert monitor.dropped == 1
    assert any("bad" in message and words in message for message in caplog.messages), caplog.messages
    assert [row.metrics for row in rows(job)] == [{"loss": 0.5}]


# ------------------------------------------------------------- the other kinds


@pytest.mark.parametrize("given", [[1, 2.5, 3, 4, 4, float("inf")], np.array([1, 2.5, 3, 4, 4, np.nan])])
def test_histograms_are_as_numpy_makes_them(job: Job, monitor: Monitor, given: Any) -> None:
    monitor.log({"h": Histogram(given, bins=3)})
    counts, edges = np.histogram([1, 2.5, 3, 4, 4], 3)
    (found,) = media(job)
    assert found.kind == "histogram"
    assert list(found.counts) == list(counts)
    assert found.edges == pytest.approx(tuple(edges))


def test_histograms_of_one_value_and_of_counts(job: Job, monitor: Monitor) -> None:
    monitor.log({"one": Histogram([5, 5], bins=2), "counts": Histogram(counts=np.array([1, 2]), edges=[0, 1, 2])})
    one, counts = media(job)
    assert (one.counts, one.edges) == ((0, 2), (4.5, 5, 5.5))
    assert (counts.counts, counts.edges) == ((1, 2), (0, 1, 2))


@pytest.mark.parametrize("channels", [1, 2])
def test_samples_are_a_wav_file(job: Job, monitor: Monitor, channels: int) -> None:
    samples = np.linspace(-1, 1, 800).reshape(-1, channels) if channels > 1 else np.linspace(-1, 1, 800)
    monitor.log({"s": Audio(samples, rate=8000)})
    (found,) = media(job)
    assert found.path is not None
    with wave.open(str(found.path)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getsampwidth()) == (channels, 8000, 2)
        heard = np.frombuffer(file.readframes(1000), "<i2").reshape(samples.shape)
    assert np.allclose(heard / 32767, samples, atol=1e-4)


def test_html_files_and_folders(job: Job, monitor: Monitor, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x.txt").write_text("x")
    (tmp_path / "page.html").write_text("<p>")
    monitor.log({"text": Html("<b>\u2603"), "path": Html(tmp_path / "page.html")})
    monitor.log({"f": File(tmp_path / "d" / "x.txt", name="y.txt"), "d": File(tmp_path / "d")})
    text, page, file, folder = [(each.kind, each.caption, each.path and each.path.read_bytes()) for each in media(job)]
    assert text == ("html", "", "<b>\u2603".encode())
    assert page == ("html", "", b"<p>")
    assert file == ("file", "y.txt", b"x")
    assert folder[:2] == ("file", "d.tar")


def test_dataclasses_are_mappings(job: Job, monitor: Monitor) -> None:
    @dataclasses.dataclass
    class Stats:
        mean: float
        more: dict[str, float]
        picture: Image

    monitor.log({"reward": Stats(0.5, {"max": 1.0}, Image(PIXELS))})
    numbers, picture = rows(job)
    assert numbers.metrics == {"reward/mean": 0.5, "reward/more/max": 1.0}
    assert picture.media[0].key == "reward/picture"


@pytest.mark.parametrize(
    "given",
    [
        Table([{"a": 1, "b": "x"}, {"a": 2}]),
        Table({"a": [1, 2], "b": ["x", None]}),
        Table([[1, "x"], [2, None]], ["a", "b"]),
        Table((["a", "b"], [[1, "x"], [2, None]])),
        Table(pd.DataFrame({"a": [1, 2], "b": pd.Series(["x", None], dtype=object)})),
        pd.DataFrame({"a": [1, 2], "b": pd.Series(["x", None], dtype=object)}),
    ],
    ids=["mappings", "columns", "rows", "pair", "boxed frame", "frame"],
)
def test_tables_of_any_form(job: Job, monitor: Monitor, given: object) -> None:
    monitor.log({"t": given})
    (row,) = rows(job)
    assert row.table is not None
    assert (row.table.name, row.table.columns, row.table.rows) == ("t", ("a", "b"), ((1, "x"), (2, None)))


def test_arrays_and_growing_tables(job: Job, monitor: Monitor) -> None:
    monitor.log({"t": Table(np.eye(2), ["a", "b"], append=True)})
    (row,) = rows(job)
    assert row.table is not None
    assert (row.table.rows, row.table.append) == (((1.0, 0.0), (0.0, 1.0)), True)


def test_cells_of_a_table_are_images(job: Job, monitor: Monitor) -> None:
    """An image of any form, beside numbers and text; what is none is text."""
    photo = PIL.Image.fromarray(PIXELS)
    cells = [[1, "a maze", Image(PIXELS, caption="step 1"), photo], [2, "x", None, GIF]]
    monitor.log({"samples": Table(cells, columns=["n", "text", "maze", "photo"])})
    monitor.log_table("other", [{"maze": Image(GIF)}])
    monitor.close()
    samples, other = (row.table for row in rows(job))
    assert samples is not None
    assert other is not None
    (number, text, maze, pillow), (*_, nothing, data) = samples.rows
    assert (number, text, nothing, data) == (1, "a maze", None, str(GIF))
    for cell, caption in ((maze, "step 1"), (pillow, "")):
        assert isinstance(cell, Media)
        assert (cell.key, cell.kind, cell.caption) == ("samples", "image", caption)
        assert cell.path is not None
        assert np.array_equal(pixels_of(cell.path), PIXELS)
    ((gif,),) = other.rows
    assert isinstance(gif, Media)
    assert gif.path is not None
    assert (gif.mime, gif.path.read_bytes()) == ("image/gif", GIF)


@pytest.mark.parametrize("cells", [[Image(b"no image")], [Image(PIXELS[:1, :1])] * 1001])
def test_table_of_bad_images_is_reported(
    job: Job, monitor: Monitor, caplog: pytest.LogCaptureFixture, cells: list[Image]
) -> None:
    monitor.log({"loss": 0.5, "samples": Table({"maze": cells})})
    monitor.close()
    assert [row.metrics for row in rows(job)] == [{"loss": 0.5}]
    assert monitor.dropped == 1
    assert "this Table cannot be logged: it " in caplog.text


def test_lost_image_of_a_cell_costs_its_table(job: Job, monitor: Monitor) -> None:
    monitor.log({"loss": 0.5, "samples": Table([{"maze": Image(PIXELS)}])})
    monitor.close()
    (file,) = (job.config.monitor_dir / "journal" / "trainer" / "1.files").iterdir()
    file.unlink()
    row, damage = read_all(Layout(job.config.monitor_dir), "trainer")
    assert isinstance(row, Row)
    assert isinstance(damage, Damage)
    assert (row.metrics, damage.reason) == ({"loss": 0.5}, f"its attachment {file.name} is missing")


def test_backend_without_such_cells_gets_paths(tmp_path: Path) -> None:
    """In a run that has them, a cell is a PNG file."""
    path = tmp_path / "1.ppm"
    path.write_bytes(netpbm(PIXELS.tobytes(), 5, 2, 3)[0])
    cell = Media(key="t", kind="image", path=path, mime="image/x-portable-anymap")
    table = TableData(name="t", columns=("n", "maze"), rows=((1, cell),))
    row = Row(writer="w", session=1, seq=1, step=1, time=1.0, table=table)
    pictures = Pictures()
    plain, rich = pictures.drawn(row).table, pictures.drawn(row, frozenset({"image"})).table
    assert plain is not None
    assert plain.rows == ((1, str(path)),)
    assert rich is not None
    ((_, drawn),) = rich.rows
    assert isinstance(drawn, Media)
    assert drawn.path is not None
    assert drawn.mime == "image/png"
    assert np.array_equal(np.asarray(PIL.Image.open(drawn.path)), PIXELS)
    pictures.clear()
    assert not drawn.path.exists()


@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_frames_are_a_gif(job: Job, monitor: Monitor, channels: int | None) -> None:
    """Stored as they are, and drawn by the courier; Pillow reads back the frames and how long each is shown."""
    shape = (3, 4, 6) if channels is None else (3, 4, 6, channels)
    frames = np.zeros(shape, np.uint8)
    frames[1], frames[2] = 128, 255
    monitor.log({"clip": Video(frames, fps=10, caption="three")}, 1)
    monitor.close()
    (row,) = rows(job)
    (stored,) = row.media
    assert (stored.kind, stored.caption) == ("video", "three")
    pictures = Pictures()
    (drawn,) = pictures.drawn(row).media
    assert drawn.path is not None
    assert (drawn.kind, drawn.mime, drawn.path.suffix) == ("video", "image/gif", ".gif")
    with PIL.Image.open(drawn.path) as gif:
        assert isinstance(gif, GifImageFile)
        assert (gif.n_frames, gif.size, gif.info["duration"]) == (3, (6, 4), 100)
        for number, value in enumerate((0, 128, 255)):
            gif.seek(number)
            assert np.unique(np.asarray(gif.convert("L"))).tolist() == [value]
    pictures.clear()


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (Video(np.zeros((0, 4, 4), np.uint8)), "frames, all of one size"),
        (Video(np.zeros((4, 4), np.uint8)), "an image has a height"),
        (Video([np.zeros((4, 4), np.uint8), np.zeros((4, 6), np.uint8)]), ""),
        (Video(np.zeros((2, 4, 4), np.uint8), fps=0), "some frames a second"),
        (Video(np.zeros((2, 4, 4), np.uint8), fps=float("nan")), "some frames a second"),
    ],
)
def test_bad_frames_are_reported(
    job: Job, monitor: Monitor, caplog: pytest.LogCaptureFixture, given: Video, reason: str
) -> None:
    monitor.log({"clip": given, "loss": 0.5})
    monitor.close()
    assert [row.metrics for row in rows(job)] == [{"loss": 0.5}]
    assert monitor.dropped == 1
    assert reason in caplog.text


def test_frames_need_pillow(
    job: Job, monitor: Monitor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monitor.log({"clip": Video(np.zeros((2, 4, 4), np.uint8))})
    assert "pip install pillow" in caplog.text


@pytest.mark.parametrize("data", [b"", b"text", b"P6\n1 1\n255\n123P6\n1 1\n255\n12", b"P6\n0 1\n255\n"])
def test_what_holds_no_frames_is_rejected(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "1.ppm"
    path.write_bytes(data)
    video = Media(key="clip", kind="video", path=path, mime="image/x-portable-anymap;fps=24.0")
    pictures = Pictures()
    with pytest.raises(Rejected, match="does not hold the frames"):
        pictures.drawn(Row(writer="w", session=1, seq=1, step=1, time=1.0, media=(video,)))
    pictures.clear()


@pytest.mark.parametrize("folder", [False, True])
def test_too_large_file_is_described(
    job: Job,
    monitor: Monitor,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    folder: bool,
) -> None:
    """Where it is, its size and its digest; that its content is not recorded is reported and counted."""
    monkeypatch.setattr("rolecall.job.media.LARGEST_ATTACHMENT", 1000)
    (tmp_path / "model").mkdir()
    path = tmp_path / "model" / "weights.bin"
    path.write_bytes(bytes(2000))
    given = path.parent if folder else path
    monitor.log({"model": File(given), "loss": 0.5})
    monitor.close()
    (described,) = media(job)
    assert described.path is not None
    assert (described.kind, described.mime, described.caption) == ("file", "application/json", f"{given.name}.json")
    digest = {} if folder else {"sha256": hashlib.sha256(bytes(2000)).hexdigest()}
    assert json.loads(described.path.read_bytes()) == {"path": str(given), "size": 2000, **digest}
    assert monitor.dropped == 1
    assert f"{given} has 2000 bytes, more than 1000; not its content is recorded" in caplog.text


def test_objects_of_other_libraries(job: Job, monitor: Monitor) -> None:
    """They are known by their names: nothing is imported for them."""

    def of(package: str, name: str, **content: Any) -> Any:
        return type(name, (), {"__module__": f"{package}.inner", **content})()

    def draw(_: object, file: io.BytesIO, format: str) -> None:  # noqa: A002 - matplotlib's name
        file.write(f"drawn as {format}".encode())

    monitor.log(
        {
            "figure": of("matplotlib", "Figure", savefig=draw),
            "plot": of("plotly", "BaseFigure", to_json=lambda _: '{"data": []}'),
            "table": of("wandb", "Table", columns=["a"], data=[[1]]),
            "histogram": of("wandb", "Histogram", histogram=[1, 2], bins=[0, 1, 2]),
            "html": of("wandb", "Html", html="<p>"),
        }
    )
    assert monitor.dropped == 0
    figure, plot, table, histogram, html = rows(job)
    (drawn,), (plotted,), (bins,), (page,) = figure.media, plot.media, histogram.media, html.media
    assert drawn.path is not None
    assert (drawn.kind, drawn.mime, drawn.path.read_bytes()) == ("figure", "image/png", b"drawn as png")
    assert (plotted.kind, plotted.mime) == ("figure", "application/vnd.plotly.v1+json")
    assert table.table is not None
    assert table.table.rows == ((1,),)
    assert (bins.counts, page.kind) == ((1, 2), "html")


# ---------------------------------------------------------------- attachments


def damages(job: Job) -> Sequence[Damage]:
    return [each for each in read_all(Layout(job.config.monitor_dir), "trainer") if isinstance(each, Damage)]


@pytest.mark.parametrize("change", ["missing", "short", "altered", "a link"])
def test_row_without_its_file_is_left_out(job: Job, monitor: Monitor, tmp_path: Path, change: str) -> None:
    """It costs no other row of its line."""
    monitor.log({"loss": 0.5, "a": Html("first"), "b": Html("second"), "c": Html("third")})
    path = next(each.path for each in media(job) if each.key == "b")
    assert path is not None
    if change == "altered":
        path.write_bytes(b"secont")
    elif change == "short":
        path.write_bytes(b"seco")
    else:
        path.rename(tmp_path / "away")
        if change == "a link":
            path.symlink_to(tmp_path / "away")
    assert [row.seq for row in rows(job)] == [1, 2, 4]
    (damage,) = damages(job)
    assert damage.lost == "row 3 is left out"
    assert "attachment" in damage.reason


def test_journal_that_goes_on_keeps_attachments(job: Job, monitor: Monitor) -> None:
    """Its file was changed from outside."""
    monitor.log({"loss": 0.5, "a": Html("first")})
    journal = job.config.monitor_dir / "journal" / "trainer"
    (journal / "1.jsonl").rename(journal / "away")
    for _ in range(3):
        monitor.log({"loss": 0.5, "b": Html("second")})
        monitor._journal._look_at = 0  # type: ignore[union-attr]
    assert (journal / "2.jsonl").exists()
    assert [row.seq for row in rows(job)] == list(range(1, 9))
    assert monitor.lost == 0


# ------------------------------------------------------------------- pictures


def test_pictures_are_kept_until_cleared(tmp_path: Path) -> None:
    data, suffix = netpbm(PIXELS.tobytes(), 5, 2, 3)
    path = tmp_path / f"x{suffix}"
    path.write_bytes(data)
    bare = Media(key="a", kind="image", path=path, mime="image/x-portable-anymap", caption="c")
    row = Row(writer="w", session=1, seq=1, step=1, time=1.0, media=(bare, bare))
    pictures = Pictures()
    drawn = pictures.drawn(row)
    (first, second) = (media.path for media in drawn.media)
    assert first == second != path
    assert first is not None
    assert {(media.mime, media.caption) for media in drawn.media} == {("image/png", "c")}
    assert first.read_bytes().startswith(b"\x89PNG")
    pictures.clear()
    assert not first.exists()
    assert path.exists()


@pytest.mark.parametrize("data", [b"", b"text", b"P6\n3 2\n255\n12", b"P6\n0 2\n255\n", b"P7\nWIDTH 1\nENDHDR\n12"])
def test_what_holds_no_pixels_is_rejected(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.ppm"
    path.write_bytes(data)
    media = Media(key="a", kind="image", path=path, mime="image/x-portable-anymap")
    pictures = Pictures()
    with pytest.raises(Rejected, match="pixels"):
        pictures.drawn(Row(writer="w", session=1, seq=1, step=1, time=1.0, media=(media,)))
    pictures.clear()
