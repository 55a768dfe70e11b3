"""Real stores, and ways to read them that bypass the code under test."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
from local_postgresql import NotHere, PostgreSQL, serving_postgresql
from local_servers import free_port, serving_mlflow

from rolecall import Row, RunTicket
from rolecall_mlflow.args import MlflowArgs
from rolecall_mlflow.plugin import open_run
from rolecall_mlflow.run import MlflowRun

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

ROLE = Path(__file__).parent / "role.py"
NOTHING = RunTicket(
    project="gsm8k",
    name="grpo-1",
    group=None,
    run_id="r-1",
    backend_run_id=None,
    shared=True,
    primary=True,
    writer=None,
    role=None,
    config={},
    directory=Path("/nowhere"),
    pid=1,
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # MLflow, SQLAlchemy and their dependencies warn about each other, which is nothing for this plugin to fix.
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("default"))


@pytest.fixture(autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MLflow's client is configured by the environment; no test sees what another set.

    MLflow 2 makes an empty `mlruns` in the working directory.
    """
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("MLFLOW_TRACKING", "MLFLOW_RUN_ID"))]:
        del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def ticket(tmp_path: Path) -> Callable[..., RunTicket]:
    def make(**changes: Any) -> RunTicket:
        given = {name: getattr(NOTHING, name) for name in RunTicket.__slots__}
        return RunTicket(**{**given, "directory": tmp_path / "backends" / "mlflow", **changes})

    return make


@pytest.fixture
def row() -> Callable[..., Row]:
    def make(seq: int, metrics: dict[str, float] | None = None, **changes: Any) -> Row:
        given = {"writer": "explorer", "session": 1, "seq": seq, "step": seq, "time": 1_700_000_000.0 + seq / 1000}
        return Row(**{**given, "metrics": metrics or {}, **changes})

    return make


@dataclass(slots=True)
class Job:
    """A store, and the runs that a test opens in it."""

    uri: str
    ticket: Callable[..., RunTicket]
    runs: list[MlflowRun] = field(default_factory=list)

    def open(self, args: dict[str, Any] | None = None, **changes: Any) -> MlflowRun:
        self.runs.append(open_run(self.ticket(**changes), MlflowArgs.model_validate({"uri": self.uri} | (args or {}))))
        return self.runs[-1]

    def join(self, writer: str, **changes: Any) -> MlflowRun:
        """Join the run that was opened first."""
        role = writer.partition("/")[0]
        given = {"primary": False, "writer": writer, "role": role, "backend_run_id": self.runs[0].id}
        return self.open(**{**given, **changes})

    @property
    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)

    def stored(self, run_id: str | None = None) -> Any:
        return self.client.get_run(run_id or self.runs[0].id)

    def points(self, key: str, run_id: str | None = None) -> list[tuple[int, float]]:
        """Every point of a metric, by step, as MLflow's own client reads it."""
        history = self.client.get_metric_history(run_id or self.runs[0].id, key)
        return sorted((metric.step, metric.value) for metric in history)

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, "the condition did not become true"
            time.sleep(0.05)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sqlite file as MLflow makes it. That takes it seconds, so the workers of pytest-xdist share one."""
    from mlflow import MlflowClient

    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    path, draft = folder / "mlflow.db", folder / "draft.db"
    with (folder / "mlflow.lock").open("w") as lock, contextlib.chdir(folder):
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            MlflowClient(tracking_uri=f"sqlite:///{draft}").search_experiments(max_results=1)
            draft.rename(path)
    return path


@pytest.fixture
def sqlite(tmp_path: Path, migrated: Path, ticket: Callable[..., RunTicket]) -> Job:
    shutil.copy(migrated, tmp_path / "mlflow.db")
    return Job(f"sqlite:///{tmp_path / 'mlflow.db'}", ticket)


@pytest.fixture
def files(tmp_path: Path, ticket: Callable[..., RunTicket]) -> Job:
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    return Job(f"file://{tmp_path / 'mlruns'}", ticket)


@pytest.fixture
def run_roles() -> Callable[..., list[str]]:
    """Run `role.py` with a process for each errand, all at the same time; the ids of their runs."""

    def run(*errands: dict[str, Any]) -> list[str]:
        command = [sys.executable, str(ROLE), json.dumps(errands, default=_plain)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    return run


def _plain(value: object) -> object:
    return asdict(value) if isinstance(value, RunTicket) else str(value)


@dataclass(slots=True)
class Server:
    """A real `mlflow server`, which can be stopped and started again on the same port and store.

    Its store is a sqlite file, or a database.
    """

    directory: Path
    database: str | None = None
    port: int = field(default_factory=free_port)
    running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.running.enter_context(serving_mlflow(self.directory, self.port, self.database))

    def stop(self) -> None:
        self.running.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def served(server: Server, ticket: Callable[..., RunTicket], request: pytest.FixtureRequest) -> Job:
    """A job on the server, with an experiment of its own for each test."""
    return _job_on(server, ticket, request)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[PostgreSQL]:
    with contextlib.ExitStack() as stack:
        try:
            database = stack.enter_context(serving_postgresql())
        except NotHere as why:
            pytest.skip(str(why))
        yield database


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory, postgresql: PostgreSQL) -> Iterator[Server]:
    """A server on PostgreSQL, as production has it."""
    server = Server(tmp_path_factory.mktemp("production"), postgresql.uri)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def produced(production: Server, ticket: Callable[..., RunTicket], request: pytest.FixtureRequest) -> Job:
    """A job on that server."""
    return _job_on(production, ticket, request)


def _job_on(server: Server, ticket: Callable[..., RunTicket], request: pytest.FixtureRequest) -> Job:
    return Job(server.uri, lambda **changes: ticket(**{"project": request.node.name, **changes}))
