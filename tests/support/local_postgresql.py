"""A PostgreSQL server of Debian's on loopback, with an empty database, that can be stopped and disturbed."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from local_servers import free_port

__all__ = ["DATABASE_FAULTS", "NotHere", "PostgreSQL", "serving_postgresql"]

START_TIMEOUT = 120.0
_USER = "mlflow"


class NotHere(Exception):
    """PostgreSQL cannot be started on this machine; the message says what is missing."""


class PostgreSQL:
    """A server on the data in a folder, which it makes, and which must belong to the user that it runs as."""

    def __init__(self, programs: Path, folder: Path, runs_as: Mapping[str, Any]) -> None:
        self._programs = programs
        self._folder = folder
        self._runs_as = {**runs_as, "cwd": folder}
        self._port = free_port()
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Its database, for SQLAlchemy."""
        return f"postgresql://{_USER}@127.0.0.1:{self._port}/postgres"

    def make(self) -> None:
        """Make the data, once."""
        command = ["initdb", "--no-sync", "--auth=trust", f"--username={_USER}", "--encoding=UTF8", "--pgdata=data"]
        subprocess.run([self._programs / command[0], *command[1:]], check=True, capture_output=True, **self._runs_as)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [str(self._programs / "postgres"), "-D", "data", "-p", str(self._port), "-h", "127.0.0.1", "-k", ""]
        with (self._folder / "postgres.log").open("ab") as log:
            self._server = server = subprocess.Popen(command, stdout=log, stderr=log, **self._runs_as)
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            text = (self._folder / "postgres.log").read_text(errors="replace")[-3000:]
            assert server.poll() is None, f"PostgreSQL ended:\n{text}"
            assert time.monotonic() < deadline, f"PostgreSQL does not answer:\n{text}"
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it as a crash would: it tells no client, and recovers from its log when it starts."""
        server, self._server = self._server, None
        if server is not None:
            server.send_signal(signal.SIGQUIT)  # "immediate shutdown" (PostgreSQL's manual, 18.5)
            server.wait(60)

    @contextmanager
    def restarted(self) -> Iterator[None]:
        """It restarts: open connections break, and new ones are accepted."""
        self.stop()
        self.start()
        yield

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """It is down as long as the block lasts."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Somebody holds a lock on MLflow's table of metrics as long as the block lasts."""
        with self._psql() as psql:
            assert psql.stdin is not None
            assert psql.stdout is not None
            psql.stdin.write(b"BEGIN; LOCK TABLE metrics;\n\\echo locked\n")
            psql.stdin.flush()
            assert psql.stdout.readline() == b"locked\n"
            yield  # and psql ends once its input does, which rolls back

    def _answers(self) -> bool:
        with self._psql() as psql:
            answer, _ = psql.communicate(b"SELECT 'yes';")
        return answer == b"yes\n"

    def _psql(self) -> subprocess.Popen[bytes]:
        """A client that runs what it reads from its input."""
        return subprocess.Popen(
            [self._programs / "psql", "--no-psqlrc", "--quiet", "--tuples-only", "--no-align", self.uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )


DATABASE_FAULTS: Mapping[str, Callable[[PostgreSQL], AbstractContextManager[None]]] = {
    "database restarted": PostgreSQL.restarted,
    "database refuses": PostgreSQL.refusing,
    "table locked": PostgreSQL.locked,
}


@contextmanager
def serving_postgresql() -> Iterator[PostgreSQL]:
    """A running server.

    Raises:
        NotHere: this machine has none.
    """
    programs, runs_as = _programs(), _unprivileged()
    if find_spec("psycopg2") is None:
        raise NotHere("no psycopg2, MLflow's driver for PostgreSQL: `pip install psycopg2-binary`")
    # Not in a test's own folder: that is closed to other users.
    with tempfile.TemporaryDirectory(prefix="rolecall-postgresql-") as folder:
        if runs_as:
            os.chown(folder, runs_as["user"], runs_as["group"])
        server = PostgreSQL(programs, Path(folder), runs_as)
        server.make()
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _programs() -> Path:
    """The folder of PostgreSQL's programs. Debian has one for each version, none of them on the PATH."""
    if here := os.environ.get("ROLECALL_POSTGRESQL"):
        return Path(here)
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise NotHere("no PostgreSQL: `apt-get install postgresql`, or say in ROLECALL_POSTGRESQL where they are")
    return found[-1].parent


def _unprivileged() -> dict[str, Any]:
    """Options of `Popen`: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    known = {user.pw_name: user for user in pwd.getpwall()}
    user = known.get("postgres") or known.get("nobody")
    if user is None:
        raise NotHere("PostgreSQL refuses to run as root, and there is no user postgres or nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
