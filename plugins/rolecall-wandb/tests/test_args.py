import os
from pathlib import Path
from typing import Any

import pytest

from rolecall import ConfigError, MonitorConfig

KEY = "0123456789abcdef0123456789abcdef01234567"


def config(**monitor_args: Any) -> MonitorConfig:
    return MonitorConfig(
        project="gsm8k", name="grpo-1", monitor_type="wandb", monitor_args=monitor_args, monitor_dir="runs"
    )


@pytest.mark.parametrize(
    ("monitor_args", "expected"),
    [
        ({"base_ur": "http://here"}, ["monitor_args.base_ur", "base_url"]),
        ({"base_url": "here:8080"}, ["monitor_args.base_url", "http://HOST:PORT"]),
        ({"mode": "shared"}, ["monitor_args.mode", "'online', 'offline' or 'disabled'"]),
        ({"init_timeout": 0}, ["monitor_args.init_timeout", "greater than 0"]),
        (
            {"settings": {"run_id": "a"}},
            ["monitor_args.settings", "run_id is set by rolecall; use monitor_args.run_id instead"],
        ),
        ({"settings": {"x_label": "a"}}, ["x_label is set by rolecall; leave it out"]),
    ],
)
def test_wrong_argument_is_reported_with_path(monitor_args: dict[str, Any], expected: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        config(**monitor_args)
    assert [part for part in expected if part not in str(caught.value)] == []


def test_the_key_is_shown_nowhere() -> None:
    made = config(api_key=KEY)
    assert KEY not in repr(made) + str(made.model_dump()) + made.model_dump_json()
    with pytest.raises(ConfigError) as caught:
        config(api_key=KEY, entity="")
    assert KEY not in str(caught.value)


def test_a_relative_directory_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = config(dir="kept")
    os.chdir("/")
    assert made.monitor_args["wandb"].model_dump()["dir"] == tmp_path / "kept"
