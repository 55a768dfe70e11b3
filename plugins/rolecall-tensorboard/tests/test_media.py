"""What TensorBoard reads of images, histograms and other media."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import wave
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from stopped import children, stop
from tensorboardX.record_writer import masked_crc32c

from rolecall import (
    Audio,
    File,
    Histogram,
    Html,
    Image,
    Media,
    MediaKind,
    MonitorConfig,
    Rejected,
    Row,
    SupportsMedia,
    Table,
    TableData,
    Text,
    Unavailable,
    Video,
    launch,
    open_monitor,
)
from rolecall.__main__ import main
from rolecall_tensorboard.records import checksum
from rolecall_tensorboard.records.markdown import MOST_CHARACTERS
from rolecall_tensorboard.records.media import MOST_BYTES
from rolecall_tensorboard.run import TensorBoardRun

Open = Callable[..., TensorBoardRun]
MakeRow = Callable[..., Row]
Read = Callable[[str], dict[str, list[tuple[int, float]]]]
Texts = Callable[[str], dict[str, list[tuple[int, str]]]]
MakeMedia = Callable[..., Media]


@pytest.fixture
def media(tmp_path: Path) -> MakeMedia:
    """Media of one file, whose bytes may be anything."""
    count = iter(range(10**6))

    def make(kind: MediaKind, data: bytes, mime: str, key: str = "key") -> Media:
        path = tmp_path / f"{next(count)}.bin"
        path.write_bytes(data)
        return Media(key=key, kind=kind, path=path, mime=mime)

    return make


@pytest.fixture
def strings(accumulate: Callable[[str], Any]) -> Callable[[str, str], tuple[str, list[tuple[int, list[bytes]]]]]:
    """The plugin that shows a tag, and the strings of each step."""

    def read(directory: str, tag: str) -> tuple[str, list[tuple[int, list[bytes]]]]:
        found = accumulate(directory)
        plugin = found.SummaryMetadata(tag).plugin_data.plugin_name
        return plugin, [(event.step, list(event.tensor_proto.string_val)) for event in found.Tensors(tag)]

    return read


Strings = Callable[[str, str], tuple[str, list[tuple[int, list[bytes]]]]]


def test_images_of_a_table(open_run: Open, row: MakeRow, media: MakeMedia, strings: Strings, read_text: Texts) -> None:
    """The text has their captions; each column is one card."""
    run = open_run()
    images = [replace(media("image", data, "image/png"), caption=f"no. {data[0]}") for data in (b"1", b"2", b"3")]
    cells = ((1, images[0], images[2]), (2, images[1], None))
    run.log_table(row(1, {}, table=TableData(name="samples", columns=("n", "maze", "end"), rows=cells)))
    run.log([row(2)])
    run.flush(1.0)
    assert strings(run.id, "samples/maze") == ("images", [(1, [b"0", b"0", b"1", b"2"])])
    assert strings(run.id, "samples/end") == ("images", [(1, [b"0", b"0", b"3"])])
    assert "no&#46; 49 |" in read_text(run.id)["samples/text_summary"][0][1]
    assert run.held("explorer/0", 1) == [(1, 2)]


def test_table_of_large_images_is_rejected(open_run: Open, row: MakeRow, media: MakeMedia) -> None:
    run = open_run()
    image = media("image", b"", "image/png")
    assert image.path is not None
    os.truncate(image.path, MOST_BYTES + 1)
    with pytest.raises(Rejected, match="at most 64 MiB"):
        run.log_table(row(1, {}, table=TableData(name="t", columns=("maze",), rows=((image,),))))


def test_run_supports_media(open_run: Open) -> None:
    run = open_run()
    assert isinstance(run, SupportsMedia)
    assert run.media_kinds == {"image", "histogram", "html", "markdown", "audio", "video", "figure"}


@pytest.mark.parametrize(
    ("kind", "mime"),
    [
        ("image", "image/png"),
        ("image", "image/jpeg"),
        ("image", "image/webp"),
        ("video", "image/gif"),
        ("figure", "image/png"),
    ],
)
def test_images_keep_their_bytes(
    open_run: Open, row: MakeRow, media: MakeMedia, strings: Strings, kind: MediaKind, mime: str
) -> None:
    run = open_run()
    data = os.urandom(100_000)
    run.log_media(row(1, {}, media=(media(kind, data, mime),)))
    assert strings(run.id, "key") == ("images", [(1, [b"0", b"0", data])])


def test_list_of_images_is_one_tag(open_run: Open, row: MakeRow, media: MakeMedia, strings: Strings) -> None:
    run = open_run()
    for step, count in enumerate((3, 1, 2), 1):
        run.log_media(row(step, {}, media=tuple(media("image", b"%d" % at, "image/png") for at in range(count))))
    expected = [(step, [b"0", b"0", *(b"%d" % at for at in range(count))]) for step, count in ((1, 3), (2, 1), (3, 2))]
    assert strings(run.id, "key") == ("images", expected)


def test_histogram_keeps_counts_and_edges(open_run: Open, row: MakeRow, accumulate: Callable[[str], Any]) -> None:
    from tensorboard.util.tensor_util import make_ndarray

    run = open_run()
    run.log_media(row(1, {}, media=(Media(key="h", kind="histogram", counts=(2, 0, 1e9), edges=(-0.1, 0, 1, 1e3)),)))
    found = accumulate(run.id)
    assert found.SummaryMetadata("h").plugin_data.plugin_name == "histograms"
    tensor = make_ndarray(found.Tensors("h")[0].tensor_proto)
    assert tensor.tolist() == [[-0.1, 0, 2], [0, 1, 0], [1, 1e3, 1e9]]


def test_sounds_keep_their_bytes(open_run: Open, row: MakeRow, media: MakeMedia, strings: Strings) -> None:
    """A list of them has a tag for each."""
    run = open_run()
    run.log_media(row(1, {}, media=(media("audio", b"one", "audio/wav"),)))
    run.log_media(row(2, {}, media=(media("audio", b"two", "audio/wav"), media("audio", b"three", "audio/wav"))))
    assert strings(run.id, "key") == ("audio", [(1, [b"one"])])
    assert strings(run.id, "key/0") == ("audio", [(2, [b"two"])])
    assert strings(run.id, "key/1") == ("audio", [(2, [b"three"])])


def test_html_is_text_as_code(open_run: Open, row: MakeRow, media: MakeMedia, read_text: Texts) -> None:
    run = open_run()
    run.log_media(row(1, {}, media=(media("html", b"<b>all\n\nis \xff well</b>", "text/html"),)))
    run.log_media(row(2, {}, media=(media("html", b"x" * (MOST_CHARACTERS + 7), "text/html"),)))
    (first, long) = read_text(run.id)["key/text_summary"]
    assert first == (1, "    <b>all\n\n    is \ufffd well</b>")
    assert long[1].endswith("x\n\n7 more characters are in the job's directory.")


@pytest.mark.parametrize(
    ("kind", "mime", "why"),
    [
        ("audio", "audio/mpeg", "plays WAV files alone"),
        ("video", "video/mp4", "no videos but GIF files"),
        ("figure", "application/vnd.plotly.v1+json", "figures of Matplotlib alone"),
    ],
)
def test_other_formats_are_rejected(
    open_run: Open, row: MakeRow, media: MakeMedia, kind: MediaKind, mime: str, why: str
) -> None:
    with pytest.raises(Rejected, match=f"{why}; others stay in the job's directory"):
        open_run().log_media(row(1, {}, media=(media(kind, b"data", mime),)))


def test_files_too_large_are_rejected(open_run: Open, row: MakeRow, media: MakeMedia) -> None:
    large = media("image", b"", "image/png")
    assert large.path is not None
    os.truncate(large.path, MOST_BYTES + 1)
    with pytest.raises(Rejected, match="at most 64 MiB"):
        open_run().log_media(row(1, {}, media=(large,)))


def test_missing_file_writes_nothing(open_run: Open, row: MakeRow, media: MakeMedia, read: Read) -> None:
    run = open_run()
    image = media("image", b"png", "image/png")
    assert image.path is not None
    image.path.unlink()
    with pytest.raises(Unavailable, match="No such file"):
        run.log_media(row(1, {}, media=(image,)))
    run.log([row(2)])
    assert run.held("explorer/0", 1) == [(2, 2)]


def test_image_of_ten_megabytes(open_run: Open, row: MakeRow, media: MakeMedia, strings: Strings) -> None:
    data = os.urandom(10 << 20)
    image = media("image", data, "image/png")
    first = open_run()
    first.log_media(row(1, {}, media=(image,)))
    first.flush(1.0)
    run = open_run()
    assert run.held("explorer/0", 1) == [(1, 1)]
    run.log_media(row(1, {}, media=(image,)))
    assert strings(run.id, "key") == ("images", [(1, [b"0", b"0", data])])


@pytest.mark.parametrize("length", [4, 1023, 1024, 1025, 1 << 14, 100_001])
def test_checksum_is_that_of_tensorboardx(length: int) -> None:
    for data in (bytes(length), b"\xff" * length, os.urandom(length)):
        assert checksum.masked_crc32c(data) == masked_crc32c(data)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.999])
def test_media_cut_off_come_again(
    open_run: Open, row: MakeRow, media: MakeMedia, strings: Strings, read: Read, part: float
) -> None:
    """As after a power cut amid the record of the last image."""
    images = {seq: media("image", os.urandom(50_000), "image/png") for seq in (2, 4)}
    rows = [row(seq, {}, media=(images[seq],)) if seq in images else row(seq) for seq in range(1, 6)]
    first = open_run()
    first.log([rows[0]])
    first.log_media(rows[1])
    first.log([rows[2]])
    (file,) = Path(first.id).iterdir()
    size = file.stat().st_size
    first.log_media(rows[3])
    os.truncate(file, size + int((file.stat().st_size - size) * part))
    run = open_run()
    assert run.held("explorer/0", 1) == [(1, 3)]
    for each in rows:
        run.log_media(each) if each.media else run.log([each])
    found = [(seq, [b"0", b"0", image.path.read_bytes()]) for seq, image in images.items() if image.path]
    assert strings(run.id, "key") == ("images", found)
    assert [step for step, _ in read(run.id)["reward"]] == [1, 3, 5]


KILLED = """
import sys
from pathlib import Path
from rolecall import Media, Row, RunTicket
from rolecall_tensorboard import plugin
from rolecall_tensorboard.args import TensorBoardArgs

folder = Path(sys.argv[1])
ticket = RunTicket(project="p", name="n", group="g", run_id="k3x9", backend_run_id=None, shared=False, primary=True,
                   writer="explorer/0", role="explorer", config={}, directory=folder, pid=1)
run = plugin.open_run(ticket, TensorBoardArgs())
image = Media(key="key", kind="image", path=Path(sys.argv[2]), mime="image/png")
for seq in range(1, 10_000):
    row = Row(writer="explorer/0", session=1, seq=seq, step=seq, time=1.7e9 + seq, media=(image,))
    run.log_media(row)
    if seq % 10 == 0:
        run.flush(1.0)
    print(seq, flush=True)
"""


@pytest.mark.processes
def test_killed_courier_doubles_no_image(
    open_run: Open, row: MakeRow, media: MakeMedia, strings: Strings, folder: Path
) -> None:
    data = os.urandom(300_000)
    image = media("image", data, "image/png")
    for last in (3, 17, 28):
        command = [sys.executable, "-c", KILLED, str(folder), str(image.path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as courier:
            assert courier.stdout is not None
            assert any(int(line) >= last for line in courier.stdout)
            courier.send_signal(signal.SIGKILL)
    run = open_run()
    ((first, held),) = run.held("explorer/0", 1)
    assert first == 1
    assert held >= 28
    for seq in range(1, held + 3):
        run.log_media(row(seq, {}, media=(image,)))
    plugin, found = strings(run.id, "key")
    assert plugin == "images"
    assert [step for step, _ in found] == list(range(1, held + 3))
    assert all(values == [b"0", b"0", data] for _, values in found)


def wav(samples: int) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 8000, samples, "NONE", ""))
        sound.writeframes(bytes(2 * samples))
    return file.getvalue()


def log_each_kind(directory: Path, steps: Sequence[int]) -> Path:
    """A job that logs media of each kind at each step."""
    import numpy as np

    config = MonitorConfig(
        project="gsm8k", name="grpo-1", monitor_type="tensorboard", monitor_dir=directory / "job", courier="thread"
    )
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        for step in steps:
            pixels = np.full((4, 6, 3), step, np.uint8)
            values: dict[str, Any] = {"loss": 1 / step, "maze": Image(pixels), "mazes": [Image(pixels), Image(pixels)]}
            values |= {"tone": Audio(wav(100)), "page": Html("<b>well</b>"), "clip": Video(b"GIF89a")}
            values |= {"spread": Histogram([1, 2, 3], bins=2), "mp3": Audio(b"ID3data"), "file": File(__file__)}
            monitor.log(values, step)
        assert monitor.dropped == 0
    return config.monitor_dir


def test_job_delivers_each_kind(tmp_path: Path, strings: Strings, accumulate: Callable[[str], Any]) -> None:
    from PIL import Image as Pillow

    directory = str(log_each_kind(tmp_path, (1, 2, 3)) / "backends" / "tensorboard" / "trainer")
    plugin, maze = strings(directory, "maze")
    assert plugin == "images"
    assert [step for step, _ in maze] == [1, 2, 3]
    picture = Pillow.open(io.BytesIO(maze[1][1][2]))
    assert (picture.size, picture.getpixel((5, 3))) == ((6, 4), (2, 2, 2))
    assert [len(values) for _, values in strings(directory, "mazes")[1]] == [4, 4, 4]
    assert strings(directory, "tone") == ("audio", [(step, [wav(100)]) for step in (1, 2, 3)])
    assert strings(directory, "clip")[1][0] == (1, [b"0", b"0", b"GIF89a"])
    tensors = {"maze", "mazes", "tone", "clip", "spread", "page/text_summary"}
    assert tensors <= set(accumulate(directory).Tags()["tensors"]) <= {*tensors, "run_config/text_summary"}


def test_spoiled_image_is_reported_once(
    tmp_path: Path, strings: Strings, read: Read, caplog: pytest.LogCaptureFixture
) -> None:
    """Its file is cut short before it is delivered: its number and the rows behind it are delivered without it."""
    config = MonitorConfig(project="p", name="n", monitor_type="tensorboard", monitor_dir=tmp_path / "monitor")
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        # What is logged while the couriers are stopped is not delivered yet.
        for courier in children():
            stop(courier)
        for step in (1, 2, 3):
            monitor.log({"loss": step / 2, "maze": Image(bytes_of_gif(step))}, step)
        (path,) = (path for path in tmp_path.rglob("*.gif") if path.read_bytes() == bytes_of_gif(2))
        os.truncate(path, 6)
        for courier in children():
            os.kill(courier, signal.SIGCONT)
    directory = str(tmp_path / "monitor" / "backends" / "tensorboard" / "trainer")
    assert strings(directory, "maze")[1] == [(step, [b"0", b"0", bytes_of_gif(step)]) for step in (1, 3)]
    assert read(directory)["loss"] == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert len([text for text in caplog.messages if f"its attachment {path.name} is damaged" in text]) == 1


def bytes_of_gif(step: int) -> bytes:
    return b"GIF89a" + bytes([step])


def test_job_delivers_text_and_cells(tmp_path: Path, strings: Strings, read_text: Texts) -> None:
    """Strings, and a table with images, logged as a user logs them."""
    import numpy as np
    from PIL import Image as Pillow

    config = MonitorConfig(
        project="gsm8k", name="grpo-1", monitor_type="tensorboard", monitor_dir=tmp_path / "job", courier="thread"
    )
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"note": Text("NaN"), "essay": Text("# A\n*b*", markdown=True)}, 4)
        maze = Image(np.full((4, 6, 3), 9, np.uint8), caption="the end")
        monitor.log({"note": Text("halfway"), "phase": "warm-up", "samples": Table([{"n": 1, "maze": maze}])}, 5)
    directory = str(config.monitor_dir / "backends" / "tensorboard" / "trainer")
    plugin, cells = strings(directory, "samples/maze")
    assert plugin == "images"
    assert Pillow.open(io.BytesIO(cells[0][1][2])).getpixel((5, 3)) == (9, 9, 9)
    texts = read_text(directory)
    assert texts["note/text_summary"] == [(4, "NaN"), (5, "halfway")]
    assert texts["essay/text_summary"] == [(4, "# A\n*b*")]
    assert texts["phase/text_summary"] == [(5, "warm-up")]
    assert "the end" in texts["samples/text_summary"][0][1]


def test_job_delivers_growing_table(tmp_path: Path, read_text: Texts) -> None:
    """Each step has a table of its new rows: what TensorBoard shows of an older step stays as it was."""
    config = MonitorConfig(
        project="gsm8k", name="grpo-1", monitor_type="tensorboard", monitor_dir=tmp_path / "job", courier="thread"
    )
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        for step in (1, 2, 5):
            monitor.log({"samples": Table([{"n": step, "text": f"at {step}"}], append=True)}, step)
    found = read_text(str(config.monitor_dir / "backends" / "tensorboard" / "trainer"))["samples/text_summary"]
    cells = [(step, [cell.strip() for cell in text.splitlines()[-1].split("|")[1:-1]]) for step, text in found]
    assert cells == [(1, ["1", "at 1"]), (2, ["2", "at 2"]), (5, ["5", "at 5"])]


def test_job_delivers_figures(tmp_path: Path, strings: Strings, caplog: pytest.LogCaptureFixture) -> None:
    """Of Matplotlib as images; of Plotly as it was logged, in the job's directory, which is reported once."""
    from PIL import Image as Pillow

    figures = pytest.importorskip("matplotlib.figure")
    plotly = pytest.importorskip("plotly.graph_objects")
    config = MonitorConfig(project="p", name="n", monitor_type="tensorboard", monitor_dir=tmp_path / "job")
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        for step in (1, 2):
            figure = figures.Figure(figsize=(step, 2), dpi=50)
            figure.subplots().plot([1, 2, step])
            monitor.log({"curve": figure, "plot": plotly.Figure(plotly.Scatter(y=[1, 2, step])), "loss": 0.5}, step)
        assert monitor.dropped == 0
    directory = str(config.monitor_dir / "backends" / "tensorboard" / "trainer")
    plugin, drawn = strings(directory, "curve")
    assert plugin == "images"
    assert [(step, Pillow.open(io.BytesIO(data[2])).size) for step, data in drawn] == [(1, (50, 100)), (2, (100, 100))]
    kept = sorted((config.monitor_dir / "journal" / "trainer" / "1.files").glob("plot-*"))
    assert sorted(json.loads(path.read_text())["data"][0]["y"] for path in kept) == [[1, 2, 1], [1, 2, 2]]
    assert len([text for text in caplog.messages if "figures of Matplotlib alone" in text]) == 1


class Refusals(NamedTuple):
    """What a run refused, and the rows of the journal that hold it."""

    reasons: Counter[str]
    seqs: set[tuple[int, int]]


def refusals(job: Path) -> Refusals:
    """By the acknowledgements of all couriers."""
    reasons: Counter[str] = Counter()
    seqs: set[tuple[int, int]] = set()
    for path in (job / "delivery" / "tensorboard" / "trainer").glob("*.jsonl"):
        for line in map(json.loads, path.read_text().splitlines()):
            if refused := line.get("rejected"):
                reasons[refused["reason"].partition(";")[0]] += 1
                seqs.add((refused["session"], refused["seq"]))
    return Refusals(reasons, seqs)


def test_refused_kinds_are_reported_once(
    tmp_path: Path, accumulate: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """What TensorBoard cannot hold is in the job's directory, and is not sent again after a restart."""
    directory = tmp_path / "job"
    config = MonitorConfig(
        project="p", name="n", monitor_type="tensorboard", monitor_dir=directory, resume="allow", courier="thread"
    )
    expected = {
        "TensorBoard plays WAV files alone": b"ID3 sound",
        "TensorBoard shows no videos but GIF files": b"\x1aE\xdf\xa3 film",
        "it holds nothing of the kind 'file'": Path(__file__).read_bytes(),
    }
    for session in (1, 2):
        with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
            for step in (2 * session - 1, 2 * session):
                values = {"tone": Audio(b"ID3 sound"), "film": Video(b"\x1aE\xdf\xa3 film"), "file": File(__file__)}
                monitor.log({"loss": step / 2, **values}, step)
        assert refusals(directory).reasons == dict.fromkeys(expected, 2 * session), "each row once"
        assert refusals(directory).seqs == {(at, seq) for at in range(1, session + 1) for seq in (2, 3, 4, 6, 7, 8)}
        for reason in expected:
            assert len([text for text in caplog.messages if reason in text]) == 1, reason
        caplog.clear()
    run = accumulate(str(directory / "backends" / "tensorboard" / "trainer"))
    assert [(event.step, event.value) for event in run.Scalars("loss")] == [(1, 0.5), (2, 1.0), (3, 1.5), (4, 2.0)]
    assert not {"tone", "film", "file"} & set(run.Tags()["tensors"])
    kept = [path.read_bytes() for path in (directory / "journal" / "trainer").glob("*.files/*")]
    assert Counter(kept) == dict.fromkeys(expected.values(), 4)
    deliver = ["deliver", str(directory)]
    before = refusals(directory)
    assert main(deliver) == 0
    assert refusals(directory) == before


def test_repair_keeps_media(tmp_path: Path, strings: Strings, read: Read) -> None:
    """A file without its last half has lost points and images: the points come back, and no image twice."""
    job = log_each_kind(tmp_path, range(1, 41))
    directory = job / "backends" / "tensorboard" / "trainer"
    (file,) = directory.glob("*tfevents*")
    os.truncate(file, file.stat().st_size // 2)
    images = strings(str(directory), "maze")[1]
    assert main(["verify", str(job), "--repair"]) == 0
    assert [step for step, _ in read(str(directory))["loss"]] == list(range(1, 41))
    assert 0 < len(images) < 40
    assert strings(str(directory), "maze")[1] == images
