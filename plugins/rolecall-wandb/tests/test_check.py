"""The command with which users check their own server."""

import pytest
from wandb_emulator import Fault, Policy, WandbServer

from rolecall_wandb.check import main


@pytest.mark.servers
@pytest.mark.timeout(300)
@pytest.mark.parametrize("policy", list(Policy))
def test_server_that_does_what_is_needed(
    server: WandbServer, capsys: pytest.CaptureFixture[str], policy: Policy
) -> None:
    assert main([]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed if not line.startswith("ok ") and "rolecall" not in line] == []
    expected = {Policy.REPLACE: "replaced", Policy.MERGE: "merged"}[policy]
    assert any(line.endswith(f"when another joins: {expected}") for line in printed)
    assert any("40 of 40" in line for line in printed)


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--base-url", "http://127.0.0.1:9"]) == 1
    assert "no API key for http://127.0.0.1:9" in capsys.readouterr().out


def test_a_server_that_answers_nothing(server: WandbServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.faults.add(Fault("any", answer=500))
    assert main([]) == 2
    assert "answers 500" in capsys.readouterr().err
