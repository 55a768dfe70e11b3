"""An MLflow server that is down for the whole of a job of many rows: memory, the time of `close`, and the delivery.

    python tests/support/long_outage.py [--rows 1000000] [--json FILE]

Memory is the peak of the resident set (VmHWM), of the role and of its courier, beside those of a job that logs one row.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fault_places import free_port, make_store, serving

from rolecall import MonitorConfig, launch

CLOSING = 30.0
GROWTH = 30.0
"""MB by which the peak may be above an idle one's."""

ROLE = """
import json, os, sys, time
from pathlib import Path
from rolecall import MonitorConfig, open_monitor

def peak(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024

monitor = open_monitor(MonitorConfig.from_env(), "trainer")
children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
began = time.monotonic()
for step in range(1, int(sys.argv[1]) + 1):
    monitor.log({"loss": 1 / step, "tokens": step}, step=step)
logged = time.monotonic() - began
time.sleep(10)  # for the courier to try, and be refused, some times more
peaks = {"role": peak(os.getpid()), "courier": peak(children[0])}
began = time.monotonic()
monitor.close(timeout=float(sys.argv[2]))
print(json.dumps({**peaks, "logged": logged, "closed": time.monotonic() - began}))
"""


def main() -> int:
    """Run both jobs, and deliver the long one."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rolecall-outage-") as name:
        folder = Path(name)
        port = free_port()
        os.environ.update(MLFLOW_HTTP_REQUEST_MAX_RETRIES="1", MLFLOW_HTTP_REQUEST_TIMEOUT="30")
        idle = _job(folder / "idle", port, 1)
        long = _job(folder / "long", port, args.rows)
        make_store(folder / "server.db")
        with serving(folder, folder / "server.db", port):
            delivered = _deliver(folder / "long")
        held = _held(folder / "server.db")
    found = {
        "rows": args.rows,
        "grown": {who: round(long[who] - idle[who], 1) for who in ("role", "courier")},
        "peak": {who: round(long[who], 1) for who in ("role", "courier")},
        "logging": round(long["logged"], 1),
        "close": round(long["closed"], 1),
        "deliver": delivered,
        "points held, of each metric": held,
    }
    print(json.dumps(found, indent=1))
    if args.json:
        args.json.write_text(json.dumps(found))
    whole = held == {"trainer/loss": args.rows, "trainer/tokens": args.rows}
    small = max(found["grown"].values()) < GROWTH
    return 0 if whole and small and long["closed"] <= CLOSING + 5.0 else 1


def _job(directory: Path, port: int, rows: int) -> dict[str, float]:
    config = MonitorConfig(
        project="faults",
        name=directory.name,
        monitor_type="mlflow",
        monitor_args={"uri": f"http://127.0.0.1:{port}"},
        shared_run=True,
        monitor_dir=directory,
    )
    with launch(config) as job:
        command = [sys.executable, "-c", ROLE, str(rows), str(CLOSING)]
        env = {**os.environ, **job.config.to_env()}
        role = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
        job.close(timeout=1.0)
    _wait_for_couriers(directory)
    measured: dict[str, float] = json.loads(role.stdout)
    return measured


def _wait_for_couriers(directory: Path) -> None:
    """They go on trying for 120 s after their roles; then the rows are for `rolecall deliver`."""
    deadline = time.monotonic() + 300
    while list(_couriers(directory)) and time.monotonic() < deadline:
        time.sleep(1.0)


def _couriers(directory: Path) -> list[int]:
    logs = {str(path) for path in (directory / "courier").glob("*.log")}
    return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _writes(pid, logs)]


def _writes(pid: int, logs: set[str]) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/fd/2") in logs
    except OSError:
        return False


def _deliver(directory: Path) -> Mapping[str, Any]:
    began = time.monotonic()
    command = [sys.executable, "-m", "rolecall", "deliver", str(directory), "--timeout", "3600"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    return {"status": done.returncode, "seconds": round(seconds, 1), "said": done.stdout.strip()}


def _held(store: Path) -> dict[str, int]:
    with sqlite3.connect(store) as database:
        return dict(database.execute("select key, count(distinct step) from metrics group by key"))


if __name__ == "__main__":
    sys.exit(main())
