"""What is measured of real processes and of this machine; and of GPUs, as NVML tells it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pynvml
import pytest

from rolecall.delivery.node.gpus import Gpus
from rolecall.delivery.node.sampler import Sampler

NODE = {
    "cpu/percent",
    "memory/percent",
    "memory/used_mb",
    "disk/percent",
    "disk/free_mb",
    "network/received_mb_per_s",
    "network/sent_mb_per_s",
}
DISKS = {"disk/read_mb_per_s", "disk/written_mb_per_s"}

BUSY = """
import threading
held = bytearray(200_000_000)
threading.Thread(target=threading.Event().wait, daemon=True).start()
print("ready", flush=True)
while True:
    pass
"""


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[str]]:
    """A process of two threads that computes, and holds 200 MB."""
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def compute(seconds: float) -> None:
    """Use the CPU for so many seconds of its time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_node_is_measured(tmp_path: Path) -> None:
    sampler = Sampler(tmp_path)
    compute(0.1)
    found = sampler.sample({})
    assert found.keys() - DISKS == NODE
    assert 0 < found["cpu/percent"] <= 100
    assert 0 < found["memory/used_mb"] * 1e6 < psutil.virtual_memory().total
    assert found["disk/free_mb"] == pytest.approx(psutil.disk_usage(str(tmp_path)).free / 1e6, rel=0.1)


@pytest.mark.skipif(psutil.disk_io_counters() is None, reason="no disk is counted in this container")
def test_disks_are_counted(tmp_path: Path) -> None:
    sampler = Sampler(tmp_path)
    compute(0.01)
    assert sampler.sample({}).keys() >= DISKS


def test_process_is_measured(tmp_path: Path, busy: subprocess.Popen[str]) -> None:
    sampler = Sampler(tmp_path)
    first = sampler.sample({"process/trainer": busy.pid})
    assert "process/trainer/cpu_percent" not in first  # there is nothing to compare with
    compute(0.1)
    found = sampler.sample({"process/trainer": busy.pid})
    assert found["process/trainer/threads"] == 2
    assert 200 < found["process/trainer/memory_mb"] < 300
    assert found["process/trainer/cpu_percent"] > 0


def test_ended_process_is_left_out(tmp_path: Path, busy: subprocess.Popen[str]) -> None:
    sampler = Sampler(tmp_path)
    pids = {"process/gone": busy.pid, "process/here": os.getpid()}
    sampler.sample(pids)
    busy.kill()
    busy.wait()
    found = sampler.sample(pids)
    assert {key for key in found if key.startswith("process/gone")} == set()
    assert found["process/here/memory_mb"] > 0
    assert found.keys() - DISKS >= NODE


def test_one_failure_costs_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sampler = Sampler(tmp_path / "nowhere")
    found = [sampler.sample({}) for _ in range(2)][-1]
    assert NODE - found.keys() == {"disk/percent", "disk/free_mb"}
    (warning,) = caplog.records  # once
    assert "disk cannot be measured: FileNotFoundError" in warning.message


# ------------------------------------------------------------------- GPUs


class StandIn:
    """Two GPUs, in place of the driver's library. The second one tells neither its power nor its processes."""

    NVMLError = pynvml.NVMLError
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - NVML's names, here and below
        return 2

    def nvmlDeviceGetHandleByIndex(self, at: int) -> int:  # noqa: N802
        return at

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(gpu=(97, 3)[handle], memory=50)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:  # noqa: N802
        return SimpleNamespace(total=80_000_000_000, used=(60_000_000_000, 0)[handle])

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802
        if handle:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return 412_500

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:  # noqa: N802
        return (61, 30)[handle]

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        if handle:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
        mine = SimpleNamespace(pid=os.getpid(), usedGpuMemory=59_000_000_000)
        return [mine, SimpleNamespace(pid=1, usedGpuMemory=None)]


def test_gpus_are_measured(tmp_path: Path) -> None:
    found = Sampler(tmp_path, Gpus(StandIn())).sample({"process/trainer": os.getpid()})
    assert {key: value for key, value in found.items() if "gpu" in key} == {
        "gpu/0/utilization_percent": 97,
        "gpu/0/memory_percent": 75,
        "gpu/0/memory_used_mb": 60_000,
        "gpu/0/power_watts": 412.5,
        "gpu/0/temperature_celsius": 61,
        "gpu/1/utilization_percent": 3,
        "gpu/1/memory_percent": 0,
        "gpu/1/memory_used_mb": 0,
        "gpu/1/temperature_celsius": 30,
        "process/trainer/gpu_memory_mb": 59_000,
    }


def test_stand_in_has_names_of_nvml() -> None:
    names = [name for name in vars(StandIn) if name.startswith("nvml")]
    assert names
    assert [name for name in names if not callable(getattr(pynvml, name, None))] == []
