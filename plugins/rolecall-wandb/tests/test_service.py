"""The SDK's service process of one run: it is found, nobody waits for it for ever, and it is gone in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb

import rolecall_wandb.service
from rolecall_wandb.service import Service, with_own_service

pytestmark = pytest.mark.processes


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[wandb.Run, Service]]:
    run, service = with_own_service(lambda: wandb.init(mode="offline", dir=str(tmp_path)))
    yield run, service
    if service.process is not None:
        service.process.kill()
        service.process.wait()


def test_its_process_is_known(opened: tuple[wandb.Run, Service]) -> None:
    """By a private name: the installed version of the SDK must have one of those that are looked for."""
    _, service = opened
    assert service.process is not None
    assert "wandb-core" in Path(f"/proc/{service.process.pid}/cmdline").read_text()


def test_it_ends_with_its_run(opened: tuple[wandb.Run, Service]) -> None:
    run, service = opened
    run.finish()
    service.end()
    assert service.process is not None
    assert service.process.returncode == 0


def test_service_that_hangs_is_killed(opened: tuple[wandb.Run, Service], monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK takes the killed process's status for the interpreter's, and raises SystemExit."""
    monkeypatch.setattr(rolecall_wandb.service, "END_TIMEOUT", 0.5)
    _, service = opened
    assert service.process is not None
    os.kill(service.process.pid, signal.SIGSTOP)
    service.end()
    assert service.process.returncode == -signal.SIGKILL


def test_what_takes_too_long_fails(opened: tuple[wandb.Run, Service]) -> None:
    run, service = opened
    assert service.process is not None
    os.kill(service.process.pid, signal.SIGSTOP)
    with pytest.raises(Exception), service.within(0.5):  # noqa: B017, PT011 - each SDK has its own
        run.finish()
    service.end()
    assert service.process.returncode == -signal.SIGKILL


EXITS = """
import os, signal, sys, wandb
from rolecall_wandb.service import with_own_service
_, service = with_own_service(lambda: wandb.init(mode="offline", dir=sys.argv[1]))
os.kill(service.process.pid, signal.SIGSTOP)
print(service.process.pid, flush=True)
"""


def test_interpreters_exit_does_not_wait(tmp_path: Path) -> None:
    command = [sys.executable, "-c", EXITS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        service = int(process.stdout.readline())
        try:
            assert process.wait(60.0) == 0
        finally:
            os.kill(service, signal.SIGKILL)  # it holds the pipe
