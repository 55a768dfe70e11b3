"""Whatever becomes of a role, its team ends, at once and whole."""

from __future__ import annotations

import operator
import os
import signal
import time

import pytest

from rolecall.demo.processes import RoleFailed, Team

pytestmark = pytest.mark.processes

# Roles are looked up by name in a fresh interpreter, where the modules of tests cannot be found.
send, receive = operator.methodcaller("send", "done"), operator.methodcaller("recv")


def processes_of(team: Team) -> list[int | None]:
    return [process.exitcode for process in team._processes]


def test_reports_arrive_until_all_roles_end() -> None:
    with Team() as team:
        team.start("one", send, team.inbox())
        team.start("two", send, team.inbox())
        assert list(team.watch()) == ["done", "done"]
        assert processes_of(team) == [0, 0]


def test_crashed_role_is_named_others_stop(capfd: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    with Team() as team:
        team.start("trainer", time.sleep, 600)
        team.start("explorer/0", operator.truediv, 1, 0)
        with pytest.raises(RoleFailed, match=r"^explorer/0 failed with exit status 1, see above; the other"):
            list(team.watch())
    assert all(processes_of(team))
    assert time.monotonic() - began < 30
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_role_without_counterpart_is_not_blamed(capfd: pytest.CaptureFixture[str]) -> None:
    with Team() as team:
        ours, theirs = team.pipe()
        team.start("trainer", receive, ours)
        team.start("explorer/0", receive, theirs)
        os.kill(team._processes[1].pid or 0, signal.SIGKILL)
        with pytest.raises(RoleFailed, match="explorer/0 was killed by SIGKILL"):
            list(team.watch())
    assert "Traceback" not in capfd.readouterr().err


def test_leaving_early_stops_every_role() -> None:
    with Team() as team:
        team.start("trainer", time.sleep, 600)
        team.start("explorer/0", time.sleep, 600)
    assert all(processes_of(team))


def test_role_has_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with Team() as team:
        team.start("trainer", os.execvp, "sh", ["sh", "-c", 'test "$OMP_NUM_THREADS$MKL_NUM_THREADS" = 11'])
        assert list(team.watch()) == []
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
