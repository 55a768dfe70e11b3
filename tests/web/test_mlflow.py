"""What a person sees in MLflow of a job that `rolecall demo` ran: one run, with each role's metrics."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.web, pytest.mark.timeout(600)]

WRITERS = ["explorer/0", "explorer/1", "trainer", "evaluator"]


@dataclass(frozen=True)
class Job:
    """The demo's run in MLflow, as its own server shows it."""

    url: str
    name: str
    experiment: str
    run_id: str
    keys: frozenset[str]

    def key_of(self, writer: str) -> str:
        return min(key for key in self.keys if key.startswith(f"{writer}/"))


def ask(url: str, question: str, **body: Any) -> Any:
    request = urllib.request.Request(f"{url}/api/2.0/mlflow/{question}")
    if body:
        request.add_header("Content-Type", "application/json")
        request.data = json.dumps(body).encode()
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def job(demo: Callable[..., Path], serve: Callable[..., str]) -> Job:
    uri = f"sqlite:///{demo('mlflow', uri='sqlite:///{monitor_dir}/mlflow.db')}/mlflow.db"
    url = serve("mlflow", "server", "--backend-store-uri", uri, "--workers", "1")
    experiments = ask(url, "experiments/search", max_results=10)["experiments"]
    ids = [one["experiment_id"] for one in experiments]
    (run,) = ask(url, "runs/search", experiment_ids=ids)["runs"]
    keys = frozenset(metric["key"] for metric in run["data"]["metrics"])
    return Job(url, run["info"]["run_name"], run["info"]["experiment_id"], run["info"]["run_id"], keys)


def axis(job: Job, key: str) -> list[int]:
    history = ask(job.url, f"metrics/get-history?run_id={job.run_id}&metric_key={quote(key)}")
    return [metric["step"] for metric in history["metrics"]]


def test_one_run_holds_every_roles_axis(page: Page, job: Job, steps: list[int]) -> None:
    from playwright.sync_api import expect

    for writer in WRITERS:
        axes = [axis(job, key) for key in job.keys if key.startswith(f"{writer}/")]
        assert all(one == sorted(set(one)) for one in axes)
        assert sorted(set().union(*axes)) == steps, writer
    page.goto(f"{job.url}/#/experiments/{job.experiment}/runs/{job.run_id}")
    expect(page.get_by_role("heading", name=job.name, exact=True)).to_be_visible()
    for writer in WRITERS:
        expect(page.get_by_text(job.key_of(writer), exact=True).first).to_be_attached()


def test_run_opens_in_view_for_training(page: Page, job: Job) -> None:
    from playwright.sync_api import expect

    page.goto(f"{job.url}/#/experiments/{job.experiment}/runs/{job.run_id}?workflowType=machine_learning")
    expect(page.get_by_role("link", name="Model registry")).to_be_visible()


@pytest.mark.parametrize("writer", WRITERS)
def test_each_role_has_chart_with_line(page: Page, job: Job, writer: str) -> None:
    from playwright.sync_api import expect

    page.goto(f"{job.url}/#/experiments/{job.experiment}/runs/{job.run_id}/model-metrics")
    page.get_by_placeholder("Search metric charts").fill(job.key_of(writer))
    expect(page.get_by_text(f"({job.key_of(writer)})").first).to_be_visible()
    expect(page.locator(".js-plotly-plot path.js-line").first).to_be_visible()
