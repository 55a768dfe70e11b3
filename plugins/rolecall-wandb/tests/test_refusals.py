"""A server that does not let us in, or is none; and keys, which are nobody's to read."""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from wandb_emulator import Fault, StoredRun, WandbServer
from wandb_scene import LogTimes, Role, Scene

from rolecall import BackendRefused, MonitorConfig, launch, open_monitor
from rolecall_wandb.situation import takes_key

BRIEF = ("--steps", "20", "--every", "0.05")
SECRET = "5ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4"


def with_args(scene: Scene, **args: Any) -> MonitorConfig:
    """The scene's config with other arguments of wandb's."""
    return scene.config.model_validate({**scene.config.model_dump(), "monitor_args": args})


FAILURES: dict[str, Callable[[], Fault]] = {
    "fails": lambda: Fault("any", answer=500),
    "init-fails": lambda: Fault("upsert", answer=500),
    "init-hangs": lambda: Fault("upsert", delay=8.0),
    "hangs": lambda: Fault("query", delay=12.0),
}


@pytest.mark.servers
@pytest.mark.parametrize("kind", FAILURES)
def test_job_starts_while_server_is_away(scene: Scene, kind: str) -> None:
    fault = scene.server.faults.add(FAILURES[kind]())
    with launch(with_args(scene, init_timeout=5.0)) as job, open_monitor(job.config, "trainer") as monitor:
        trainer = LogTimes(monitor)
        trainer.log_for(1.0)
        assert (scene.held("trainer"), monitor.urls) == (0, {})
        assert fault.hits
        scene.server.faults.clear()
        scene.wait_for("trainer", len(trainer.calls))
    scene.wait_for_end()
    scene.check()


@pytest.mark.processes
def test_unknown_key_is_refused_at_launch(scene: Scene) -> None:
    scene.server.state.keys = {SECRET}
    with pytest.raises(BackendRefused, match=r"does not know this API key.*monitor_args\.api_key") as refused:
        launch(scene.config)
    assert os.environ["WANDB_API_KEY"] not in str(refused.value)
    assert not scene.server.runs


@pytest.mark.servers
def test_rows_wait_while_key_is_refused(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rolecall")
    with launch(scene.config) as job, open_monitor(job.config, "trainer") as monitor:
        trainer = LogTimes(monitor)
        trainer.log_until(lambda: scene.held("trainer") > 0)
        scene.server.state.keys = {SECRET}
        trainer.log_until(lambda: "trainer: wandb: not available" in caplog.text)
        assert "refuses these credentials" in caplog.text
        trainer.log_for(2.0)
        scene.server.state.keys = None
        trainer.log_for(1.0)
    scene.wait_for_end()
    scene.check()


class Answer(BaseHTTPRequestHandler):
    """Something else that speaks HTTP."""

    server: Elsewhere  # type: ignore[mutable-override]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b"<html><body>Welcome</body></html>"
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its signature
        pass


class Elsewhere(ThreadingHTTPServer):
    """A web server that is not wandb's."""

    status = 200


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    with Elsewhere(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.processes
@pytest.mark.parametrize("status", [200, 404, 405])
def test_address_without_wandb_refused_at_launch(scene: Scene, elsewhere: Elsewhere, status: int) -> None:
    elsewhere.status = status
    url = f"http://127.0.0.1:{elsewhere.server_port}"
    with pytest.raises(BackendRefused, match=f"{url} is not a wandb server; correct monitor_args.base_url"):
        launch(with_args(scene, base_url=url))


@pytest.mark.processes
def test_unknown_setting_is_refused_at_launch(scene: Scene) -> None:
    config = with_args(scene, settings={"x_file_stream_transmit_intervall": 1})
    with pytest.raises(
        BackendRefused, match=r"unknown setting of wandb .*; did you mean x_file_stream_transmit_interval\?"
    ):
        launch(config)


KINDS: dict[str, dict[str, Any]] = {
    "shared": {"shared_run": True},
    "separate": {"shared_run": False},
    "offline": {"shared_run": False, "monitor_args": {"mode": "offline"}},
}


@pytest.mark.processes
@pytest.mark.parametrize(
    "kind", ["shared", *(pytest.param(kind, marks=pytest.mark.servers) for kind in ("separate", "offline"))]
)
def test_key_is_only_in_its_header(
    server: WandbServer,
    make_config: Callable[..., MonitorConfig],
    start_role: Callable[..., Role],
    tmp_path: Path,
    kind: str,
) -> None:
    del os.environ["WANDB_API_KEY"]
    server.state.keys = {SECRET}
    settings = KINDS[kind]
    args = {"api_key": SECRET, "dir": tmp_path / "sdk", **settings.get("monitor_args", {})}
    config = make_config(**{**settings, "monitor_args": args})
    with launch(config, run_config={"monitor": {"api_key": SECRET, "note": f"key {SECRET}"}}) as job:
        assert start_role(job.config, "trainer", *BRIEF).wait() == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if holds_key(path.read_bytes())] == []
    assert any(path.suffix == ".wandb" and path.stat().st_size > 1000 for path in files)
    assert [name for name, run in server.runs.items() if holds_key(all_of(run))] == []
    assert bool(server.runs) == (kind != "offline")


@pytest.mark.servers
@pytest.mark.processes
@pytest.mark.skipif(not takes_key(), reason="this SDK looks for the key in the environment")
@pytest.mark.parametrize("shared", [True, False])
def test_key_is_in_no_processes_environment(scene: Scene, shared: bool) -> None:
    del os.environ["WANDB_API_KEY"]
    scene.server.state.keys = {SECRET}
    config = with_args(scene, api_key=SECRET).model_copy(update={"shared_run": shared})
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"loss": 0.5})
        monitor.log_table("samples", [{"prompt": "1+1"}])
        scene.wait(lambda: any(run.history for run in scene.server.runs.values()))
        services = [path for path in Path("/proc").glob("[0-9]*/environ") if is_service(path)]
        assert services
        assert [path for path in services if holds_key(path.read_bytes())] == []


def is_service(environ: Path) -> bool:
    try:
        return b"wandb-core" in environ.with_name("cmdline").read_bytes()
    except OSError:
        return False


def holds_key(content: bytes) -> bool:
    return any(form in content for form in (SECRET.encode(), base64.b64encode(f"api:{SECRET}".encode())))


def all_of(run: StoredRun) -> bytes:
    """All that a server got of a run."""
    upserts = [(upsert.variables, upsert.config) for upsert in run.upserts]
    lines = [entry.line for entry in run.history]
    whole = [upserts, lines, run.summary, run.events, run.console, [post for _, _, post in run.posts]]
    return json.dumps(whole).encode() + b"".join(run.files.values())
