"""Makes docs/images: the demo's shared run in MLflow's own web UI, and the page of `rolecall show --html`.

Both are in light and in dark. Run by `nox -s pictures`.

The pictures show the project as it is: run it again when the demo or its metrics change.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local_servers import serving_mlflow

from rolecall.cli.page.build import write_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser

IMAGES = Path(__file__).parents[2] / "docs" / "images"
STEPS = 30
SEED = 1
WIDTH, HEIGHT, TALL = 1120, 610, 2200
PAGE_HEIGHT = 760
CHARTS = "(return|reward)/mean|loss/value"
"""A pattern, as MLflow searches for charts: one of each writer, so that one look shows whose run it is."""
SIDE_BY_SIDE = """() => {
  const plots = [...document.querySelectorAll('.js-plotly-plot')];
  let all = plots[0];
  while (!plots.every(plot => all.contains(plot))) all = all.parentElement;
  all.style.cssText += 'display: grid; gap: 12px; grid-template-columns: repeat(4, 1fr)';
  for (const section of all.children) {
    section.style.overflow = 'hidden';
    for (const part of section.children) {
      // a chart is as wide as a third of its section
      if (part.querySelector('.js-plotly-plot')) part.style.width = '300%';
      else for (const text of part.querySelectorAll('*'))
        if (getComputedStyle(text).textOverflow === 'ellipsis')
          text.style.cssText += 'max-width: none; overflow: visible';
    }
  }
}"""
"""MLflow draws a section for each writer, one below the other: four of them fit a picture only side by side."""
SETTLE_MS = 4_000
"""For the charts to take their new width."""


def main() -> None:
    """Run the demo for each of the two, and take a picture of its run in each colour scheme."""
    chromium = os.environ.get("ROLECALL_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("no Chromium: `apt-get install chromium`, or set ROLECALL_CHROMIUM to its path")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rolecall-") as folder:
        take_page_pictures(Path(folder), chromium)
        run_demo(Path(folder, "monitor"), "mlflow", uri=f"sqlite:///{folder}/server.db")
        with serving_mlflow(Path(folder)) as url:
            take_pictures(url, chromium)


def run_demo(monitor_dir: Path, backend: str, **args: str) -> None:
    """Run `rolecall demo` with one shared run."""
    rolecall = Path(sys.executable).with_name("rolecall")
    where = ["--monitor-type", backend, "--monitor-args", json.dumps(args), "--monitor-dir", str(monitor_dir)]
    subprocess.run([rolecall, "demo", "--shared-run", "--steps", str(STEPS), "--seed", str(SEED), *where], check=True)


@contextmanager
def browsing(chromium: str) -> Iterator[Browser]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield browser
        browser.close()


def take_page_pictures(folder: Path, chromium: str) -> None:
    """Write one picture for each colour scheme of the page that `rolecall show --html` makes of the demo."""
    run_demo(folder / "demo", "local")
    file = folder / "demo.html"
    write_page([folder / "demo"], file)
    with browsing(chromium) as browser:
        for scheme in ("light", "dark"):
            size = {"width": WIDTH, "height": PAGE_HEIGHT}
            page = browser.new_page(viewport=size, device_scale_factor=1.5, color_scheme=scheme)
            page.goto(file.as_uri())
            over = page.locator(".chart .u-over").nth(1)
            over.wait_for()
            box = over.bounding_box()
            over.hover(position={"x": box["width"] * 0.6, "y": box["height"] / 2})
            page.screenshot(path=IMAGES / f"page-{scheme}.png")
            page.close()


def ask(url: str, question: str, **body: Any) -> Any:
    """One request to MLflow's REST API."""
    request = urllib.request.Request(f"{url}/api/2.0/mlflow/{question}", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def take_pictures(url: str, chromium: str) -> None:
    """Write one picture for each colour scheme: the run's page, with a chart of each writer."""
    ids = [each["experiment_id"] for each in ask(url, "experiments/search", max_results=10)["experiments"]]
    (run,) = ask(url, "runs/search", experiment_ids=ids)["runs"]
    info = run["info"]
    address = f"{url}/#/experiments/{info['experiment_id']}/runs/{info['run_id']}/model-metrics"
    with browsing(chromium) as browser:
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": WIDTH, "height": TALL}, device_scale_factor=1.5)
            page.set_default_timeout(120_000)
            # MLflow keeps in the browser's storage what a user has chosen.
            for key, value in chosen(scheme).items():
                page.add_init_script(f"localStorage.setItem({json.dumps(key)}, {json.dumps(value)})")
            page.goto(address)
            page.locator(".js-plotly-plot path.js-line").first.wait_for()
            page.get_by_label("Toggle sidebar").click()
            page.get_by_placeholder("Search metric charts").fill(CHARTS)
            page.wait_for_function("document.querySelectorAll('.js-plotly-plot').length == 4")
            page.evaluate(SIDE_BY_SIDE)
            page.add_style_tag(content="[data-assistant-ui] { display: none }")
            page.mouse.click(WIDTH / 2, 64)  # takes the cursor out of the search
            page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
            page.wait_for_timeout(SETTLE_MS)
            page.screenshot(path=IMAGES / f"shared-run-{scheme}.png")
            page.close()


def chosen(scheme: str) -> dict[str, str]:
    """What a user of MLflow 3.17 has chosen who sees this picture: a colour scheme, and no assistant."""
    return {
        "_mlflow_dark_mode_toggle_enabled": json.dumps(scheme == "dark"),
        "databricks-dark-mode-pref": scheme,
        "mlflow.assistant.panelOpen_v1": "false",
        "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    }


if __name__ == "__main__":
    main()
