"""Faults of servers and files: real sockets, real files, and a small HTTP server in place of a proxy."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rolecall import BackendRefused, Media, Rejected, Row, RunTicket, TableData, Unavailable
from rolecall_mlflow.args import MlflowArgs
from rolecall_mlflow.plugin import open_run, prepare

if TYPE_CHECKING:
    from conftest import Job

MakeRow = Callable[..., Row]
MakeTicket = Callable[..., RunTicket]


class Proxy(ThreadingHTTPServer):
    """Answers every request with the same status and body, and keeps the requests."""

    status, body = 200, b"{}"
    limit = 1_000_000
    has_rival = False
    """Whether another writer sets each tag at the same moment, and wins."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.authorizations: list[str | None] = []
        self.taken: list[Any] = []

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


RIVAL = json.dumps(
    {
        "error_code": "BAD_REQUEST",
        "message": "(sqlite3.IntegrityError) UNIQUE constraint failed: tags.key, tags.run_uuid",
    }
).encode()
"""What MLflow 3.17.2 answers then."""


class Answer(BaseHTTPRequestHandler):
    server: Proxy  # type: ignore[mutable-override]

    def answer(self) -> None:
        request = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        too_large = len(request) > self.server.limit
        if request and not too_large and self.command != "PUT":  # that is an artifact
            self.server.taken.append(json.loads(request))
        self.server.authorizations.append(self.headers.get("Authorization"))
        status, body = (413, b"Request Entity Too Large") if too_large else (self.server.status, self.server.body)
        if self.server.has_rival and self.path.endswith("/runs/set-tag"):
            status, body = 400, RIVAL
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = do_PUT = answer  # noqa: N815 - the names that http.server calls

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its signature
        pass


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    server = Proxy()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (401, b"You are not authenticated", "monitor_args.username"),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "Permission denied"}', "MLFLOW_TRACKING_PASSWORD"),
        (404, b"<html>nginx</html>", "is not an MLflow server; correct monitor_args.uri"),
        (200, b"<html>log in</html>", "is not an MLflow server; correct monitor_args.uri"),
        (400, b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "nonsense"}', "nonsense"),
    ],
)
def test_a_refusal_stops_the_launch(proxy: Proxy, ticket: MakeTicket, status: int, body: bytes, says: str) -> None:
    proxy.status, proxy.body = status, body
    args = MlflowArgs(uri=proxy.uri.replace("//", "//ann:hunter2@"))
    for hook in (prepare, open_run):
        with pytest.raises(BackendRefused, match=says) as caught:
            hook(ticket(), args)
        assert "hunter2" not in str(caught.value)
    assert set(proxy.authorizations) == {"Basic YW5uOmh1bnRlcjI="}


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_server_in_trouble_does_not(proxy: Proxy, ticket: MakeTicket, status: int) -> None:
    proxy.status, proxy.body = status, b"try later"
    for hook in (prepare, open_run):
        with pytest.raises(Unavailable, match="cannot be reached"):
            hook(ticket(), MlflowArgs(uri=proxy.uri))


def test_nobody_listens(ticket: MakeTicket) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable, match="cannot be reached"):
            prepare(ticket(), MlflowArgs(uri=f"http://127.0.0.1:{bound.getsockname()[1]}"))


def test_silent_server_costs_a_bounded_time(ticket: MakeTicket) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with pytest.raises(Unavailable):
            prepare(ticket(), MlflowArgs(uri=f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=1))
        assert time.monotonic() - began < 10


def test_what_user_set_in_environment_stays(proxy: Proxy, ticket: MakeTicket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "7")
    proxy.status = 500
    with pytest.raises(Unavailable):
        prepare(ticket(), MlflowArgs(uri=proxy.uri))
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "7"
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"


RUN = {"info": {"run_id": "a" * 32, "experiment_id": "1", "lifecycle_stage": "active", "status": "RUNNING"}}


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_rows_wait_while_job_is_refused(proxy: Proxy, ticket: MakeTicket, row: MakeRow, status: int) -> None:
    proxy.body = json.dumps({"run": RUN}).encode()
    given = {"primary": False, "writer": "explorer", "backend_run_id": "a" * 32}
    run = open_run(ticket(**given), MlflowArgs(uri=proxy.uri))
    assert run.url == f"{proxy.uri}/#/experiments/1/runs/{'a' * 32}?workflowType=machine_learning"
    proxy.status, proxy.body = status, b"no"
    with pytest.raises(Unavailable):
        run.log([row(1, {"a": 1.0})])


def test_unshown_status_is_tried_again(proxy: Proxy, ticket: MakeTicket) -> None:
    """A proxy may answer 200 for a server that never heard of it."""
    proxy.body = json.dumps({"run": RUN}).encode()
    run = open_run(ticket(backend_run_id="a" * 32, ended=1_700_000_060.25), MlflowArgs(uri=proxy.uri))
    with pytest.raises(Unavailable, match="shows the run as RUNNING, not as KILLED"):
        run.close("killed")
    assert proxy.taken[-1].items() >= {"status": "KILLED", "end_time": 1_700_000_060_250}.items()
    proxy.body = json.dumps({"run": {"info": {**RUN["info"], "status": "KILLED"}}}).encode()
    run.close("killed")


def test_too_large_a_request_is_halved(proxy: Proxy, ticket: MakeTicket, row: MakeRow) -> None:
    proxy.body = json.dumps({"run": RUN}).encode()
    run = open_run(ticket(primary=False, writer="explorer", backend_run_id="a" * 32), MlflowArgs(uri=proxy.uri))
    proxy.limit = 400
    run.log([row(seq, {"a": 1.0}) for seq in range(1, 21)])
    assert [metric["step"] for request in proxy.taken for metric in request["metrics"]] == list(range(1, 21))
    assert len(proxy.taken) > 1


def test_media_wait_or_are_refused(proxy: Proxy, ticket: MakeTicket, row: MakeRow, tmp_path: Path) -> None:
    info = {**RUN["info"], "artifact_uri": "mlflow-artifacts:/1/artifacts"}
    proxy.body = json.dumps({"run": {"info": info}}).encode()
    run = open_run(ticket(primary=False, writer="explorer", backend_run_id="a" * 32), MlflowArgs(uri=proxy.uri))
    (tmp_path / "film.mp4").write_bytes(bytes(100_000))
    film = row(1, media=(Media(key="film", kind="video", path=tmp_path / "film.mp4"),))
    run.log_media(film)
    for status in (401, 403, 429, 500, 503):
        proxy.status = status
        with pytest.raises(Unavailable, match="does not accept a video at the moment"):
            run.log_media(film)
    proxy.status, proxy.limit = 200, 50_000
    with pytest.raises(Rejected, match=r"cannot store the video.*413") as caught:
        run.log_media(film)
    assert caught.value.rows == (film,)


# ids of their own, as MLflow remembers for the whole process where the artifacts of a run are
@pytest.mark.parametrize(("kind", "run_id"), [("image", "b" * 32), ("table", "c" * 32)])
def test_tag_that_rival_sets_is_set_again(
    proxy: Proxy, ticket: MakeTicket, row: MakeRow, tmp_path: Path, kind: str, run_id: str
) -> None:
    info = {**RUN["info"], "run_id": run_id, "artifact_uri": "mlflow-artifacts:/1/artifacts"}
    proxy.body = json.dumps({"run": {"info": info}}).encode()
    run = open_run(ticket(primary=False, writer="explorer", backend_run_id=run_id), MlflowArgs(uri=proxy.uri))
    (tmp_path / "maze.png").write_bytes(b"png")
    image = Media(key="maze", kind="image", path=tmp_path / "maze.png", mime="image/png")
    table = TableData(name="moves", columns=("n",), rows=((1,),))
    log = run.log_media if kind == "image" else run.log_table
    logged = row(1, media=(image,)) if kind == "image" else row(1, table=table)
    proxy.has_rival = True
    with pytest.raises(Unavailable, match=f"does not accept a {kind} at the moment.*UNIQUE"):
        log(logged)
    proxy.has_rival = False
    log(logged)


def test_file_store_not_allowed_by_mlflow(ticket: MakeTicket, tmp_path: Path) -> None:
    from mlflow import environment_variables

    if not hasattr(environment_variables, "MLFLOW_ALLOW_FILE_STORE"):
        pytest.skip("this MLflow allows it")
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "false"
    with pytest.raises(BackendRefused, match="MLFLOW_ALLOW_FILE_STORE=true") as caught:
        prepare(ticket(), MlflowArgs(uri=f"file://{tmp_path / 'mlruns'}"))
    assert "sqlite:////" in str(caught.value)


def test_file_without_database_is_refused(ticket: MakeTicket, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("a letter, and a long one")
    began = time.monotonic()
    with pytest.raises(BackendRefused, match="is not a sqlite file"):
        open_run(ticket(), MlflowArgs(uri="sqlite:///{monitor_dir}/mlflow.db"))
    assert time.monotonic() - began < 5


def test_impossible_path_is_refused_at_once(ticket: MakeTicket, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    for name in ("file/mlflow.db", "directory"):
        with pytest.raises(BackendRefused, match="cannot be used"):
            open_run(ticket(), MlflowArgs(uri=f"sqlite:///{tmp_path / name}"))


def test_database_of_another_mlflow_is_refused(sqlite: Job) -> None:
    with sqlite3.connect(sqlite.uri.removeprefix("sqlite:///")) as database:
        database.execute("UPDATE alembic_version SET version_num = 'feedfacecafe'")
    database.close()
    with pytest.raises(BackendRefused, match="feedfacecafe"):
        sqlite.open()


def test_a_locked_database_is_unavailable(sqlite: Job, row: MakeRow) -> None:
    run = sqlite.open()
    lock = sqlite3.connect(sqlite.uri.removeprefix("sqlite:///"), isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Unavailable, match="database is locked"):
        run.log([row(1, {"a": 1.0})])
    lock.execute("ROLLBACK")
    lock.close()
    run.log([row(1, {"a": 1.0})])
    assert sqlite.points("a") == [(1, 1.0)]


def test_a_store_that_vanished_is_unavailable(sqlite: Job, row: MakeRow, tmp_path: Path) -> None:
    run = sqlite.open()
    (tmp_path / "mlflow.db").rename(tmp_path / "aside.db")
    with pytest.raises(Unavailable):
        run.log([row(1, {"a": 1.0})])
    shutil.move(tmp_path / "aside.db", tmp_path / "mlflow.db")
    run.log([row(1, {"a": 1.0})])
    assert sqlite.points("a") == [(1, 1.0)]


@pytest.mark.processes
def test_processes_open_one_new_file_together(
    tmp_path: Path, ticket: MakeTicket, run_roles: Callable[..., list[str]]
) -> None:
    uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    tickets = [ticket(shared=False, writer=writer, role=writer, run_id=writer) for writer in "abc"]
    assert len(set(run_roles(*({"uri": uri, "ticket": each, "rows": 3} for each in tickets)))) == 3
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["mlflow.db"]


def test_tables_go_beside_the_database(sqlite: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    run = sqlite.open()
    assert sqlite.stored().info.artifact_uri == f"file://{tmp_path}/mlartifacts/{run.id}/artifacts"
    assert run.url.partition("  # ")[0] == f"mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db"
    assert not [path for path in elsewhere.rglob("*") if path.is_file()]  # MLflow 2 leaves an empty mlruns


def test_a_given_place_for_tables_counts(sqlite: Job, tmp_path: Path) -> None:
    run = sqlite.open({"artifact_location": f"file://{tmp_path}/mine"})
    assert sqlite.stored().info.artifact_uri == f"file://{tmp_path}/mine/{run.id}/artifacts"
