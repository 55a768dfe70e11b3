"""Which keys a writer defines, how often, and what the server then holds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import pytest
from wandb_emulator import Policy, WandbServer

from rolecall import Job, MonitorConfig, launch, open_monitor
from rolecall_wandb import definitions
from rolecall_wandb.definitions import MANY

MakeConfig = Callable[..., MonitorConfig]
Calls = dict[str, Counter[str]]
ROLES = ("explorer", "evaluator", "trainer")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Every call of the SDK's `define_metric`, by the label of the run that it was made on."""
    from wandb.sdk.wandb_run import Run

    found: Calls = defaultdict(Counter)
    original = Run.define_metric

    def record(self: Run, name: str, **options: Any) -> Any:
        found[str(self.settings.x_label)][name] += 1
        return original(self, name, **options)

    monkeypatch.setattr(Run, "define_metric", record)
    return found


def job_of(config: MonitorConfig, rows: dict[str, list[dict[str, float]]]) -> Job:
    """Roles of this process, their rows logged in turns."""
    with launch(config) as job:
        monitors = {role: open_monitor(job.config, role) for role in rows}
        for step, row in enumerate(zip(*rows.values(), strict=True), 1):
            for role, metrics in zip(rows, row, strict=True):
                monitors[role].log(metrics, step=step)
        for monitor in monitors.values():
            monitor.close()
    return job


@pytest.mark.timeout(240)
@pytest.mark.servers
def test_no_key_is_defined_twice(
    server: WandbServer, make_config: MakeConfig, calls: Calls, caplog: pytest.LogCaptureFixture
) -> None:
    """10,000 keys, each in two rows. What is defined again is one axis, to repair: see `Definitions.touch`."""
    names = [f"group{number % 7}/metric_{number}" for number in range(3_333)]
    parts = [dict.fromkeys(names[start : start + 500], 1.0) for start in range(0, len(names), 500)]
    job_of(make_config(courier="thread"), dict.fromkeys(ROLES, parts + parts))
    assert set(calls) == {*ROLES, "@launcher"}
    for defined in calls.values():
        assert {name for name, count in defined.items() if count > 1} <= {f"{role}/step" for role in ROLES}
        assert len([name for name in defined if not name.endswith(("*", "/step"))]) <= MANY
    patterns = {f"{role}/*" for role in ROLES}
    assert any(patterns & set(defined) for defined in calls.values())
    assert f"more than {MANY} metric keys" in caplog.text


def test_repair_defines_only_one_axis(server: WandbServer, make_config: MakeConfig, calls: Calls) -> None:
    from rolecall import RunTicket
    from rolecall_wandb.args import WandbArgs
    from rolecall_wandb.plugin import open_run

    directory = make_config().monitor_dir
    ticket = RunTicket(
        project="p", name="n", group=None, run_id="r", backend_run_id=None, shared=True, primary=True, writer=None,
        role=None, config={}, directory=directory, pid=0,
    )  # fmt: skip
    run: Any = open_run(ticket, WandbArgs())
    run.define({"trainer/a": "trainer/step", "trainer/b": "trainer/step"})
    before = calls["@launcher"].copy()
    run.definitions.touch()
    assert calls["@launcher"] - before == Counter({"trainer/step": 1})
    run.close("finished")
    assert server.bindings("r") == {"trainer/a": "trainer/step", "trainer/b": "trainer/step"}


KEYS = [
    "a",
    "a/b/c-d",
    "loss.mean",
    "with space",
    "übung/μ",
    "k" * 500,
    "ends/",
    "0",
    "a\\b",
    'quo"te',
    "per%cent#hash",
]


def test_every_key_is_bound_by_name(server: WandbServer, make_config: MakeConfig) -> None:
    rows = [dict.fromkeys([*KEYS, "star*", "sta*r"], 1.0)]
    job = job_of(make_config(courier="thread"), {"trainer": rows, "ex.plorer": rows})
    assert job.run_id is not None
    wanted = {f"{role}/{key}": f"{role}/step" for role in ("trainer", "ex.plorer") for key in KEYS}
    assert server.bindings(job.run_id).items() >= wanted.items()
    assert not any("*" in key for key in server.bindings(job.run_id))
    run = server.run(job.run_id)
    for role in ("trainer", "ex.plorer"):
        (line,) = run.rows(f"{role}/step")
        assert {f"{role}/{key}" for key in [*KEYS, "star*", "sta*r"]} <= line.keys()


# before 0.31.0 the SDK that logs a key resolves the pattern, and uploads what it resolves to
UPLOADS_PATTERNS = tuple(map(int, version("wandb").split(".")[:2])) >= (0, 31)


@pytest.mark.parametrize("policy", [Policy.REPLACE if UPLOADS_PATTERNS else Policy.MERGE])
def test_pattern_replaces_too_many_keys(
    server: WandbServer, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(definitions, "MANY", 3)
    job = job_of(make_config(courier="thread"), {"trainer": [{"a": 1, "b": 2}, {"c": 3, "d": 4, "e": 5}]})
    assert job.run_id is not None
    bound = server.bindings(job.run_id) | server.run(job.run_id).patterns()
    beyond = ["trainer/*"] if UPLOADS_PATTERNS else ["trainer/d", "trainer/e"]
    wanted = [*beyond, "trainer/a", "trainer/b", "trainer/c"]
    assert {key: bound.get(key) for key in wanted} == dict.fromkeys(wanted, "trainer/step")
    assert any("bound by the pattern trainer/*" in message for message in caplog.messages)
