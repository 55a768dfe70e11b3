"""Logs system metrics of a role's node: CPU, memory, disk, network, GPUs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rolecall_mlflow.faults import describe
from rolecall_mlflow.keys import valid_key

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["SystemMetrics", "probes_are_missing"]

_PROBES = (("cpu", "CPU"), ("disk", "Disk"), ("network", "Network"))
_GPU_PROBES = (("gpu", "GPU"), ("rocm", "ROCM"))
_logger = logging.getLogger(__name__)


def probes_are_missing() -> str | None:
    """What to install for system metrics; `None` if nothing is missing."""
    if find_spec("psutil"):
        return None
    return "system_metrics: true needs psutil; run: pip install 'psutil>=5.9' 'nvidia-ml-py>=12'"


class SystemMetrics:
    """Logs the metrics of this node under `system/{writer}/` until it is stopped.

    Samples are not in the journal: a sample that MLflow does not accept is lost.
    """

    # MLflow's own `SystemMetricsMonitor` stops at the first failed request and uses the number of the sample as the
    # step (3.17.2). So its probes are read here, by a thread that continues after a failure, and the step is the
    # number of seconds since the run began: the same axis for all roles.

    def __init__(self, client: MlflowClient, run_id: str, writer: str, began: float, interval: float) -> None:
        self._client = client
        self._run_id = run_id
        self._prefix = f"system/{writer}/"
        self._began = began
        self._interval = interval
        self._away = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rolecall-mlflow-system", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; wait at most 5 s for a request in progress."""
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        probes = list(_probes())
        while not self._stop.wait(self._interval):
            try:
                self._log(_sample(probes))
            except Exception as error:  # noqa: BLE001 - a lost sample is worth a warning and no more
                self._warn(error)
            else:
                self._away = False

    def _log(self, sample: dict[str, float]) -> None:
        from mlflow.entities import Metric

        now = time.time()
        step = max(0, int(now - self._began))
        metrics = [
            Metric(valid_key(self._prefix + key), value, int(now * 1000), step)
            for key, value in sample.items()
        ]
        self._client.log_batch(self._run_id, metrics=metrics, synchronous=True)

    def _warn(self, error: Exception) -> None:
        if not self._away:
            _logger.warning("system metrics are lost at the moment: %s", describe(error))
        self._away = True


def _probes() -> Iterator[Any]:
    """MLflow's probes: of each node, and of GPUs if there are any and their library is installed."""
    for module, name in _PROBES:
        yield _probe(module, name)
    for module, name in _GPU_PROBES:
        with suppress(Exception):  # a probe raises where its GPU or library is missing
            yield _probe(module, name)


def _probe(module: str, name: str) -> Any:
    return getattr(import_module(f"mlflow.system_metrics.metrics.{module}_monitor"), f"{name}Monitor")()


def _sample(probes: list[Any]) -> dict[str, float]:
    sample: dict[str, float] = {}
    for probe in probes:
        probe.collect_metrics()
        sample |= probe.aggregate_metrics()
        probe.clear_metrics()
    return sample
