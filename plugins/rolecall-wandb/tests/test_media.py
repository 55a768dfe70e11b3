"""Media in runs of wandb: the entries of history lines, and the files that they name."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version
from wandb_core import courier_of
from wandb_emulator import Fault, StoredRun, WandbServer
from wandb_offline import offline_runs, sync
from wandb_scene import RUN, Scene, kill_tree

import rolecall_wandb.server
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
    RunTicket,
    Table,
    Text,
    Unavailable,
    Video,
    launch,
    open_monitor,
)
from rolecall.store.acks import rejections, undelivered
from rolecall.store.layout import Layout
from rolecall_wandb.args import WandbArgs
from rolecall_wandb.media import KINDS, entry_of
from rolecall_wandb.pictures import size_of_picture
from rolecall_wandb.pieces import size_of
from rolecall_wandb.plugin import open_run
from rolecall_wandb.server import NotStored, RunPath, server_of

Make = Callable[..., MonitorConfig]

SHARED = pytest.mark.parametrize("shared", [True, pytest.param(False, marks=pytest.mark.servers)])
WEBM = b"\x1aE\xdf\xa3 a video"
OGG = b"OggS a video"
MP3 = b"ID3 a sound"
FIGURE = b'{"data": [], "layout": {}}'


def png(width: int, height: int) -> bytes:
    """A picture of one colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(height * (1 + width)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def row(*media: Media, seq: int = 1, step: int = 7) -> Row:
    return Row(writer="trainer", session=1, seq=seq, step=step, time=1.7e9, media=media)


def ticket(folder: Path, *, shared: bool) -> RunTicket:
    return RunTicket(
        project="gsm8k",
        name="grpo-1",
        group=None,
        run_id=RUN,
        backend_run_id=None,
        shared=shared,
        primary=True,
        writer="trainer",
        role="trainer",
        config={},
        directory=folder / "wandb",
        pid=os.getpid(),
    )


def stored(folder: Path, data: bytes, name: str, kind: MediaKind, mime: str = "", caption: str = "") -> Media:
    path = folder / name
    path.write_bytes(data)
    return Media(key="a/key", kind=kind, path=path, mime=mime, caption=caption)


# ------------------------------------------------------------------ entries


def test_entry_of_an_image(tmp_path: Path) -> None:
    data = png(3, 2)
    entry, files = entry_of(row(stored(tmp_path, data, "1.png", "image", "image/png", "a maze")))
    digest = hashlib.sha256(data).hexdigest()
    name = f"media/images/a_key_7_{digest[:20]}.png"
    assert entry == {
        "a/key": {
            "_type": "image-file",
            "path": name,
            "sha256": digest,
            "size": len(data),
            "caption": "a maze",
            "format": "png",
            "width": 3,
            "height": 2,
        }
    }
    assert files == {name: tmp_path / "1.png"}


def test_entry_of_several_images(tmp_path: Path) -> None:
    images = [stored(tmp_path, png(3, at), f"{at}.png", "image", caption=f"no. {at}") for at in (2, 4)]
    entry, files = entry_of(row(*images))
    assert entry["a/key"] == {
        "_type": "images/separated",
        "format": "png",
        "width": 3,
        "height": 2,
        "count": 2,
        "captions": ["no. 2", "no. 4"],
        "filenames": list(files),
    }


@pytest.mark.parametrize(
    ("kind", "mime", "name", "type_", "stored_as"),
    [
        ("html", "text/html", "1.html", "html-file", "html/*.html"),
        ("audio", "audio/mpeg", "1.mp3", "audio-file", "audio/*.mp3"),
        ("video", "video/ogg", "1.ogv", "video-file", "videos/*.ogg"),
        ("figure", "image/png", "1.png", "image-file", "images/*.png"),
        ("figure", "application/vnd.plotly.v1+json", "1.json", "plotly-file", "plotly/*.plotly.json"),
    ],
)
def test_entry_of_each_kind(tmp_path: Path, kind: MediaKind, mime: str, name: str, type_: str, stored_as: str) -> None:
    entry, files = entry_of(row(stored(tmp_path, b"content", name, kind, mime)))
    (path,) = files
    assert (entry["a/key"]["_type"], entry["a/key"]["path"]) == (type_, path)
    assert Path(path).match(f"media/{stored_as}")
    assert entry["a/key"]["size"] == len(b"content")


@pytest.mark.parametrize(
    ("kind", "type_", "key"), [("audio", "audio", "audio"), ("video", "videos", "videos"), ("html", "html", "html")]
)
def test_entry_of_several_of_a_kind(tmp_path: Path, kind: MediaKind, type_: str, key: str) -> None:
    entry, files = entry_of(row(*(stored(tmp_path, bytes([at]), f"{at}.x", kind) for at in (1, 2))))
    assert (entry["a/key"]["_type"], entry["a/key"]["count"]) == (type_, 2)
    assert [each["path"] for each in entry["a/key"][key]] == list(files)


def test_entry_of_figures_of_two_types(tmp_path: Path) -> None:
    drawn = stored(tmp_path, png(1, 1), "1.png", "figure", "image/png")
    plotly = stored(tmp_path, FIGURE, "2.plotly.json", "figure", "application/vnd.plotly.v1+json")
    entry, _ = entry_of(row(drawn, plotly))
    assert [each["_type"] for each in entry["a/key"]] == ["image-file", "plotly-file"]


def test_file_keeps_its_name(tmp_path: Path) -> None:
    entry, files = entry_of(row(stored(tmp_path, b"x", "1.bin", "file", caption="../model weights.bin")))
    (path,) = files
    assert (path.split("/")[0:2], path.split("/")[-1]) == (["media", "files"], "_model_weights.bin")
    assert entry["a/key"]["_type"] == "file"
    assert "caption" not in entry["a/key"]


@pytest.mark.parametrize("key", ["../../etc/passwd", "/", "..", "奖励", "k" * 512, "a*b?[c]"])
def test_names_of_files_lead_nowhere(tmp_path: Path, key: str) -> None:
    media = replace(stored(tmp_path, b"x", "1.html", "html"), key=key)
    (name,) = entry_of(row(media))[1]
    folder, kind, file = name.split("/")
    assert (folder, kind) == ("media", "html")
    assert file.isascii()
    assert not file.startswith(".")
    assert not set(file) & set("*?[]")
    assert len(file) < 200


def test_entry_of_a_histogram() -> None:
    media = Media(key="h", kind="histogram", counts=(1.0, 3.0), edges=(0.0, 0.5, 1.0))
    entry, files = entry_of(row(media))
    assert entry == {"h": {"_type": "histogram", "values": [1.0, 3.0], "bins": [0.0, 0.5, 1.0]}}
    assert files == {}


def test_histogram_of_too_many_bins_is_rejected() -> None:
    media = Media(key="h", kind="histogram", counts=(1.0,) * 513, edges=tuple(map(float, range(514))))
    with pytest.raises(Rejected, match="up to 512 bins, 'h' has 513"):
        entry_of(row(media))


def test_missing_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="a file of 'a/key' cannot be read"):
        entry_of(row(Media(key="a/key", kind="html", path=tmp_path / "gone.html")))


JPEG = (
    b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    b"\xff\xc0\x00\x11\x08\x00\x02\x00\x03\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"
)
WEBP = b"RIFF\x00\x00\x00\x00WEBPVP8"


@pytest.mark.parametrize(
    "data",
    [
        png(3, 2),
        b"GIF89a\x03\x00\x02\x00\x00\x00\x00",
        JPEG,
        WEBP + b"X" + bytes(8) + b"\x02\x00\x00\x01\x00\x00",
        WEBP + b"L" + bytes(4) + b"\x2f\x02\x40\x00\x00",
        WEBP + b" " + bytes(4) + b"\x00\x00\x00\x9d\x01\x2a\x03\x00\x02\x00",
    ],
)
def test_size_of_a_picture(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "picture").write_bytes(data)
    assert size_of_picture(tmp_path / "picture") == (3, 2)


@pytest.mark.parametrize("data", [b"", b"\x89PNG", JPEG[:24], b"\xff\xd8 no segment", b"text"])
def test_size_of_no_picture(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "picture").write_bytes(data)
    assert size_of_picture(tmp_path / "picture") is None


def test_media_count_as_bytes_under_way() -> None:
    media = Media(key="h", kind="histogram", counts=(1 / 3,) * 512, edges=(1 / 3,) * 513)
    entry, _ = entry_of(row(media))
    assert len(json.dumps(entry)) <= size_of(row(media)) <= 2 * len(json.dumps(entry))


# ------------------------------------------------------------------ uploads


@pytest.fixture
def path(server: WandbServer) -> RunPath:
    server.state.run("a run")
    return RunPath("team", "a project", "a run")


@pytest.mark.parametrize("data", [b"", b"content"])
def test_server_has_an_uploaded_file(server: WandbServer, path: RunPath, tmp_path: Path, data: bytes) -> None:
    server.state.keys = {os.environ["WANDB_API_KEY"]}
    (tmp_path / "file").write_bytes(data)
    server_of(WandbArgs()).upload(path, {"media/html/a.html": tmp_path / "file"})
    run = server.run("a run")
    assert run.files == {"media/html/a.html": data}
    assert [post["uploaded"] for _, _, post in run.posts] == [["media/html/a.html"]]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("upload", answer=503), Unavailable),
        (Fault("upload", answer=429), Unavailable),
        (Fault("upload", answer=403), NotStored),
        (Fault("stream", answer=502), Unavailable),
        (Fault("query", body='{"errors": [{"message": "no room"}]}'), NotStored),
        (Fault("query", body='{"data": {"createRunFiles": null}}'), NotStored),
    ],
)
def test_upload_that_fails(
    server: WandbServer, path: RunPath, tmp_path: Path, fault: Fault, error: type[Exception]
) -> None:
    server.faults.add(fault)
    (tmp_path / "file").write_bytes(b"content")
    with pytest.raises(error):
        server_of(WandbArgs()).upload(path, {"media/html/a.html": tmp_path / "file"})


def test_upload_to_nobody(path: RunPath, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    nobody = rolecall_wandb.server.Server("http://127.0.0.1:9", None)
    with pytest.raises(Unavailable, match="cannot be reached"):
        nobody.upload(path, {"media/html/a.html": tmp_path / "file"})


# --------------------------------------------------------------------- runs


def everything(folder: Path) -> Mapping[str, Any]:
    (folder / "notes.txt").write_text("notes")
    return {
        "loss": 0.5,
        "maze": Image(png(3, 2), caption="one"),
        "mazes": [Image(png(3, at)) for at in (2, 4)],
        "advantages": Histogram(counts=[1, 3], edges=[0, 0.5, 1]),
        "report": Html("<b>well</b>"),
        "tone": Audio(MP3),
        "tones": [Audio(MP3), Audio(b"\xff\xfb another")],
        "film": Video(WEBM),
        "films": [Video(OGG), Video(WEBM)],
        "notes": File(folder / "notes.txt"),
        "samples": Table([{"prompt": "1+1"}]),
        "phase": "warm-up",
        "note": Text("NaN"),
        "essay": Text("# Half *way*", markdown=True),
    }


TYPES = {
    "maze": "image-file",
    "mazes": "images/separated",
    "advantages": "histogram",
    "report": "html-file",
    "tone": "audio-file",
    "tones": "audio",
    "film": "video-file",
    "films": "videos",
    "notes": "file",
    "samples": "table-file",
    "essay": "html-file",
}


def lines_with(run: StoredRun, key: str) -> list[Mapping[str, Any]]:
    return [{**entry.line, "_step": entry.step} for entry in run.history if key in entry.line]


def paths_in(value: Any) -> list[str]:
    """All names of files in an entry."""
    if isinstance(value, list):
        return [path for each in value for path in paths_in(each)]
    if not isinstance(value, dict):
        return []
    nested = [path for each in value.values() for path in paths_in(each)]
    return [*([value["path"]] if "path" in value else []), *value.get("filenames", []), *nested]


def check_everything(run: StoredRun, prefix: str, steps: Sequence[int]) -> None:
    """Each kind is in one line of each step, and the server has the files that the line names."""
    axis = f"{prefix}step" if prefix else "_step"
    for key, type_ in TYPES.items():
        lines = lines_with(run, prefix + key)
        assert (key, [line[axis] for line in lines]) == (key, list(steps))
        assert {line[prefix + key]["_type"] for line in lines} == {type_}
        for line in lines:
            assert set(paths_in(line[prefix + key])) <= run.files.keys()
    (maze,) = {json.dumps(line[prefix + "maze"]) for line in lines_with(run, prefix + "maze")[:1]}
    assert run.files[json.loads(maze)["path"]] == png(3, 2)
    assert json.loads(maze)["caption"] == "one"
    assert run.files[lines_with(run, prefix + "film")[0][prefix + "film"]["path"]] == WEBM
    assert run.files[lines_with(run, prefix + "report")[0][prefix + "report"]["path"]] == b"<b>well</b>"
    assert run.files[lines_with(run, prefix + "notes")[0][prefix + "notes"]["path"]] == b"notes"
    essay = run.files[lines_with(run, prefix + "essay")[0][prefix + "essay"]["path"]]
    assert b"<h1>Half <em>way</em></h1>" in essay
    for key, text in (("phase", "warm-up"), ("note", "NaN")):
        assert [(line[axis], line[prefix + key]) for line in lines_with(run, prefix + key)] == [
            (step, text) for step in steps
        ]


def run_job(config: MonitorConfig, folder: Path, steps: Sequence[int]) -> None:
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        for step in steps:
            monitor.log(everything(folder), step)
        assert monitor.dropped == 0
    assert rejections(Layout(config.monitor_dir), "wandb", "trainer") == set()
    assert undelivered(Layout(config.monitor_dir), "wandb", "trainer") == 0


@pytest.mark.processes
@SHARED
def test_each_kind_arrives(server: WandbServer, make_config: Make, tmp_path: Path, shared: bool) -> None:
    config = make_config(shared_run=shared)
    run_job(config, tmp_path, [1, 2])
    (run,) = [run for run in server.runs.values() if run.upserts]
    check_everything(run, "trainer/" if shared else "", [1, 2])
    assert run.state == "finished"
    assert server.state.unknown == []
    command = [sys.executable, "-m", "rolecall", "verify", str(config.monitor_dir)]
    verified = subprocess.run(command, capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.servers
@pytest.mark.processes
@SHARED
def test_images_of_a_table(server: WandbServer, make_config: Make, shared: bool) -> None:
    """They are `wandb.Image`, for which the SDK needs Pillow; else the cells are the paths of the files."""
    config = make_config(shared_run=shared)
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        cells = {"n": [1, 2], "maze": [Image(png(3, 2), caption="one"), Image(png(3, 4))]}
        monitor.log({"samples": Table(cells)}, 1)
    assert undelivered(Layout(config.monitor_dir), "wandb", "trainer") == 0
    (run,) = [run for run in server.runs.values() if run.upserts]
    (line,) = lines_with(run, "trainer/samples" if shared else "samples")
    (entry,) = (value for value in line.values() if isinstance(value, dict))
    assert (entry["_type"], entry["nrows"]) == ("table-file", 2)
    table = json.loads(run.files[entry["path"]])
    assert table["columns"] == ["n", "maze"]
    assert [number for number, _ in table["data"]] == [1, 2]
    if importlib.util.find_spec("PIL") is None:
        folder = config.monitor_dir / "journal" / "trainer" / "1.files"
        assert {Path(maze) for _, maze in table["data"]} == set(folder.iterdir())
        return
    # A file of the run has the text alone; wandb's pages read the artifact that the entry names.
    files = server.artifacts
    (name,) = (name for name in files if name.endswith(".table.json"))
    images = [maze for _, maze in json.loads(files[name])["data"]]
    shown = [(maze["_type"], maze.get("caption"), maze["width"], maze["height"]) for maze in images]
    assert shown == [("image-file", "one", 3, 2), ("image-file", None, 3, 4)]
    assert [files[maze["path"]] for maze in images] == [png(3, 2), png(3, 4)]


@pytest.mark.servers
@pytest.mark.processes
def test_offline_run_has_each_kind(server: WandbServer, make_config: Make, tmp_path: Path) -> None:
    # `run.save` takes a path for a pattern, and so does `wandb sync` of 0.19.10 and 0.24.2 with that of the run itself.
    name = "mon[i]tor" if Version(version("wandb")) >= Version("0.31.0") else "monitor"
    config = make_config(monitor_args={"mode": "offline"}, monitor_dir=tmp_path / name)
    run_job(config, tmp_path, [1, 2])
    assert not [run for run in server.runs.values() if run.upserts]
    for each in offline_runs(config.monitor_dir):
        sync(each)
    (run,) = [run for run in server.runs.values() if run.upserts]
    check_everything(run, "", [1, 2])


@pytest.mark.processes
def test_media_share_the_line_of_their_step(scene: Scene) -> None:
    with launch(scene.config) as job, open_monitor(job.config, "trainer") as monitor:
        for step in (1, 2):
            monitor.log({"loss": 0.5, "maze": Image(png(3, 2)), "report": Html("<b>well</b>")}, step)
            monitor.log({"reward": 1.0}, step)
    scene.wait_for_end()
    keys = {"trainer/loss", "trainer/maze", "trainer/report", "trainer/reward"}
    assert [entry.line.keys() & keys for entry in scene.run.history] == [keys, keys]


@pytest.mark.servers
@pytest.mark.processes
def test_refused_file_holds_up_no_row(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    refused = scene.server.faults.add(Fault("upload", answer=403, times=3, folder="media/"))
    with launch(scene.config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"maze": Image(png(3, 2)), "loss": 0.5}, 1)
        monitor.log({"maze": Image(png(3, 4)), "loss": 0.25}, 2)
        scene.wait_for("trainer", 2)
    scene.wait_for_end()
    assert len(refused.hits) == 3
    assert [line["trainer/step"] for line in scene.run.rows("trainer/maze")] == [2]
    assert sorted({line["trainer/step"] for line in scene.run.rows("trainer/loss")}) == [1, 2]
    assert rejections(Layout(scene.config.monitor_dir), "wandb", "trainer") == {(1, 2)}
    assert "wandb did not accept media in 3 tries" in caplog.text


@pytest.mark.processes
@pytest.mark.parametrize(("mode", "shared"), [("online", True), ("online", False), ("offline", False)])
def test_figures_arrive(server: WandbServer, tmp_path: Path, mode: str, shared: bool) -> None:
    """As pictures, or as Plotly's JSON, without Matplotlib or Plotly."""
    drawn = stored(tmp_path, png(3, 2), "1.png", "figure", "image/png")
    plotly = stored(tmp_path, FIGURE, "2.plotly.json", "figure", "application/vnd.plotly.v1+json")
    run: Any = open_run(ticket(tmp_path, shared=shared), WandbArgs(mode=mode))
    run.log_media(row(drawn))
    run.log_media(row(replace(plotly, key="another"), seq=2))
    run.flush(60.0)
    run.close("finished")
    for each in offline_runs(tmp_path):
        sync(each)
    (kept,) = [kept for kept in server.runs.values() if kept.upserts]
    (line,) = [entry.line for entry in kept.history]
    assert (line["a/key"]["_type"], line["another"]["_type"]) == ("image-file", "plotly-file")
    assert kept.files[line["a/key"]["path"]] == png(3, 2)
    assert kept.files[line["another"]["path"]] == FIGURE


@pytest.mark.servers
@pytest.mark.processes
@pytest.mark.timeout(300)
@SHARED
def test_killed_courier_loses_and_doubles_no_media(scene: Scene, shared: bool) -> None:
    config = scene.config.model_copy(update={"shared_run": shared})
    prefix, axis = ("trainer/", "trainer/step") if shared else ("", "_step")

    def stored_lines() -> list[Mapping[str, Any]]:
        runs = [run for run in scene.server.runs.values() if run.upserts]
        return [line for run in runs for line in lines_with(run, f"{prefix}maze")]

    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        for steps in (range(1, 41), range(41, 61)):
            for step in steps:
                monitor.log({"loss": 1 / step, "maze": Image(png(3, step))}, step)
            if steps.start == 1:
                scene.wait(stored_lines)
                courier = courier_of(config.monitor_dir, "trainer")
                assert courier is not None
                kill_tree(courier)
        monitor.close(timeout=120.0)
    scene.wait_for_end()
    lines = stored_lines()
    assert sorted(line[axis] for line in lines) == list(range(1, 61))
    assert all(line[f"{prefix}loss"] == 1 / line[axis] for line in lines)
    (run,) = [run for run in scene.server.runs.values() if run.upserts]
    assert all(run.files[line[f"{prefix}maze"]["path"]] == png(3, line[axis]) for line in lines)


@pytest.mark.servers
@pytest.mark.timeout(300)
def test_media_logged_while_server_is_away(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rolecall")
    with launch(scene.config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"maze": Image(png(3, 1))}, 1)
        scene.wait_for("trainer", 1)
        scene.server.stop()
        monitor.log({"maze": Image(png(3, 2))}, 2)
        scene.wait(lambda: "rows wait in the journal" in caplog.text)
        scene.server.restart()
        monitor.close(timeout=120.0)
    scene.wait_for_end()
    lines = scene.run.rows("trainer/maze")
    assert [line["trainer/step"] for line in lines] == [1, 2]
    assert [scene.run.files[line["trainer/maze"]["path"]] for line in lines] == [png(3, 1), png(3, 2)]


def test_every_kind_is_held() -> None:
    assert set(MediaKind.__args__) == {*KINDS, "markdown"}, "which is HTML there"  # type: ignore[attr-defined]
