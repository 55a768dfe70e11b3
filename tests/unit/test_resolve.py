"""What was asked for, what will happen, and the reasons where they differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_site import Computer, MadeSite

from rolecall import BackendError, MonitorConfig, Plan, Registry, resolve
from rolecall.__main__ import main
from rolecall.config.plan import BackendPlan, Downgrade
from rolecall.config.spec import HandOver

ENCRYPTED_ONLY = """
@hookimpl
def supports_shared_run(args):
    return SharedRunSupport(supported=args.url.startswith("https"), reason="url is not https; give one that is")
"""
NEVER = "@hookimpl\ndef supports_shared_run(): return SharedRunSupport(supported=False, reason='files')"
RELAY = "With shared_run: relay, one process writes one run of all roles"
ASKED = "@hookimpl\ndef supports_shared_run(): raise AssertionError('nobody asked for a shared run')"


def plan(monitor_type: str | list[str], **settings: Any) -> Plan:
    return resolve(MonitorConfig.load({"project": "p", "name": "n", "monitor_type": monitor_type, **settings}))


def test_each_role_has_run_by_default() -> None:
    assert plan("local") == Plan(backends=(BackendPlan(backend="local", shared=False, courier="none"),))


def test_shared_run_that_can_be_had(site: MadeSite) -> None:
    site.backend(supports_shared_run=ENCRYPTED_ONLY)
    found = plan("acme", shared_run=True, monitor_args={"url": "https://tracker"})
    assert found == Plan(backends=(BackendPlan(backend="acme", shared=True, courier="process"),))
    assert found.shared("acme")
    assert not found.shared("other")


def test_shared_run_that_cannot_be_had(site: MadeSite) -> None:
    site.backend(supports_shared_run=ENCRYPTED_ONLY)
    found = plan("acme", shared_run=True)
    assert found.backends == (BackendPlan(backend="acme", shared=False, courier="process"),)
    assert found.downgrades == (
        Downgrade(backend="acme", setting="shared_run", reason=f"url is not https; give one that is. {RELAY}"),
    )
    assert str(found.downgrades[0]) == f"acme: shared_run: url is not https; give one that is. {RELAY}"


def test_each_backend_is_asked_about_itself(site: MadeSite) -> None:
    site.backend("acme", supports_shared_run=NEVER)
    found = plan(["local", "acme", "console"], shared_run=True)
    assert [(one.backend, one.shared) for one in found.backends] == [
        ("local", True),
        ("acme", False),
        ("console", True),
    ]
    assert [one.backend for one in found.downgrades] == ["acme"]


def test_no_backend_is_asked_without_need(site: MadeSite) -> None:
    site.backend(supports_shared_run=ASKED)
    assert plan("acme", shared_run=False).downgrades == ()


def test_where_couriers_stand(site: MadeSite) -> None:
    site.backend("acme")
    found = plan(["local", "acme", "console"])
    assert [one.backend for one in found.with_courier("none")] == ["local"]
    assert [one.backend for one in found.with_courier("process")] == ["acme"]
    assert [one.backend for one in found.with_courier("thread")] == ["console"]
    assert found.downgrades == (), "console goes through the role's own logging: that is no lesser service"
    assert [one.backend for one in plan("acme", courier="thread").with_courier("thread")] == ["acme"]


def test_backend_from_code_uses_a_thread(site: MadeSite) -> None:
    site.backend("acme")
    registry = Registry().register("mine", Registry().load("acme").manager.get_plugin("acme"))
    data = {"project": "p", "name": "n", "monitor_type": "mine"}
    found = resolve(MonitorConfig.load(data, registry=registry))
    assert found.backends == (BackendPlan(backend="mine", shared=False, courier="thread"),)
    assert [(one.backend, one.setting) for one in found.downgrades] == [("mine", "courier")]
    assert "registered in code" in found.downgrades[0].reason
    silent = resolve(MonitorConfig.load({**data, "courier": "thread"}, registry=registry))
    assert silent.downgrades == ()


def test_backend_says_where_its_couriers_work(site: MadeSite) -> None:
    site.backend(couriers='COURIERS = ("process",)')
    found = plan("acme", courier="thread")
    assert found.backends == (BackendPlan(backend="acme", shared=False, courier="process"),)
    assert [str(one) for one in found.downgrades] == [
        "acme: courier: its SDK holds one run in each process, so a process beside each role delivers its rows instead"
    ]
    assert plan("acme", courier="process").downgrades == ()


def test_system_is_not_measured_by_default() -> None:
    assert not plan("local").system_metrics


def test_system_is_measured(site: MadeSite) -> None:
    site.backend("acme")
    site.backend("other", measures="SYSTEM_METRICS = True")
    found = plan(["acme", "other"], system_metrics=True)
    assert found.system_metrics
    assert found.downgrades == ()
    assert [(one.backend, one.measures) for one in found.backends] == [("acme", False), ("other", True)]


def test_check_says_what_measures(site: MadeSite, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    site.backend("acme", measures="SYSTEM_METRICS = True")
    config = tmp_path / "config.yaml"
    config.write_text("project: p\nname: n\nmonitor_type: [local, acme]\nsystem_metrics: true\n")
    assert main(["check", str(config)]) == 0
    said = capfdbinary.readouterr().out.decode().splitlines()
    assert "  system metrics: a process on each node logs them every 15 s (acme: its SDK does)" in said


@pytest.mark.parametrize(("shared_run", "measures"), [("relay", False), (True, True), (False, True)])
def test_sdk_of_a_relay_measures_no_role(site: MadeSite, *, shared_run: object, measures: bool) -> None:
    site.backend("acme", measures="SYSTEM_METRICS = True")
    (found,) = plan("acme", system_metrics=True, shared_run=shared_run).backends
    assert found.measures is measures


def test_nothing_to_measure_with(computer: Computer) -> None:
    (computer.home / "config.yaml").write_text("project: p\nname: n\nsystem_metrics: true\n")
    ran = computer.rolecall("check", "config.yaml")
    assert ran.status == 0
    (downgraded,) = (line for line in ran.out.splitlines() if "downgraded" in line)
    assert downgraded == (
        "  downgraded: system_metrics: psutil is not installed, so the system is not measured; run: "
        "pip install 'psutil>=5.9' 'nvidia-ml-py>=12'"
    )
    assert "every 15 s" not in ran.out


@pytest.mark.parametrize("said", ['"yes"', "1"])
def test_backend_that_measures_somehow(site: MadeSite, said: str) -> None:
    site.backend(measures=f"SYSTEM_METRICS = {said}")
    with pytest.raises(BackendError, match="must be True or False"):
        plan("acme", system_metrics=True)


def test_none_is_nothing_at_all() -> None:
    assert plan("none") == Plan()
    assert plan("none").disabled
    assert not plan("local").disabled


@pytest.mark.parametrize(("value", "disabled"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_the_environment_turns_it_off(monkeypatch: pytest.MonkeyPatch, value: str, disabled: bool) -> None:
    monkeypatch.setenv("ROLECALL_DISABLED", value)
    assert plan(["local", "console"], shared_run=True).disabled is disabled


@pytest.mark.parametrize("answer", ["None", "True", "'yes'"])
def test_an_answer_that_is_none(site: MadeSite, answer: str) -> None:
    site.backend(supports_shared_run=f"@hookimpl\ndef supports_shared_run(): return {answer}")
    with pytest.raises(BackendError, match=r"must return a rolecall\.SharedRunSupport"):
        plan("acme", shared_run=True)


def test_a_plan_survives_the_environment(site: MadeSite) -> None:
    site.backend(supports_shared_run=NEVER)
    config = MonitorConfig(project="p", name="n", monitor_type=("acme", "local"), shared_run=True)
    settled = config.handed(HandOver(run_id="r", nonce="n", plan=resolve(config)))
    handed = MonitorConfig.from_env(settled.to_env()).hand_over
    assert handed is not None
    assert handed.plan == resolve(config)


def test_the_hook_gets_the_typed_arguments(site: MadeSite) -> None:
    site.backend(
        supports_shared_run="""
@hookimpl
def supports_shared_run(args):
    return SharedRunSupport(supported=False, reason=f"{type(args) is Args} {args.retries + 1}")
"""
    )
    found = plan("acme", shared_run=True, monitor_args={"retries": "4"})
    assert [one.reason for one in found.downgrades] == [f"True 5. {RELAY}"]


def test_relay_is_one_run_on_every_backend(site: MadeSite) -> None:
    """No backend is asked, and none is downgraded."""
    site.backend(supports_shared_run=ASKED)
    for name in ("acme", "console", "local"):
        found = plan(name, shared_run="relay")
        (chosen,) = found.backends
        assert found.downgrades == ()
        assert (chosen.shared, chosen.relayed, chosen.has_one_run) == (False, True, True)
        assert found.has_one_run(name)
        assert not found.of(launcher=False)


def test_no_courier_is_left_to_others(site: MadeSite) -> None:
    site.backend()
    (chosen,) = plan("acme", courier="none").backends
    assert (chosen.courier, chosen.relayed) == ("none", False)
