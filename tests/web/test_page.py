"""The page of `rolecall show --html` in Chromium without a network: on a desk and a phone, in light and dark."""

from __future__ import annotations

import json
import math
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

import rolecall
from rolecall.cli.page.build import make_page, write_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [pytest.mark.web, pytest.mark.timeout(600)]

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
STEPS = 300
COLOURED = """canvas => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let coloured = 0;
  for (let at = 0; at < pixels.length; at += 4) {
    const [red, green, blue, alpha] = pixels.slice(at, at + 4);
    coloured += alpha > 100 && Math.max(red, green, blue) - Math.min(red, green, blue) > 60;
  }
  return coloured;
}"""
"""Counts the pixels of lines: the grid and the text are grey."""


@dataclass
class Opened:
    """A page, and what happened while it was open."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def chart(self, key: str) -> Locator:
        return self.page.locator(f".chart[data-key='{key}']")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a job that logs something of everything."""
    import numpy as np

    root = tmp_path_factory.mktemp("job")
    random = np.random.default_rng(1)
    config = rolecall.MonitorConfig(project="gsm8k", name="grpo-1", monitor_type="local", monitor_dir=root)
    with rolecall.launch(config, {"algorithm": {"lr": 1e-6}}) as job:
        for rank in range(3):
            with rolecall.open_monitor(job.config, "explorer", rank) as monitor:
                for step in range(1, STEPS + 1):
                    monitor.log({"reward/mean": step / STEPS + rank, "time/rollout": 3 + float(random.random())}, step)
        with rolecall.open_monitor(job.config, "trainer") as monitor:
            for step in range(1, STEPS + 1):
                monitor.log(
                    {"loss": math.nan if step == 50 else 10 ** (-step / 100), "phase": f"phase {step // 150}"}, step
                )
            for step in (100, 200, 300):
                frames = [random.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(2)]
                monitor.log({"frames": [rolecall.Image(each, caption=f"at {step}") for each in frames]}, step)
                monitor.log({"spread": rolecall.Histogram(random.normal(size=1000), bins=30)}, step)
            rows = [{"prompt": f"{at} + 1", "reward": (at * 7) % 10} for at in range(10)]
            monitor.log(
                {"samples": rolecall.Table(rows), "tone": rolecall.Audio(np.sin(np.arange(8000) / 5), rate=8000)}, 300
            )
            monitor.log({"report": rolecall.Html("<b>all is well</b>")}, 300)
    file = tmp_path_factory.mktemp("page") / "page.html"
    write_page([root], file)
    return file


@pytest.fixture
def look(browser: Browser, screenshots: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Opened]]:
    """Opens a file without a network, in a window of a size and a colour scheme; keeps what it shows at the end."""
    opened: list[Opened] = []

    def open_file(file: Path, size: str = "desktop", scheme: str = "light") -> Opened:
        width, height = SIZES[size]
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, has_touch=size == "phone", offline=True
        )
        page = context.new_page()
        page.set_default_timeout(60_000)
        found = Opened(page)
        page.on("request", lambda asked: found.requests.append(asked.url))
        page.on("console", lambda said: found.complaints.append(said.text))
        page.on("pageerror", lambda error: found.complaints.append(str(error)))
        page.goto(file.as_uri())
        page.locator("footer").wait_for()
        opened.append(found)
        return found

    yield open_file
    for each in opened:
        words = re.findall(r"[A-Za-z0-9]+", request.node.name.removeprefix("test_"))
        each.page.screenshot(path=screenshots / f"page-{'-'.join(words)}.png", full_page=True)
        each.page.context.close()


def scroll_through(page: Page) -> None:
    """Everything comes into view once, as charts are drawn when they do."""
    for chart in page.locator(".chart").all():
        chart.scroll_into_view_if_needed()
        chart.locator("canvas").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_charts_are_drawn_without_network(look: Callable[..., Opened], made: Path, size: str, scheme: str) -> None:
    opened = look(made, size, scheme)
    page = opened.page
    scroll_through(page)
    assert page.locator(".chart h3").all_text_contents() == ["reward/mean", "time/rollout", "loss"]
    for canvas in page.locator(".chart canvas").all():
        assert canvas.evaluate(COLOURED) > 200
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background))) > 380) == (scheme == "light")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "nothing is cut off"
    assert {url for url in opened.requests if not url.startswith(("file:", "data:"))} <= {"about:srcdoc"}
    assert [url for url in opened.requests if url.startswith("file:")] == [made.as_uri()]
    assert opened.complaints == []
    page.evaluate("scrollTo(0, 0)")


@pytest.mark.parametrize("size", SIZES)
def test_pointer_shows_the_values(look: Callable[..., Opened], made: Path, size: str) -> None:
    opened = look(made, size)
    chart = opened.chart("reward/mean")
    over = chart.locator(".u-over")
    over.scroll_into_view_if_needed()
    assert chart.locator(".legend b").all_text_contents() == ["1", "2", "3"], "the last ones, without a pointer"
    box = over.bounding_box()
    assert box is not None
    point = {"x": box["width"] / 3, "y": box["height"] / 2}
    if size == "phone":
        over.tap(position=point)
    else:
        over.hover(position=point)
    (step,) = re.findall(r"step (\d+)", chart.locator("header").inner_text())
    assert abs(int(step) - STEPS / 3) < 5
    values = [float(text) for text in chart.locator(".legend b").all_text_contents()]
    assert values == pytest.approx([int(step) / STEPS + rank for rank in range(3)], abs=1e-5)


def test_drag_zooms_and_double_click_leaves(look: Callable[..., Opened], made: Path) -> None:
    opened = look(made)
    over = opened.chart("reward/mean").locator(".u-over")
    over.scroll_into_view_if_needed()
    box = over.bounding_box()
    assert box is not None
    scale = "charts.all.get(document.querySelector('.chart')).chart.scales.x"
    read = f"[{scale}.min, {scale}.max]"
    assert opened.page.evaluate(read) == [1, STEPS]
    middle = box["y"] + box["height"] / 2
    opened.page.mouse.move(box["x"] + box["width"] / 4, middle)
    opened.page.mouse.down()
    opened.page.mouse.move(box["x"] + box["width"] / 2, middle, steps=5)
    opened.page.mouse.up()
    low, high = opened.page.evaluate(read)
    assert (low, high) == (pytest.approx(STEPS / 4, abs=5), pytest.approx(STEPS / 2, abs=5))
    over.dblclick()
    assert opened.page.evaluate(read) == [1, STEPS]


def test_gap_is_where_no_number_was(look: Callable[..., Opened], made: Path) -> None:
    from playwright.sync_api import expect

    chart = look(made).chart("loss")
    chart.scroll_into_view_if_needed()
    expect(chart.locator(".notes")).to_have_text("trainer: 1 NaN, first at step 50")


def test_smoothing_and_log_scale_draw_again(look: Callable[..., Opened], made: Path) -> None:
    opened = look(made)
    canvas = opened.chart("time/rollout").locator("canvas")
    canvas.scroll_into_view_if_needed()
    rough = canvas.evaluate("canvas => canvas.toDataURL()")
    opened.page.locator("#smoothing").fill("0.9")
    canvas = opened.chart("time/rollout").locator("canvas")
    assert canvas.evaluate("canvas => canvas.toDataURL()") != rough
    chart = opened.chart("loss")
    chart.scroll_into_view_if_needed()
    opened.page.locator("#log").check()
    read = "charts.all.get(document.querySelector(\".chart[data-key='loss']\")).chart"
    assert opened.page.evaluate(f"{read}.scales.y.distr") == 3
    # A tenth for each 100 steps is a straight line from the upper left to the lower right.
    middle = opened.page.evaluate(f"{read}.valToPos({read}.data[1][150], 'y') / {read}.over.clientHeight")
    assert middle == pytest.approx(0.5, abs=0.1)
    assert opened.complaints == []


def test_legend_hides_and_filter_finds(look: Callable[..., Opened], made: Path) -> None:
    from playwright.sync_api import expect

    opened = look(made)
    chart = opened.chart("reward/mean")
    before = chart.locator("canvas").evaluate(COLOURED)
    chart.locator(".legend button").nth(1).click()
    assert chart.locator("canvas").evaluate(COLOURED) < before
    opened.page.get_by_label("filter").fill("trainer LOSS")
    expect(opened.page.locator("article:visible h3")).to_have_text(["loss"])
    expect(opened.page.locator("section:visible")).to_have_count(1)
    opened.page.get_by_label("filter").fill("nothing")
    expect(opened.page.locator("article:visible")).to_have_count(0)
    opened.page.get_by_label("filter").fill("")
    expect(opened.page.locator("article:visible")).to_have_count(9)


@pytest.mark.parametrize("size", SIZES)
def test_link_leads_to_visible_heading(look: Callable[..., Opened], made: Path, size: str) -> None:
    page = look(made, size).page
    page.get_by_role("link", name="trainer").click()
    heading = page.get_by_role("heading", name="trainer")
    is_on_top = """heading => {
      const { left, top, height } = heading.getBoundingClientRect();
      return heading.contains(document.elementFromPoint(left + 5, top + height / 2));
    }"""
    assert heading.evaluate(is_on_top), "nothing covers it"


def test_slider_shows_the_images_of_a_step(look: Callable[..., Opened], made: Path) -> None:
    from playwright.sync_api import expect

    card = look(made).page.locator(".card[data-key='frames']")
    expect(card.locator("figcaption")).to_have_text(["at 300", "at 300"])
    card.get_by_label("step").fill("0")
    expect(card.locator("figcaption")).to_have_text(["at 100", "at 100"])
    expect(card.locator("output")).to_have_text("step 100")
    sizes = "images => images.map(image => [image.naturalWidth, image.naturalHeight])"
    assert card.locator("img").evaluate_all(sizes) == [[64, 48], [64, 48]]


def test_media_of_each_kind_are_there(look: Callable[..., Opened], made: Path) -> None:
    from playwright.sync_api import expect

    page = look(made).page
    expect(page.locator(".card[data-key='spread'] .bars rect")).to_have_count(30)
    frame = page.locator(".card[data-key='report'] iframe")
    frame.scroll_into_view_if_needed()
    expect(frame.content_frame.locator("b")).to_have_text("all is well")
    sound = page.locator(".card[data-key='tone'] audio")
    page.wait_for_function("sound => sound.duration > 0.9", arg=sound.element_handle())
    expect(page.locator(".card[data-key='phase'] pre")).to_have_text("phase 2")
    page.locator("summary", has_text="Config").click()
    expect(page.locator(".config td")).to_have_text(["algorithm.lr", "1e-06"])


def test_table_is_sorted_by_its_heading(look: Callable[..., Opened], made: Path) -> None:
    card = look(made).page.locator(".card[data-key='samples']")

    def column() -> list[str]:
        return [str(text) for text in card.locator("tbody td:nth-child(2)").all_text_contents()]

    assert column() == [str(at * 7 % 10) for at in range(10)]
    card.get_by_role("button", name="reward").click()
    assert column() == [str(at) for at in range(10)]
    card.get_by_role("button", name="reward").click()
    assert column() == [str(at) for at in reversed(range(10))]


# -------------------------------------------------------------------- malice

EVIL = "</script><script>window.owned = 1</script><!--<img src=x onerror='window.owned = 2'>"


@contextmanager
def listening() -> Iterator[tuple[str, list[object]]]:
    """An address, and who came there."""
    visitors: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connection, address = server.accept()
                except OSError:
                    return
                visitors.append(address)
                connection.close()

        thread = Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", visitors
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def hostile_html(address: str) -> str:
    """HTML that tries to run, to go elsewhere, and to call somebody."""
    return (
        "<script>top.owned = 3</script><svg onload='top.owned = 4'></svg>"
        f"<img src='{address}/image'><link rel=stylesheet href='{address}/style'><link rel=preconnect href='{address}'>"
        f"<meta http-equiv=refresh content='0;url={address}/refresh'><iframe src='{address}/frame'></iframe>"
        f"<object data='{address}/object'></object><embed src='{address}/embed'><video src='{address}/video'></video>"
        f"<template shadowrootmode=open><iframe src='{address}/shadow'></iframe></template>"
        f"<style>@import url({address}/import); body {{ background: url({address}/background) }}</style>"
        f"<a id=away target=_top href='{address}/away'>click</a><p id=end>end</p>"
    )


@pytest.fixture
def hostile(tmp_path: Path) -> Callable[[str], Path]:
    """The page of a job whose names, strings and HTML are all malicious."""

    def make(address: str) -> Path:
        config = rolecall.MonitorConfig(project=EVIL, name=EVIL, monitor_type="local", monitor_dir=tmp_path / "job")
        with rolecall.launch(config, {EVIL: EVIL}) as job, rolecall.open_monitor(job.config, "trainer") as monitor:
            values: dict[str, Any] = {EVIL: 1.0, "__proto__": 1.0, "constructor": 2.0, f"{EVIL} text": EVIL}
            extremes = {"huge": 1e308, "large": 1e289, "tiny": 5e-324, "none": math.nan, "whole": 2**62}
            for step in (1, 2, 2**62):
                sign = 1 if step == 2 else -1
                monitor.log({**values, **{key: sign * value for key, value in extremes.items()}}, step)
            monitor.log({f"{EVIL} table": rolecall.Table([{EVIL: EVIL}])}, 1)
            monitor.log({"page": rolecall.Html(hostile_html(address))}, 1)
        file = tmp_path / "page.html"
        file.write_bytes(make_page([config.monitor_dir]))
        return file

    return make


def test_hostile_job_runs_and_calls_nothing(browser: Browser, hostile: Callable[[str], Path]) -> None:
    from playwright.sync_api import expect

    with listening() as (address, visitors):
        page = browser.new_page()  # with a network: only the page itself keeps it from being used
        file = hostile(address)
        page.goto(file.as_uri())
        scroll_through(page)
        frame = page.locator("iframe")
        frame.scroll_into_view_if_needed()
        expect(frame.content_frame.locator("#end")).to_be_visible()
        frame.content_frame.locator("#away").click()
        # Whoever was called has been by then: a page of its own takes longer than a connection on this machine.
        browser.new_page().close()
        assert page.evaluate("window.owned") is None
        assert page.title() == f"{EVIL} / {EVIL}"
        assert page.url == file.as_uri()
        assert page.locator("h1 .name").inner_text() == f"{EVIL} / {EVIL}"
        assert page.evaluate("document.querySelectorAll('script').length") == 2
        page.close()
        assert visitors == []


def test_million_points_open_in_seconds(look: Callable[..., Opened], tmp_path: Path) -> None:
    """All of them are there, in a page of less than 5 MB, with the one value that is unlike the others."""
    config = rolecall.MonitorConfig(project="p", name="n", monitor_type="local", monitor_dir=tmp_path / "job")
    with rolecall.launch(config) as job, rolecall.open_monitor(job.config, "trainer") as monitor:
        for step in range(1, 10_001):
            monitor.log(
                {f"metric/{at}": 50.0 if (step, at) == (7_777, 3) else math.sin(step + at) for at in range(100)}, step
            )
    file = tmp_path / "page.html"
    assert write_page([config.monitor_dir], file) < 5_000_000
    opened = look(file)
    data = json.loads(opened.page.locator("#data").text_content() or "")
    assert sum(series["count"] for chart in data["charts"] for series in chart["series"]) == 1_000_000
    assert [chart["key"] for chart in data["charts"] for series in chart["series"] if series["max"] == 50] == [
        "metric/3"
    ]
    opened.chart("metric/3").scroll_into_view_if_needed()
    assert opened.chart("metric/3").locator("canvas").evaluate(COLOURED) > 200
    assert opened.complaints == []
