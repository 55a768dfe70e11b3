"""What integrations are given, beside no framework: a monitor, or the settings of a run of their own."""

from pathlib import Path

import pytest

import rolecall
from rolecall import ConfigError, launch, open_monitor
from rolecall.integrations.given import GivenRun, InitSettings


def test_a_run_of_its_own_begins_when_it_is_needed_and_again_after_its_end(tmp_path: Path) -> None:
    run = GivenRun("Logger", None, {"project": None, "monitor_dir": tmp_path / "job", "resume": "allow"})
    assert run.monitor is None
    assert not (tmp_path / "job").exists()
    first = run.open(project="maze", name="first")
    first.log({"loss": 0.5})
    assert run.open() is first
    assert first.run_id is not None
    run.finish("failed")
    assert not first.is_open
    second = run.open(project="maze", name="first")
    assert second is not first
    assert second.is_open
    run.finish()


def test_what_was_given_counts_before_a_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given, shown in (("mine", "mine"), (None, "theirs")):
        run = GivenRun("Logger", None, {"name": given, "monitor_dir": tmp_path / shown})
        run.open(name="theirs")
        run.finish()
        assert f"run {shown} -> " in capsys.readouterr().err


def test_a_monitor_that_was_given_is_not_ended(tmp_path: Path) -> None:
    with launch({"project": "p", "name": "n", "monitor_dir": tmp_path}) as job:
        with open_monitor(job.config, "trainer") as monitor:
            run = GivenRun("Logger", monitor, {"project": None, "tags": None})
            run.finish("failed")
            assert run.open() is monitor
            assert monitor.is_open
        assert run.open() is monitor  # and no run of its own follows


def test_settings_beside_a_monitor_and_unknown_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"Logger: unexpected argument projct; .* rolecall\.init, which are project, "):
        GivenRun("Logger", None, {"projct": "maze"})
    with pytest.raises(ConfigError, match=r"Logger: monitor: str is not a rolecall\.Monitor"):
        GivenRun("Logger", "maze", {})  # type: ignore[arg-type]
    with rolecall.init("p", monitor_dir=tmp_path / "job") as monitor:
        with pytest.raises(ConfigError, match=r"Logger: name, tags: not allowed together with monitor"):
            GivenRun("Logger", monitor, {"project": None, "name": "n", "tags": ["a"]})
        monitor.log({"loss": 1.0})


def test_the_settings_are_those_of_init() -> None:
    taken = {"project", "name", *InitSettings.__annotations__}
    assert taken == set(rolecall.init.__annotations__) - {"return"}
