"""The demo's shared run in MLflow's own web UI, and on the page of `rolecall show --html`, in light and in dark."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import chdir
from pathlib import Path
from typing import Final, Literal

from local_servers import serving_mlflow
from picture_tools import MlflowRun, browsing, open_page, save

from rolecall.cli.page.build import write_page

STEPS = 30
SEED = 1
WIDTH, HEIGHT, TALL = 1120, 610, 2200
PAGE_HEIGHT = 700
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
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


def take_all() -> None:
    """Run the demo for each of the two, and take a picture of its run in each colour scheme."""
    with tempfile.TemporaryDirectory(prefix="rolecall-") as folder, chdir(folder):
        take_page_pictures(Path("runs/demo"))
        run_demo(Path("runs/mlflow"), "mlflow", uri=f"sqlite:///{folder}/server.db")
        with serving_mlflow(Path(folder)) as url:
            take_mlflow_pictures(MlflowRun(url))


def run_demo(monitor_dir: Path, backend: str, **args: str) -> None:
    """Run `rolecall demo` with one shared run."""
    rolecall = Path(sys.executable).with_name("rolecall")
    where = ["--monitor-type", backend, "--monitor-args", json.dumps(args), "--monitor-dir", str(monitor_dir)]
    subprocess.run([rolecall, "demo", "--shared-run", "--steps", str(STEPS), "--seed", str(SEED), *where], check=True)


def take_page_pictures(job: Path) -> None:
    """One picture for each colour scheme of the page that `rolecall show --html` makes of the demo."""
    run_demo(job, "local")
    file = Path("demo.html").absolute()
    write_page([job], file)
    with browsing() as browser:
        for scheme in SCHEMES:
            with open_page(browser, (WIDTH, PAGE_HEIGHT), scheme) as page:
                page.goto(file.as_uri())
                over = page.locator(".chart .u-over").nth(1)
                over.wait_for()
                box = over.bounding_box()
                assert box is not None
                over.hover(position={"x": box["width"] * 0.6, "y": box["height"] / 2})
                save(f"page-{scheme}", page.screenshot())


def take_mlflow_pictures(run: MlflowRun) -> None:
    """One picture for each colour scheme: the run's page, with a chart of each writer."""
    with browsing() as browser:
        for scheme in SCHEMES:
            with open_page(browser, (WIDTH, TALL)) as page:
                run.open(page, "model-metrics", scheme)
                page.locator(".js-plotly-plot path.js-line").first.wait_for()
                page.get_by_placeholder("Search metric charts").fill(CHARTS)
                page.wait_for_function("document.querySelectorAll('.js-plotly-plot').length == 4")
                page.evaluate(SIDE_BY_SIDE)
                page.mouse.click(WIDTH / 2, 64)  # takes the cursor out of the search
                page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
                page.wait_for_timeout(SETTLE_MS)
                save(f"shared-run-{scheme}", page.screenshot())
