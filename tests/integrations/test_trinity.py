"""Trinity-RFT's launcher with rolecall's monitor, on three trackers: the points are those of Trinity's monitors."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from difflib import unified_diff
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from framework_jobs import bag
from framework_shapes import SHAPES

pytestmark = [pytest.mark.integrations, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
JOB = ROOT / "tests/support/trinity_job.py"
PAGE = ROOT / "docs/integrations/trinity.md"
OURS = "rolecall.integrations.trinity.RolecallMonitor"
SHAPE = SHAPES["trinity"]
CHANGED = ("trinity/common/config.py", "trinity/utils/monitor.py")


def config(root: Path, monitor: Mapping[str, Any], *, name: str = "grpo-1", mode: str = "both") -> Path:
    """A file with a config of Trinity's."""
    settings = {
        "mode": mode,
        "project": "gsm8k",
        "group": "math",
        "name": name,
        "checkpoint_root_dir": str(root),
        "synchronizer": {"sync_method": "checkpoint"},
        "cluster": {"ray_address": "auto"},
        "ray_namespace": f"{name}-{mode}",
        "monitor": dict(monitor),
    }
    path = root / f"{name}-{mode}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings))
    return path


def start(*configs: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Start Trinity with each config in turn."""
    # A node that starts beside other work takes longer than Ray waits for it.
    patience = {"RAY_raylet_start_wait_time_s": "300", "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, str(JOB), *map(str, configs)]
    environ = {**os.environ, **patience, **environ}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=1000, check=False)


def counted(points: Mapping[str, list[tuple[float, float]]]) -> Counter[tuple[str, float, float]]:
    """Without what MLflow samples of the machine; as float32, which event files hold; with MLflow's names for `@`."""
    return Counter(
        (key.replace("@", "_at_"), step, pytest.importorskip("numpy").float32(value).item())
        for key, found in points.items()
        if not key.startswith("system/")
        for step, value in found
    )


def expected(*writers: str) -> Counter[tuple[str, float, float]]:
    """What some of the roles log."""
    points: dict[str, list[tuple[float, float]]] = {}
    for point in bag(SHAPE, *writers).elements():
        points.setdefault(point.key, []).append((point.at, point.value))
    return counted(points)


def test_points_are_those_of_trinitys_monitors(tracker: Any, tmp_path: Path) -> None:
    """In a run for each role, from Trinity's mode `both`."""
    root = tmp_path / "events"  # where the fixture looks for event files, in which the names are those of directories
    _migrate(tracker)
    kind, args = tracker.monitor_type, dict(tracker.monitor_args)
    args.pop("log_dir", None)
    own = config(root, {"monitor_type": kind, "monitor_args": args}, name="own")
    settings = {"monitor_type": kind, "monitor_args": args}
    ours = config(root, {"monitor_type": OURS, "monitor_args": settings}, name="ours")
    done = start(own, ours)
    assert done.returncode == 0, done.stdout + done.stderr
    for role in SHAPE.writers:
        found = [counted(tracker.read(name)) for name in _names(kind, role)]
        assert found[1] == expected(role), done.stdout + done.stderr
        assert found[0] == found[1]


def _names(kind: str, role: str) -> tuple[str, str]:
    """What names a role's run by Trinity's own monitor, and by rolecall's."""
    if kind != "tensorboard":
        return f"own_{role}", f"ours_{role}"
    return f"own/monitor/tensorboard/{role}", f"ours/monitor/backends/tensorboard/{role}"


def _migrate(tracker: Any) -> None:
    """Make MLflow's store first: Trinity's two actors would do so at the same time."""
    if tracker.monitor_type == "mlflow":
        tracker.read()


def test_modes_of_a_patched_trinity_are_one_run(tmp_path: Path) -> None:
    """With the patch of the page: `explore`, `train` and `bench`, started separately in one directory."""
    from mlflow import MlflowClient

    site = patched(tmp_path / "site")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monitor = {
        "monitor_type": "mlflow",
        "monitor_args": {"uri": uri, "username": None, "password": None},
        "shared_run": True,
    }
    configs = [config(tmp_path / "ckpt", monitor, mode=mode) for mode in ("explore", "train", "bench")]
    done = start(*configs, PYTHONPATH=os.pathsep.join((str(site), os.environ["PYTHONPATH"])))
    assert done.returncode == 0, done.stdout + done.stderr
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("gsm8k")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("grpo-1", "FINISHED")
    found = {key: client.get_metric_history(run.info.run_id, key) for key in run.data.metrics}
    assert [(m.step, m.value) for m in found.pop("benchmark/bench/math/acc_at_4")] == [(0, 0.5)]
    for role in SHAPE.writers:
        points = {
            key.removeprefix(f"{role}/"): [(float(m.step), m.value) for m in metrics]
            for key, metrics in found.items()
            if key.startswith(f"{role}/")
        }
        assert counted(points) == expected(role)
    # Trinity's whole config, as it is
    assert {value for key, value in run.data.params.items() if key.endswith("algorithm_type")} == {"ppo"}


def patched(site: Path) -> Path:
    """A copy of Trinity that is changed as the page says."""
    spec = find_spec("trinity")
    assert spec is not None
    assert spec.origin is not None
    original = Path(spec.origin).parent
    shutil.copytree(original, site / "trinity", ignore=shutil.ignore_patterns("__pycache__"))
    module = site / "trinity/utils/monitor.py"
    module.write_text(module.read_text().partition("class TensorboardMonitor")[0])
    found = re.search(r'```text title="trinity.patch"\n(.*?)```', PAGE.read_text(), re.DOTALL)
    assert found is not None
    subprocess.run(["patch", "-p1", "--silent"], input=found[1], cwd=site, text=True, check=True)
    return site


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_patch_is_as_small_as_the_page_says(tmp_path: Path) -> None:
    """And under 120 lines, for the 312 that a port to rolecall removes."""
    site = patched(tmp_path / "site")
    original = Path(str(find_spec("trinity") and find_spec("trinity").origin)).parents[1]  # type: ignore[union-attr]
    lines = [
        line for name in CHANGED for line in list(unified_diff(lines_of(original / name), lines_of(site / name)))[2:]
    ]
    added, removed = (sum(line.startswith(sign) for line in lines) for sign in "+-")
    assert f"{added} lines more and {removed} lines less" in PAGE.read_text()
    assert added < 120


def test_an_actor_that_is_killed_loses_no_row(tmp_path: Path) -> None:
    """Its run is continued by the next start, which adds what the first one did not log."""
    monitor = {"monitor_type": OURS, "monitor_args": {"monitor_type": "local", "shared_run": True}}
    path = config(tmp_path, monitor, mode="train")
    died = start(path, TRINITY_JOB_DIES="trainer")
    assert died.returncode != 0
    again = start(path)
    assert again.returncode == 0, again.stdout + again.stderr
    command = [sys.executable, "-m", "rolecall", "show", str(tmp_path / "gsm8k/math/grpo-1/monitor"), "--csv"]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    steps = Counter(re.findall(r"^trainer,.*actor/pg_loss.*$", table, re.MULTILINE))
    assert sum(steps.values()) == 1 + 4  # killed behind the second step's table


def test_bad_settings_are_named(tmp_path: Path) -> None:
    from rolecall import ConfigError

    monitor = pytest.importorskip("rolecall.integrations.trinity").RolecallMonitor
    trinity = pytest.importorskip("trinity.common.config").Config()
    trinity.monitor.cache_dir = str(tmp_path / "monitor")
    trinity.monitor.monitor_type = OURS
    trinity.monitor.monitor_args = {"uri": "sqlite:///x.db"}
    with pytest.raises(ConfigError, match=r"(?s)monitor\.monitor_args of Trinity's config: .*uri: unknown setting"):
        monitor("gsm8k", "", "grpo-1", "trainer", trinity)


def test_rolecall_mode_turns_it_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = pytest.importorskip("rolecall.integrations.trinity").RolecallMonitor
    trinity = pytest.importorskip("trinity.common.config").Config()
    trinity.monitor.cache_dir = str(tmp_path / "monitor")
    trinity.monitor.monitor_type = OURS
    trinity.monitor.monitor_args = {"monitor_type": "mlflow"}
    monkeypatch.setenv("ROLECALL_MODE", "disabled")
    opened = monitor("gsm8k", "", "grpo-1", "trainer", trinity)
    opened.log({"loss": 1.0}, step=1)
    opened.close()
    assert not (tmp_path / "monitor").exists()
