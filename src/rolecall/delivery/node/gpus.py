"""Measures NVIDIA's GPUs by NVML, the library that comes with their driver."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

logger = logging.getLogger("rolecall.agent")

Measure = Callable[[Any], Iterator[tuple[str, float]]]
MB: Final = 1e6
"""Bytes of a megabyte, as MLflow counts them."""


def find_gpus() -> "Gpus | None":
    """The GPUs of this node; `None` if it has none, or `nvidia-ml-py` is not installed."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return Gpus(pynvml)
    except Exception as error:  # noqa: BLE001 - of whatever kind: most nodes have neither a GPU nor its driver
        logger.info("no GPU is measured: %s", error)
        return None


class Gpus:
    """The GPUs of a node.

    Args:
        nvml: the module `pynvml`, initialized.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self._handles = [nvml.nvmlDeviceGetHandleByIndex(at) for at in range(nvml.nvmlDeviceGetCount())]

    def sample(self) -> Iterator[tuple[str, float]]:
        """What each GPU does now. Leaves out what a GPU does not tell: not every model measures its power."""
        for at, handle in enumerate(self._handles):
            for measure in (self._use, self._memory, self._power, self._temperature):
                with suppress(self._nvml.NVMLError):
                    yield from ((f"gpu/{at}/{name}", value) for name, value in measure(handle))

    def memory_of_processes(self) -> Mapping[int, float]:
        """MB that each process has on all GPUs together.

        In a container, NVML may name processes as the host numbers them; they are then none of ours.
        """
        found: Counter[int] = Counter()
        for handle in self._handles:
            with suppress(self._nvml.NVMLError):
                for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(handle):
                    # `None` where the driver does not tell: under Windows' WDDM, and in some containers.
                    found[process.pid] += process.usedGpuMemory or 0
        return {pid: size / MB for pid, size in found.items()}

    def _use(self, handle: Any) -> Iterator[tuple[str, float]]:
        yield "utilization_percent", self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu

    def _memory(self, handle: Any) -> Iterator[tuple[str, float]]:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        yield "memory_percent", 100 * memory.used / memory.total
        yield "memory_used_mb", memory.used / MB

    def _power(self, handle: Any) -> Iterator[tuple[str, float]]:
        yield "power_watts", self._nvml.nvmlDeviceGetPowerUsage(handle) / 1000

    def _temperature(self, handle: Any) -> Iterator[tuple[str, float]]:
        yield "temperature_celsius", self._nvml.nvmlDeviceGetTemperature(handle, self._nvml.NVML_TEMPERATURE_GPU)
