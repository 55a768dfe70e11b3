"""Images, histograms and other media, read back with MLflow's own client."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rolecall import (
    Audio,
    File,
    Histogram,
    Html,
    Image,
    Media,
    MonitorConfig,
    Row,
    SupportsMedia,
    TableData,
    Text,
    Video,
    launch,
    open_monitor,
)
from rolecall.store.layout import Layout
from rolecall.store.reader import read_rows

if TYPE_CHECKING:
    from conftest import Job

MakeRow = Callable[..., Row]
STORES = ["sqlite", "files", pytest.param("served", marks=pytest.mark.servers)]
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
JPEG = b"\xff\xd8\xff" + bytes(200)
WEBP = b"RIFF\0\0\0\0WEBP" + bytes(100)
WAV = b"RIFF\0\0\0\0WAVE" + bytes(100)
MP4 = b"\0\0\0\x18ftyp" + bytes(100)
WITHOUT_LIBRARIES = """
import sys

sys.modules.update(dict.fromkeys(["numpy", "PIL", "pandas", "matplotlib", "plotly"]))
from rolecall.__main__ import main

sys.exit(main(sys.argv[1:]))
"""
FIGURE = {"data": [{"y": [1, 2]}], "layout": {"title": {"text": "</script><b>ü</b>"}}}


@pytest.fixture(params=STORES)
def job(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture
def media(tmp_path: Path) -> Callable[..., Media]:
    def make(kind: Any, data: bytes, suffix: str, **changes: Any) -> Media:
        path = tmp_path / f"{kind}-{len(list(tmp_path.iterdir()))}{suffix}"
        path.write_bytes(data)
        return Media(**{"key": "key", "kind": kind, "path": path, **changes})

    return make


def paths(job: Job, folder: str | None = None, run_id: str | None = None) -> Iterator[str]:
    """The paths of all artifacts of a run."""
    for found in job.client.list_artifacts(run_id or job.runs[0].id, folder):
        if found.is_dir:
            yield from paths(job, found.path, run_id)
        else:
            yield found.path


def held(job: Job, run_id: str | None = None) -> dict[str, bytes]:
    """What each artifact of a run holds."""
    run_id = run_id or job.runs[0].id
    return {
        path: Path(job.client.download_artifacts(run_id, path)).read_bytes()
        for path in sorted(paths(job, run_id=run_id))
    }


def shown(name: str) -> tuple[str, int, int, str]:
    """Key, step, time and the rest of an image's name, as MLflow's UI reads them (3.17.2)."""
    separator = "%" if "%" in name else "+"
    key, step, at, timestamp, when, *rest = name.removeprefix("images/").split(separator)
    assert (step, timestamp) == ("step", "timestamp")
    return key.replace("~", "/"), int(at), int(when), "".join(rest)[36:]


def test_images_of_a_table(job: Job, row: MakeRow, media: Callable[..., Media]) -> None:
    """As `MlflowClient.log_table` has them: an object that names the file, for MLflow's UI to draw."""
    run = job.open()
    image = media("image", PNG, ".png", key="explorer/0/samples", mime="image/png")
    table = TableData(name="explorer/0/samples", columns=("n", "maze"), rows=((1, image), (2, None)))
    for _ in range(2):
        run.log_table(row(3, step=12, table=table, writer="explorer/0"))
    path = "table_images/explorer/0/samples/00000012-1-3/0-1.png"
    found = held(job)
    assert found.keys() == {path, "tables/explorer/0/samples/00000012-1-3.json"}
    assert found[path] == PNG
    assert json.loads(found["tables/explorer/0/samples/00000012-1-3.json"]) == {
        "columns": ["n", "maze"],
        "data": [[1, {"type": "image", "filepath": path, "compressed_filepath": path}], [2, None]],
    }


def test_run_holds_all_kinds(sqlite: Job) -> None:
    run = sqlite.open()
    assert isinstance(run, SupportsMedia)
    assert run.media_kinds == {"image", "histogram", "html", "markdown", "audio", "video", "file", "figure"}


def test_image_is_named_for_the_grid(job: Job, row: MakeRow, media: Callable[..., Media]) -> None:
    run = job.open()
    image = media("image", PNG, ".png", key="explorer/0/maze", mime="image/png")
    run.log_media(row(3, step=12, media=(image,), writer="explorer/0"))
    found = held(job)
    assert set(found.values()) == {PNG}
    when = 1_700_000_000_003
    assert [shown(name) for name in found] == [
        ("explorer/0/maze", 12, when, "compressed.png"),
        ("explorer/0/maze", 12, when, ".png"),
    ]
    assert job.stored().data.tags["mlflow.loggedImages"] == "True"


def test_several_images_have_numbers(sqlite: Job, row: MakeRow, media: Callable[..., Media]) -> None:
    images = (
        media("image", PNG, ".png", mime="image/png"),
        media("image", JPEG, ".jpg", mime="image/jpeg"),
        media("image", WEBP, ".webp", mime="image/webp"),
    )
    sqlite.open().log_media(row(1, media=images))
    found = {shown(name)[::3]: data for name, data in held(sqlite).items()}
    full = {("key/0", ".png"): PNG, ("key/1", ".png"): JPEG, ("key/2", ".webp"): WEBP}
    assert found == full | {(key, f"compressed{suffix}"): data for (key, suffix), data in full.items()}


def test_other_kinds_are_artifacts(job: Job, row: MakeRow, media: Callable[..., Media]) -> None:
    run = job.open()
    histogram = Media(key="key", kind="histogram", counts=(1.0, 2.0), edges=(0.0, 0.5, float("inf")))
    sounds = media("audio", WAV, ".wav"), media("audio", WAV * 2, ".wav")
    run.log_media(row(1, media=(histogram,)))
    run.log_media(row(2, media=(media("html", b"<b>\xc3\xbc</b>", ".html"),)))
    run.log_media(row(3, media=sounds))
    run.log_media(row(4, media=(media("video", MP4, ".mp4"),)))
    run.log_media(row(5, media=(media("file", b"any", ".tar", caption="my model.tar"),)))
    run.log_media(row(6, media=(media("figure", PNG, ".png", mime="image/png"),)))
    run.log_media(row(7, media=(media("markdown", b"# A", ".md", mime="text/markdown"),)))
    found = held(job)
    numbers = json.loads(found.pop("histograms/explorer/key/00000001-1-1.json"))
    assert numbers == {"counts": [1.0, 2.0], "edges": [0.0, 0.5, "inf"]}
    assert found == {
        "html/explorer/key/00000002-1-2.html": b"<b>\xc3\xbc</b>",
        "audio/explorer/key/00000003-1-3-0.wav": WAV,
        "audio/explorer/key/00000003-1-3-1.wav": WAV * 2,
        "videos/explorer/key/00000004-1-4.mp4": MP4,
        "files/explorer/key/00000005-1-5/my model.tar": b"any",
        "figures/explorer/key/00000006-1-6.png": PNG,
        "markdown/explorer/key/00000007-1-7.md": b"# A",
    }


def test_plotly_figure_becomes_page(sqlite: Job, row: MakeRow, media: Callable[..., Media]) -> None:
    figure = media("figure", json.dumps(FIGURE).encode(), ".plotly.json", mime="application/vnd.plotly.v1+json")
    sqlite.open().log_media(row(1, media=(figure,)))
    ((path, page),) = held(sqlite).items()
    assert path == "figures/explorer/key/00000001-1-1.html"
    text = page.decode().partition('id="json">')[2].partition("</script>")[0]
    assert json.loads(text) == FIGURE


def test_odd_names_are_stored(job: Job, row: MakeRow, media: Callable[..., Media]) -> None:
    run = job.open()
    keys = ["a+b%c#d", "../x:y", "ä" * 200]
    for seq, key in enumerate(keys, 1):
        run.log_media(row(seq, media=(media("image", PNG, ".png", key=key, mime="image/png"),)))
        run.log_media(row(seq, media=(media("file", b"any", "", key=key, caption=f"{key}.tar"),)))
    found = held(job)
    assert sorted(found.values()) == [b"any"] * 3 + [PNG] * 6
    assert len({shown(name)[0] for name in found if name.startswith("images/")}) == len(keys)
    assert all(name.endswith(".tar") for name in found if name.startswith("files/"))


def test_media_that_come_again_are_there_once(job: Job, row: MakeRow, media: Callable[..., Media]) -> None:
    """The courier that was killed had not acknowledged them."""
    rows = [
        row(1, media=(media("image", PNG, ".png", mime="image/png"), media("image", JPEG, ".jpg", mime="image/jpeg"))),
        row(2, media=(media("file", b"any", "", caption="model.bin"),)),
    ]
    first = job.open()
    for each in rows:
        first.log_media(each)
    before = held(job)
    again = job.open(backend_run_id=first.id)
    for each in rows:
        again.log_media(each)
    assert held(job) == before
    assert len(before) == 5


@pytest.mark.servers
@pytest.mark.parametrize("shared", [True, False])
def test_job_with_media_is_delivered_twice(sqlite: Job, tmp_path: Path, shared: bool) -> None:
    """As after a kill between the last row and its acknowledgement: each file is there once.

    No library is needed that mlflow-skinny does not install.
    """
    (tmp_path / "notes.txt").write_text("all is well")
    config = MonitorConfig(project="p", name="n", monitor_type="local", shared_run=shared, monitor_dir=tmp_path / "job")
    with launch(config) as launched, open_monitor(launched.config, "trainer") as monitor:
        monitor.log({"loss": 1.0, "maze": Image(PNG), "mazes": [Image(PNG), Image(JPEG)]}, step=1)
        monitor.log({"advantages": Histogram([1, 2, 2], bins=2), "report": Html("<b>well</b>")}, step=2)
        monitor.log({"tone": Audio(WAV), "film": Video(MP4), "notes": File(tmp_path / "notes.txt")}, step=3)
    assert monitor.dropped == 0
    found: list[dict[str, bytes]] = []
    args = json.dumps({"mlflow": {"uri": sqlite.uri}})
    command = ["deliver", str(config.monitor_dir), "--to", "mlflow", "--args", args]
    for _ in range(2):
        subprocess.run([sys.executable, "-c", WITHOUT_LIBRARIES, *command], check=True, timeout=200)
        experiment = sqlite.client.get_experiment_by_name("p")
        (run,) = sqlite.client.search_runs([experiment.experiment_id])
        found.append(held(sqlite, run.info.run_id))
        shutil.rmtree(config.monitor_dir / "delivery")
    assert found[0] == found[1]
    names = {"/".join(name.split("/")[:3]) for name in found[0] if not name.startswith("images/")}
    folders = [("histograms", "advantages"), ("html", "report"), ("audio", "tone"), ("videos", "film")]
    assert names == {f"{folder}/trainer/{key}" for folder, key in [*folders, ("files", "notes")]}
    prefix = "trainer/" if shared else ""
    images = {shown(name)[0] for name in found[0] if name.startswith("images/")}
    assert images == {f"{prefix}{key}" for key in ("maze", "mazes/0", "mazes/1")}
    assert b"all is well" in found[0].values()


def test_job_delivers_figures(sqlite: Job, tmp_path: Path) -> None:
    """Of Matplotlib as pictures, of Plotly as pages that hold what was logged; once each, also after a restart."""
    figures = pytest.importorskip("matplotlib.figure")
    plotly = pytest.importorskip("plotly.graph_objects")
    settings: dict[str, Any] = {
        "project": "p",
        "name": "n",
        "monitor_type": "mlflow",
        "resume": "allow",
        "courier": "thread",
    }
    config = MonitorConfig(monitor_args={"uri": sqlite.uri}, monitor_dir=tmp_path / "job", **settings)
    for step in (1, 2):
        with launch(config) as launched, open_monitor(launched.config, "trainer") as monitor:
            figure = figures.Figure(figsize=(step, 2), dpi=50)
            figure.subplots().plot([1, 2, step])
            monitor.log({"curve": figure, "plot": plotly.Figure(plotly.Scatter(y=[1, 2, step])), "loss": 0.5}, step)
        assert monitor.dropped == 0
    (run,) = sqlite.client.search_runs([sqlite.client.get_experiment_by_name("p").experiment_id])
    curves = {name: data for name, data in held(sqlite, run.info.run_id).items() if "/curve/" in name}
    pages = {name: data for name, data in held(sqlite, run.info.run_id).items() if "/plot/" in name}
    assert [name.rpartition("/")[2][:8] for name in curves] == ["00000001", "00000002"]
    # The width and the height of a PNG are behind its signature and the head of its first chunk.
    sizes = [struct.unpack(">II", data[16:24]) for data in curves.values()]
    assert sizes == [(50, 100), (100, 100)]
    texts = [page.decode().partition('id="json">')[2].partition("</script>")[0] for page in pages.values()]
    assert [json.loads(text)["data"][0]["y"] for text in texts] == [[1, 2, 1], [1, 2, 2]]


def test_strings_are_reported_once(sqlite: Job, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """MLflow has no series of them: they stay in the job's directory, and Markdown is an artifact."""
    settings: dict[str, Any] = {"project": "p", "name": "n", "monitor_type": "mlflow", "courier": "thread"}
    config = MonitorConfig(monitor_args={"uri": sqlite.uri}, monitor_dir=tmp_path / "job", **settings)
    with launch(config) as launched, open_monitor(launched.config, "trainer") as monitor:
        for step in (1, 2, 3):
            monitor.log({"loss": 0.5, "phase": "warm-up", "note": Text("NaN")}, step)
        monitor.log({"verdict": Text("# Better", markdown=True)}, 4)
    (run,) = sqlite.client.search_runs([sqlite.client.get_experiment_by_name("p").experiment_id])
    assert {key for key in run.data.metrics if not key.startswith("system/")} == {"loss"}
    assert len([text for text in caplog.messages if "it holds no strings" in text]) == 1
    assert [row.text for row in read_rows(Layout(config.monitor_dir), "trainer") if isinstance(row, Row)][:1] == [
        {"phase": "warm-up", "note": "NaN"}
    ]
    (data,) = (data for name, data in held(sqlite, run.info.run_id).items() if name.startswith("markdown/"))
    assert data == b"# Better"
