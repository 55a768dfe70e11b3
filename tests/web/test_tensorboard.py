"""What a person sees in TensorBoard of a job that `rolecall demo` ran."""

from __future__ import annotations

import io
import json
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [pytest.mark.web, pytest.mark.timeout(600)]

Tags = dict[str, dict[str, Any]]
WRITERS = ["explorer/0", "explorer/1", "trainer", "evaluator"]


@pytest.fixture(scope="module")
def url(demo: Callable[..., Path], serve: Callable[..., str]) -> str:
    logdir = demo("tensorboard", "--shared-run") / "backends" / "tensorboard"
    return serve("tensorboard.main", "--logdir", str(logdir), "--samples_per_plugin", "scalars=100000,text=100")


@pytest.fixture(scope="module")
def relayed_url(demo: Callable[..., Path], serve: Callable[..., str]) -> str:
    """The address of what the demo logs by default."""
    logdir = demo("tensorboard") / "backends" / "tensorboard"
    return serve("tensorboard.main", "--logdir", str(logdir), "--samples_per_plugin", "scalars=100000,text=100")


@pytest.fixture(scope="module")
def media_url(media: Callable[[str], Path], serve: Callable[..., str]) -> str:
    """The address of a job that logs media of each kind that TensorBoard shows."""
    logdir = media("tensorboard") / "backends" / "tensorboard"
    return serve("tensorboard.main", "--logdir", str(logdir), "--samples_per_plugin", "images=100")


def ask(url: str, question: str, **arguments: str) -> Any:
    """What TensorBoard's own server says."""
    query = urllib.parse.urlencode(arguments)
    with urllib.request.urlopen(f"{url}/data/{question}?{query}", timeout=30) as answer:
        return json.load(answer)


def wait_for_runs(page: Page, url: str) -> Tags:
    """The tags of each run, once TensorBoard has read and listed them all."""
    from playwright.sync_api import expect

    page.goto(f"{url}/#timeseries")
    for writer in WRITERS:
        expect(page.locator("runs-data-table").get_by_text(writer, exact=True)).to_be_visible()
    tags: Tags = ask(url, "plugin/scalars/tags")
    return tags


def await_line(chart: Locator) -> None:
    """Wait until something coloured is on the canvas, where the grid and the text are grey."""
    from PIL import Image

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        picture = Image.open(io.BytesIO(chart.screenshot())).convert("HSV")
        if sum(saturation > 60 for saturation in picture.getchannel("S").tobytes()) > 100:
            return
    pytest.fail("the chart stays empty")


def test_every_role_is_its_own_run(page: Page, url: str, steps: list[int]) -> None:
    tags = wait_for_runs(page, url)
    assert sorted(tags) == sorted(WRITERS)
    for writer, keys in tags.items():
        axes = [axis(url, writer, key) for key in keys]
        assert all(one == sorted(set(one)) for one in axes)
        assert sorted(set().union(*axes)) == steps, writer
    await_line(page.locator("line-chart").first)


def test_default_is_one_run_of_all_roles(page: Page, relayed_url: str, steps: list[int]) -> None:
    from playwright.sync_api import expect

    page.goto(f"{relayed_url}/#timeseries")
    await_line(page.locator("line-chart").first)
    tags: Tags = ask(relayed_url, "plugin/scalars/tags")
    (run,) = tags
    assert run.startswith("cartpole-")
    expect(page.locator("runs-data-table").get_by_text(run, exact=True)).to_have_count(1)
    for writer in WRITERS:
        axes = [axis(relayed_url, run, key) for key in tags[run] if key.startswith(f"{writer}/")]
        assert all(one == sorted(set(one)) for one in axes)
        assert sorted(set().union(*axes)) == steps, writer


def axis(url: str, writer: str, key: str) -> list[int]:
    return [step for _, step, _ in ask(url, "plugin/scalars/scalars", run=writer, tag=key)]


@pytest.mark.parametrize("writer", WRITERS)
def test_each_role_has_chart_with_line(page: Page, url: str, writer: str) -> None:
    from playwright.sync_api import expect

    key = min(wait_for_runs(page, url)[writer])
    filters = {"runFilter": f"^{writer}$", "tagFilter": f"^{re.escape(key)}$"}
    page.goto(f"{url}/?{urllib.parse.urlencode(filters)}#timeseries")
    card = page.locator("scalar-card").filter(has_text=key).first
    expect(card).to_contain_text(writer)
    await_line(card.locator("line-chart").first)


def test_config_and_tables_are_readable(page: Page, url: str) -> None:
    from playwright.sync_api import expect

    page.goto(f"{url}/#text")
    expect(page.locator("pre")).to_have_count(len(WRITERS))
    expect(page.locator("pre").first).to_contain_text("{")
    expect(page.locator("th").first).to_be_visible()
    page.locator("th").first.scroll_into_view_if_needed()


def test_hparams_list_job_and_roles(page: Page, url: str) -> None:
    from playwright.sync_api import expect

    page.goto(f"{url}/#hparams")
    rows = page.locator("tf-hparams-table-view vaadin-grid")
    for writer in WRITERS:
        expect(rows.get_by_text(writer, exact=True).first).to_be_visible()
    # The columns that differ come first, and five are chosen.
    expect(page.locator("tf-hparams-query-pane").get_by_text("job", exact=True).first).to_be_attached()


IMAGES = {"pixels": (64, 48), "list": (64, 48), "clip": (64, 48), "figure": (300, 200)}


@pytest.mark.parametrize("key", [*IMAGES, "jpeg", "gif", "webp"])
def test_browser_draws_each_image(page: Page, media_url: str, key: str) -> None:
    from playwright.sync_api import expect

    page.goto(f"{media_url}/?{urllib.parse.urlencode({'tagFilter': f'^{key}$'})}#timeseries")
    image = page.locator("image-card img").first
    expect(image).to_be_visible()
    page.wait_for_function("image => image.naturalWidth > 0", arg=image.element_handle())
    size = tuple(image.evaluate("image => [image.naturalWidth, image.naturalHeight]"))
    assert size == IMAGES.get(key, (64, 48))


def test_list_has_samples_to_choose(page: Page, media_url: str) -> None:
    tags: Tags = ask(media_url, "plugin/images/tags")
    assert {key: about["samples"] for key, about in tags["trainer"].items()}["list"] == 2
    page.goto(f"{media_url}/#images")
    page.locator("tf-image-loader img").first.wait_for()


def test_histogram_has_its_bins(page: Page, media_url: str) -> None:
    from playwright.sync_api import expect

    steps = ask(media_url, "plugin/histograms/histograms", run="trainer", tag="spread")
    assert [(step, len(bins), sum(count for _, _, count in bins)) for _, step, bins in steps] == [
        (step, 30, 1000) for step in (1, 2, 3)
    ]
    page.goto(f"{media_url}/?tagFilter=spread#timeseries")
    expect(page.locator("histogram-card svg.main, histogram-card svg").first).to_be_visible()


def test_sound_can_be_played(page: Page, media_url: str) -> None:
    page.goto(f"{media_url}/#audio")
    sound = page.locator("tf-audio-loader audio").first
    sound.wait_for(state="attached")
    page.wait_for_function("sound => sound.duration > 0.9", arg=sound.element_handle())


def test_page_is_shown_as_source(page: Page, media_url: str) -> None:
    from playwright.sync_api import expect

    page.goto(f"{media_url}/#text")
    expect(page.locator("pre").filter(has_text="<b>all is well</b>").first).to_be_visible()
