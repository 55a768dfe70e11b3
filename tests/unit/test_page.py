"""What the page of `rolecall show --html` holds: every peak of a metric, nothing that runs, and at most 5 MB."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import os
import re
import stat
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall import Histogram, Html, Image, MonitorConfig, Table, Text, launch, open_monitor
from rolecall.__main__ import main
from rolecall.cli.page.build import LARGEST, make_page
from rolecall.cli.page.contents import Contents, TableSample, order
from rolecall.cli.page.embed import Room, embed, table_cards
from rolecall.cli.page.sampled import Sampled, by_importance
from rolecall.cli.page.series import MOST_POINTS, Line, Series, fair_limit
from rolecall.cli.view.metrics import standing
from rolecall.rows import Media
from rolecall.store.layout import Layout, RunRecord

EVIL = "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>\"'&"


class Reader(HTMLParser):
    """The elements of a page as a browser finds them, and the text of each script."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_script = tag == "script"
        if self._in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.scripts[0])
        return found


@pytest.fixture
def config(make_config: Callable[..., MonitorConfig]) -> MonitorConfig:
    return make_config(monitor_type="local", monitor_args={})


def page_of(*roots: Path) -> Reader:
    return Reader(make_page(roots))


def steps_of(line: dict[str, list[int]]) -> list[int]:
    steps = line["steps"]
    return [sum(steps[: at + 1]) for at in range(len(steps))]


# ------------------------------------------------------------------ thinning


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e9, max_value=1e9), min_size=1), st.data())
def test_thinned_line_keeps_its_extremes(values: list[float], data: st.DataObject) -> None:
    line = Line()
    for step, value in enumerate(values, start=1):
        line.add(step, value)
    limit = data.draw(st.integers(2, 50))
    points = line.points(limit)
    kept = [value for _, value in points]
    assert (min(kept), max(kept), kept[-1]) == (min(values), max(values), values[-1])
    assert len(points) <= limit + 3
    assert {*points} <= {*enumerate(values, start=1)}
    assert points == sorted(points, key=lambda point: point[0])


def test_long_line_keeps_each_peak() -> None:
    line = Line()
    peaks = {7: 5.0, 33_333: 9.0, 99_999: -9.0}
    for step in range(1, 100_001):
        line.add(step, peaks.get(step, math.sin(step)))
    points = line.points(MOST_POINTS)
    assert peaks.items() <= dict(points).items()
    assert points[0][0] < 200
    assert points[-1] == (100_000, math.sin(100_000))
    # Even: the old part is as fine as the new one.
    steps = [step for step, _ in points]
    assert abs(sum(step <= 50_000 for step in steps) - len(steps) / 2) < 60


def test_short_line_stays_as_it_is() -> None:
    line = Line()
    points = [(step, math.nan if step == 3 else step / 7) for step in range(1, 1000)]
    for point in points:
        line.add(*point)
    assert [str(point) for point in line.points(MOST_POINTS)] == [str(point) for point in points]


def test_values_that_are_not_finite_are_gaps() -> None:
    series = Series()
    for step, value in enumerate([1.0, math.nan, math.inf, -math.inf, 1e300, 2], start=1):
        series.add(1, step, value)
    drawn = series.drawn(MOST_POINTS)
    assert drawn["lines"] == [{"steps": [1, 1, 1, 1, 1, 1], "values": [1, None, None, None, None, 2]}]
    assert drawn["odd"] == {"NaN": 1, "Infinity": 1, "-Infinity": 1, "beyond 1e+290": 1}
    assert (drawn["first_odd"], drawn["last"], drawn["min"], drawn["max"], drawn["count"]) == (2, 2, 1, 2, 6)


def test_restart_from_checkpoint_is_another_line() -> None:
    series = Series()
    for session, steps in ((1, range(1, 11)), (2, range(6, 16)), (3, range(16, 20))):
        for step in steps:
            series.add(session, step, float(step))
    assert [steps_of(line) for line in series.drawn(100)["lines"]] == [[*range(1, 11)], [*range(6, 20)]]


def test_late_steps_are_put_in_order() -> None:
    series = Series()
    for step in (1, 3, 2, 5, 4):
        series.add(1, step, float(step))
    assert [steps_of(line) for line in series.drawn(100)["lines"]] == [[1, 2, 3, 4, 5]]


def test_short_lines_leave_room_to_long_ones() -> None:
    assert fair_limit([10] * 100, 80_000) == MOST_POINTS
    assert sum(min(count, fair_limit([10_000] * 100, 80_000)) for count in [10_000] * 100) <= 80_000
    assert fair_limit([5] * 1000 + [10_000] * 50, 80_000) == MOST_POINTS // 2


@given(st.integers(0, 300), st.integers(2, 20))
def test_sample_is_even_and_ends_with_last(count: int, most: int) -> None:
    sampled = Sampled[int](most)
    for item in range(count):
        sampled.add(item)
    items = sampled.items()
    assert items == sorted({*items})
    assert len(items) <= most + 1
    assert items[:1] == [0][:count]
    assert items[-1:] == [count - 1][:count]
    gaps = {after - before for before, after in pairwise(items[:-1])}
    assert len(gaps) <= 1


@given(st.integers(0, 200))
def test_order_of_importance_names_each_place(count: int) -> None:
    assert sorted(by_importance(count)) == [*range(count)]
    assert [*by_importance(count)][:2] == [count - 1, 0][:count]


def test_reward_return_and_loss_come_first() -> None:
    keys = ["layer/10", "layer/9", "grad/norm", "loss", "return", "policy_loss", "Reward/mean", "lossless", "accuracy"]
    keys += ["perf/mfu", "rewards/format", "losses"]
    first = ["Reward/mean", "rewards/format", "return", "loss", "losses", "policy_loss"]
    last = ["accuracy", "grad/norm", "layer/9", "layer/10", "lossless", "perf/mfu"]
    assert sorted(keys, key=order) == [*first, *last]
    assert sorted(keys, key=standing) == sorted(keys, key=lambda key: order(key)[0])  # as on the screen


# ------------------------------------------------------------------ the page


def test_page_has_charts_by_role(config: MonitorConfig) -> None:
    with launch(config, {"algorithm": {"lr": 1e-6}}) as job:
        for rank in (0, 1):
            with open_monitor(job.config, "explorer", rank, run_config={"seed": 1}) as monitor:
                monitor.log({"reward": rank, "length": 3}, step=5)
        with open_monitor(job.config, "trainer") as monitor:
            monitor.log({"loss": 0.25, "phase": "warm-up"}, step=1)
            monitor.log({"loss": 0.125, "phase": "warm-up"}, step=2)
    data = page_of(config.monitor_dir).data
    charts = [(chart["role"], chart["key"], [each["writer"] for each in chart["series"]]) for chart in data["charts"]]
    assert charts == [
        ("explorer", "reward", ["explorer/0", "explorer/1"]),
        ("explorer", "length", ["explorer/0", "explorer/1"]),
        ("trainer", "loss", ["trainer"]),
    ]
    (about,) = data["jobs"]
    assert (about["project"], about["state"], about["directory"]) == ("gsm8k", "finished", str(config.monitor_dir))
    assert [(each["writer"], each["rows"], each["step"]) for each in about["writers"]][-1] == ("trainer", 2, 2)
    assert [(each["of"], each["settings"]) for each in about["configs"]] == [
        (["the job"], [["algorithm.lr", "1e-06"]]),
        (["explorer/0", "explorer/1"], [["seed", "1"]]),
    ]
    (text,) = data["texts"]
    assert text["items"] == [{"step": 1, "text": "warm-up"}], "said once, as it stayed the same"


def test_page_of_two_jobs_overlays_them(make_config: Callable[..., MonitorConfig], tmp_path: Path) -> None:
    roots = [tmp_path / name for name in ("first", "second")]
    for at, root in enumerate(roots):
        config = make_config(monitor_type="local", monitor_args={}, monitor_dir=root, name=root.name)
        with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
            monitor.log({"loss": at}, step=1)
    data = page_of(*roots).data
    (chart,) = data["charts"]
    assert [(each["job"], each["writer"], each["last"]) for each in chart["series"]] == [
        (0, "trainer", 0),
        (1, "trainer", 1),
    ]
    assert [job["name"] for job in data["jobs"]] == ["first", "second"]


def test_markdown_is_rendered_on_the_page(config: MonitorConfig) -> None:
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"note": Text("# Half *way*", markdown=True), "nan": Text("NaN")}, step=3)
    data = page_of(config.monitor_dir).data
    (card,) = data["media"]
    (item,) = card["items"]
    assert (card["kind"], card["key"], item["step"]) == ("markdown", "note", 3)
    assert "<h1>Half <em>way</em></h1>" in item["media"][0]["html"]
    assert [(each["key"], each["items"]) for each in data["texts"]] == [("nan", [{"step": 3, "text": "NaN"}])]


def test_summary_tags_and_changed_config_are_on_the_page(config: MonitorConfig) -> None:
    with launch(config) as job, open_monitor(job.config, "trainer", run_config={"lr": 1, "seed": 1}) as monitor:
        monitor.log({"loss": 0.5}, step=1)
        monitor.update_config({"lr": 2})
        monitor.summary["best"] = 0.25
        monitor.tags.add("baseline")
    (about,) = page_of(config.monitor_dir).data["jobs"]
    assert about["tags"] == ["baseline"]
    assert about["summary"] == [["trainer", "best", 0.25]]
    assert [(each["of"], each["settings"]) for each in about["configs"]] == [
        (["trainer"], [["lr", "2"], ["seed", "1"]])
    ]
    assert about["writers"][0]["rows"] == 1


def test_command_compares_two_jobs(make_config: Callable[..., MonitorConfig], tmp_path: Path) -> None:
    for name in ("first", "second"):
        config = make_config(monitor_type="local", monitor_args={}, monitor_dir=tmp_path / name, name=name)
        with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
            monitor.log({"loss": 1.0}, step=1)
    roots = [str(tmp_path / name) for name in ("first", "second")]
    assert main(["show", *roots, "--html", str(tmp_path / "page.html")]) == 0
    data = Reader((tmp_path / "page.html").read_bytes()).data
    assert [job["name"] for job in data["jobs"]] == ["first", "second"]


def test_delivery_is_on_the_page(make_config: Callable[..., MonitorConfig]) -> None:
    config = make_config()
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, step=1)
    (backend,) = page_of(config.monitor_dir).data["jobs"][0]["backends"]
    assert backend["backend"] == "lines"
    assert backend["runs"]
    assert [(each["writer"], each["delivered"], each["waiting"]) for each in backend["writers"]] == [("trainer", 1, 0)]


def test_nothing_that_was_logged_is_markup(make_config: Callable[..., MonitorConfig]) -> None:
    config = make_config(project=EVIL, name=EVIL, monitor_type="local", monitor_args={})
    with launch(config, {EVIL: EVIL}) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({EVIL: 1.0, f"{EVIL} text": EVIL, f"{EVIL} html": Html(EVIL)}, step=1)
        monitor.log({f"{EVIL} table": Table([{EVIL: EVIL}]), f"{EVIL} image": Image(b"GIF8" + b"0" * 20, caption=EVIL)})
    page = page_of(config.monitor_dir)
    assert [tag for tag, _ in page.tags] == [
        *("html", "head", "meta", "meta", "meta", "meta", "meta", "meta", "title", "style", "body"),
        *("noscript", "div", "script", "script"),
    ]
    assert page.data["charts"][0]["key"] == EVIL
    assert page.data["texts"][0]["items"][0]["text"] == EVIL
    assert page.data["tables"][0]["items"][0]["rows"] == [[EVIL]]


def test_policy_allows_only_the_script_of_the_page(config: MonitorConfig) -> None:
    with launch(config):
        pass
    page = page_of(config.monitor_dir)
    policy = next(about["content"] for _, about in page.tags if about.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    digest = base64.b64encode(hashlib.sha256(page.scripts[1].encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in html.unescape(policy).split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert {name: rule for name, rule in rules.items() if "http" in rule or "*" in rule} == {}


def test_page_names_no_other_server(config: MonitorConfig) -> None:
    with launch(config):
        pass
    page = make_page([config.monitor_dir]).decode()
    # uPlot's address in its licence note, and the name space of SVG: nobody asks for either
    assert {*re.findall(r"https?://[\w./-]+", page)} == {
        "https://github.com/leeoniya/uPlot",
        "http://www.w3.org/2000/svg",
    }


def test_media_are_embedded_until_page_is_full(config: MonitorConfig, tmp_path: Path) -> None:
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    small.write_bytes(b"\x89PNG" + os.urandom(60_000))
    large.write_bytes(b"\x89PNG" + os.urandom(6_000_000))
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        for step in range(1, 301):
            monitor.log({"small": Image(small), "other": Image(small), "spread": Histogram([1, 2, step])}, step=step)
        monitor.log({"large": Image(large, caption="too much")}, step=1)
    page = make_page([config.monitor_dir])
    assert 4_000_000 < len(page) <= LARGEST
    media = {each["key"]: each for each in Reader(page).data["media"]}
    (item,) = media["large"]["items"]
    (left,) = item["media"]
    assert "src" not in left
    assert (left["left_out"], left["caption"], left["size"]) == (True, "too much", 6_000_004)
    assert Path(left["path"]).read_bytes() == large.read_bytes()
    for key in ("small", "other"):
        items = media[key]["items"]
        assert media[key]["count"] == 300
        assert [each["step"] for each in (items[0], items[-1])] == [1, 300]
        assert all(each["media"][0]["src"].startswith("data:image/png;base64,") for each in items)
    assert len(media["spread"]["items"]) > 30


def test_type_of_media_that_browsers_run_is_not_embedded(config: MonitorConfig) -> None:
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"image": Image(b"GIF8" + b"0" * 20)}, step=1)
    journal = next(config.monitor_dir.glob("journal/trainer/1.jsonl"))
    assert b"image/gif" in journal.read_bytes()
    # A stranger's journal may name any type. The checksum is of the text, so the row is made anew.
    from rolecall.store.codec import decode, encode
    from rolecall.store.lease import Session

    seed = Session(journal, 1).seed
    lines = [decode(line, seed) for line in journal.read_bytes().splitlines()]
    changed = [json.loads(json.dumps(line).replace("image/gif", "text/html")) for line in lines]
    journal.write_bytes(b"".join(encode(line, seed) for line in changed))
    (item,) = page_of(config.monitor_dir).data["media"][0]["items"]
    assert item["media"][0]["mime"] == "text/html"
    assert "src" not in item["media"][0]


def test_rows_of_long_table_are_counted(config: MonitorConfig) -> None:
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"samples": Table({"n": [*range(9000)], "text": ["x" * 5000] + ["y"] * 8999})}, step=1)
    (item,) = page_of(config.monitor_dir).data["tables"][0]["items"]
    assert (item["count"], len(item["rows"])) == (9000, 2500)
    assert item["rows"][0][1].endswith("… (1000 more characters)")


def test_table_that_grows_is_shown_whole(config: MonitorConfig) -> None:
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        for step in (1, 2, 3):
            monitor.log({"samples": Table([{"n": step}], append=True)}, step=step)
    items = page_of(config.monitor_dir).data["tables"][0]["items"]
    assert [item["rows"] for item in items] == [[[1]], [[1], [2]], [[1], [2], [3]]]


def test_cell_of_table_may_be_an_image(tmp_path: Path) -> None:
    small, large = tmp_path / "small.png", tmp_path / "large.png"
    small.write_bytes(b"\x89PNG")
    large.write_bytes(bytes(10_000))
    cells = [Media(key="", kind="image", path=path, mime="image/png") for path in (small, large, small)]
    table = Sampled[tuple[int, TableSample]](2)
    table.add((1, TableSample(("n", "frame"), [[at, cell] for at, cell in enumerate(cells)], 3)))
    contents = Contents(Layout(tmp_path), cast("RunRecord", None), tables={("trainer", "samples"): table})
    (card,) = embed([*table_cards(contents, 0)], Room(2000))
    (first, second, third) = [frame for _, frame in card["items"][0]["rows"]]
    assert first["src"] == "data:image/png;base64,iVBORw=="
    assert (second["path"], second["left_out"]) == (str(large), True)
    assert third["left_out"], "not tried any more"


def test_page_of_many_metrics_is_small_enough(config: MonitorConfig) -> None:
    with launch(config) as job:
        for rank in range(8):
            with open_monitor(job.config, "explorer", rank) as monitor:
                for step in range(1, 51):
                    monitor.log({f"{'long' * 100}/{at}": math.sin(at * step) / 7e5 for at in range(500)}, step=step)
    page = make_page([config.monitor_dir])
    assert len(page) <= LARGEST
    data = Reader(page).data
    assert len(data["charts"]) + data["charts_left_out"] == 500


def test_what_has_no_room_is_counted(config: MonitorConfig) -> None:
    many = {f"{at}/{'long' * 100}": "x" * 100 for at in range(4000)}
    settings = {f"{at}/{'long' * 10}": "x" * 400 for at in range(600)}
    with launch(config, settings) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log(many, step=1)
    page = make_page([config.monitor_dir])
    assert len(page) <= LARGEST
    data = Reader(page).data
    assert len(data["texts"]) + data["cards_left_out"] == 4000
    (config_of_job,) = data["jobs"][0]["configs"]
    assert (len(config_of_job["settings"]), config_of_job["left_out"]) == (500, 100)
    assert config_of_job["settings"][0][1].endswith("… (100 more characters)")


# --------------------------------------------------------------- the command


def test_command_writes_the_page(config: MonitorConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0, "kl": 2.0}, step=1)
    file = tmp_path / "page.html"
    assert main(["show", str(config.monitor_dir), "--html", str(file), "--metric", "*/loss"]) == 0
    assert capsys.readouterr().out == f"{file}: {file.stat().st_size:,} bytes\n"
    assert [chart["key"] for chart in Reader(file.read_bytes()).data["charts"]] == ["loss"]
    assert [path for path in tmp_path.iterdir() if path.suffix not in ("", ".html") or path.name.startswith(".")] == []
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~umask


def test_link_to_page_is_followed(config: MonitorConfig, tmp_path: Path) -> None:
    with launch(config):
        pass
    (tmp_path / "link.html").symlink_to(tmp_path / "page.html")
    assert main(["show", str(config.monitor_dir), "--html", str(tmp_path / "link.html")]) == 0
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "page.html").stat().st_size > 50_000


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (".", "is a directory; name a file in it, such as page.html"),
        ("no/page.html", "there is no directory {root}/no; make it first, or choose another file"),
        ("pipe", "is not a file that can be replaced; choose another"),
    ],
)
def test_file_that_cannot_be_written(
    config: MonitorConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    message: str,
) -> None:
    with launch(config):
        pass
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    capsys.readouterr()  # what launch has printed
    assert main(["show", str(config.monitor_dir), "--html", name]) == 2
    assert capsys.readouterr().err == f"rolecall: --html {name}: {message.format(root=tmp_path)}\n"


def test_metric_that_nothing_matches(config: MonitorConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 1.0}, step=1)
    assert main(["show", str(config.monitor_dir), "--html", str(tmp_path / "page.html"), "--metric", "lost"]) == 2
    assert "no metric matches; the metrics are trainer/loss" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
