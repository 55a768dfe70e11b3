"""Measures a node and the processes of the roles on it: CPU, memory, disk, network and GPUs.

psutil is imported when a `Sampler` is made, which is never in the process of a role.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from rolecall.delivery.node.gpus import MB, Gpus, find_gpus

logger = logging.getLogger("rolecall.agent")

Sample = dict[str, float]
Found = Iterator[tuple[str, float]]
_LOOPBACK: Final = "lo"


class Sampler:
    """Measures again and again. Rates and shares are over the time since the sample before.

    Make it in the thread that takes the samples, as psutil keeps the times of the CPU for each thread by itself.

    Args:
        directory: on the disk whose use is measured.
        gpus: the GPUs; found by default.
    """

    def __init__(self, directory: Path, gpus: Gpus | None = None) -> None:
        import psutil

        self._psutil: Any = psutil
        self._directory = directory
        self._gpus = gpus or find_gpus()
        self._processes: dict[int, Any] = {}
        self._counts: dict[str, float] = {}
        self._counted = time.monotonic()
        self._failed: set[str] = set()
        # These compare with the call before; the first one has nothing to compare with.
        psutil.cpu_percent()
        self._attempt("disk and network", self._rates)

    def sample(self, pids: Mapping[str, int]) -> Sample:
        """What the node and the processes do now.

        Leaves out what cannot be measured, here or now: a process that has just ended, a disk that counts nothing.

        Args:
            pids: the processes, by the part of the key that names each: `process/explorer/0`.
        """
        found: Sample = {}
        probes: dict[str, Callable[[], Found]] = {
            "CPU": self._cpu,
            "memory": self._memory,
            "disk": self._disk,
            "disk and network": self._rates,
            "processes": lambda: self._of_processes(pids),
        }
        if self._gpus is not None:
            probes["GPUs"] = self._gpus.sample
        for what, probe in probes.items():
            found |= self._attempt(what, probe)
        return {key: round(float(value), 3) for key, value in found.items()}

    def _attempt(self, what: str, probe: Callable[[], Found]) -> Sample:
        found: Sample = {}
        try:
            found.update(probe())
        except Exception as error:  # noqa: BLE001 - one probe that fails must not cost the others
            if what not in self._failed:
                logger.warning("%s cannot be measured: %s: %s", what, type(error).__name__, error)
            self._failed.add(what)
        return found

    def _cpu(self) -> Found:
        yield "cpu/percent", self._psutil.cpu_percent()

    def _memory(self) -> Found:
        memory = self._psutil.virtual_memory()
        yield "memory/percent", memory.percent
        yield "memory/used_mb", (memory.total - memory.available) / MB

    def _disk(self) -> Found:
        disk = self._psutil.disk_usage(str(self._directory))
        yield "disk/percent", disk.percent
        yield "disk/free_mb", disk.free / MB

    def _rates(self) -> Found:
        """MB a second, of what the kernel counts since the boot."""
        now, before = time.monotonic(), self._counts
        seconds = now - self._counted
        self._counts, self._counted = dict(self._count()), now
        for key, count in self._counts.items():
            # It is less than before if an interface or a disk is gone.
            if key in before and seconds > 0 and count >= before[key]:
                yield f"{key}_mb_per_s", (count - before[key]) / MB / seconds

    def _count(self) -> Found:
        # There are no disks in /proc/diskstats of some containers.
        if (disks := self._psutil.disk_io_counters()) is not None:
            yield "disk/read", disks.read_bytes
            yield "disk/written", disks.write_bytes
        nics = self._psutil.net_io_counters(pernic=True)
        others = [each for name, each in nics.items() if name != _LOOPBACK]
        yield "network/received", sum(each.bytes_recv for each in others)
        yield "network/sent", sum(each.bytes_sent for each in others)

    def _of_processes(self, pids: Mapping[str, int]) -> Found:
        gpu_memory = self._gpus.memory_of_processes() if self._gpus is not None else {}
        self._processes = {pid: each for pid, each in self._processes.items() if pid in pids.values()}
        for name, pid in pids.items():
            try:
                yield from self._of_process(name, pid)
            except self._psutil.Error:  # it has ended, or is another user's
                continue
            if pid in gpu_memory:
                yield f"{name}/gpu_memory_mb", gpu_memory[pid]

    def _of_process(self, name: str, pid: int) -> Found:
        known = self._processes.get(pid)
        # By the time at which it started, too: the number may be another process's by now.
        if known is None or not known.is_running():
            known = self._processes[pid] = self._psutil.Process(pid)
            known.cpu_percent()
        else:
            yield f"{name}/cpu_percent", known.cpu_percent()
        with known.oneshot():
            yield f"{name}/memory_mb", known.memory_info().rss / MB
            yield f"{name}/threads", known.num_threads()
