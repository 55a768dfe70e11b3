"""`rolecall verify` needs no more memory for a long job than for a short one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rolecall import MonitorConfig, launch, open_monitor
from rolecall.store.acks import Acknowledgements, Position, RunReference
from rolecall.store.codec import end_of_lines
from rolecall.store.layout import Layout

pytestmark = pytest.mark.processes

GROWTH = 24
"""MB: what sqlite keeps in memory, and the files of journals that are read at once."""

VERIFY = """
import sys
from pathlib import Path
from rolecall.__main__ import main
status = main(sys.argv[1:])
peak = Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]
print(status, int(peak) / 1024)
"""


def finished_job(root: Path, rows: int) -> tuple[Path, Path]:
    """A job of two metrics that the `lines` backend holds, in a second instead of minutes; and its server."""
    config = MonitorConfig(project="long", name="job", monitor_type="local", monitor_dir=root / "job")
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        for step in range(1, rows + 1):
            monitor.log({"loss": 1 / step, "tokens": step}, step)
    layout = Layout(config.monitor_dir)
    server = root / "server"
    server.mkdir()
    with (layout.journal("trainer") / "1.jsonl").open() as journal, (server / "run.jsonl").open("w") as run:
        for line in map(json.loads, journal):
            if "data" in line:
                run.write(json.dumps({"step": line["step"], "time": line["time"], "metrics": line["data"]}) + "\n")
    acks = Acknowledgements(layout, "lines", "trainer")
    acks.acknowledge(Position(1, end_of_lines(layout.journal("trainer") / "1.jsonl"), rows), rows)
    acks.refer(RunReference("run", None))
    acks.release("finished")
    return config.monitor_dir, server


def peak_of(root: Path, server: Path) -> float:
    """Peak memory of the command in MB, which finds nothing."""
    options = ["verify", str(root), "--backend", "lines", "--args", f"{{path: {server}}}"]
    ran = subprocess.run([sys.executable, "-c", VERIFY, *options], capture_output=True, text=True, check=True)
    status, peak = ran.stdout.split()[-2:]
    assert (status, ran.stderr) == ("0", ""), ran.stdout
    return float(peak)


@pytest.mark.servers
def test_long_job_needs_no_more_memory(tmp_path: Path) -> None:
    short, long = (peak_of(*finished_job(tmp_path / str(rows), rows)) for rows in (20_000, 200_000))
    assert long - short < GROWTH
