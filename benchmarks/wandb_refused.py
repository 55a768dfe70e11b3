"""How much memory a courier and wandb's SDK take while the server refuses every row, and more wait than may go.

    python benchmarks/wandb_refused.py [--rows 500000] [--floats 10] [--seconds 75] [--json FILE]

`rolecall deliver` sends a job's rows to the emulator of wandb's server, which refuses each transmission with 503. The
SDK tries on and keeps what it was handed; a courier hands over no more than a window of the journal
(`rolecall.timings.MAX_QUEUE_BYTES`) that nobody confirms. Memory is the largest resident set that was seen.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from report import show_and_keep
from stream import WRITER, logged
from usage import descendants


def main() -> None:
    """Log, have it delivered, and look at who holds how much."""
    # `stream` imports `servers`, which makes it importable
    from wandb_emulator import Fault, WandbServer, environment

    args = _options()
    with WandbServer() as server, tempfile.TemporaryDirectory(prefix="rolecall-bench-") as folder:
        server.faults.add(Fault("stream", answer=503))
        logged(Path(folder), args.rows, args.floats)
        os.environ.update(environment(server, Path(folder)))
        show_and_keep([_measured(Path(folder), args)], args.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--floats", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=75.0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _measured(directory: Path, args: argparse.Namespace) -> Mapping[str, Any]:
    import wandb

    from rolecall.timings import MAX_QUEUE_BYTES

    size = sum(path.stat().st_size for path in directory.glob(f"journal/{WRITER}/*.jsonl"))
    courier, service = _peaks(directory, args.seconds)
    return {
        "wandb": wandb.__version__,
        "rows": args.rows,
        "floats": args.floats,
        "rows in a window": min(args.rows, args.rows * MAX_QUEUE_BYTES // size),
        "courier, MB": courier,
        "SDK, MB": service,
    }


def _peaks(directory: Path, seconds: float) -> tuple[int, int]:
    """Of the process that delivers, and of the largest of the SDK's."""
    command = [sys.executable, "-m", "rolecall", "deliver", str(directory), "--to", "wandb"]
    most: dict[int, int] = {}
    end = float("inf")
    with subprocess.Popen([*command, "--timeout", str(seconds + 300)], stderr=subprocess.DEVNULL) as deliver:
        while deliver.poll() is None and time.monotonic() < end:
            for pid in (deliver.pid, *descendants(deliver.pid)):
                most[pid] = max(most.get(pid, 0), _resident(pid))
            if len(most) > 1:  # from when the SDK has started, which takes a busy machine seconds
                end = min(end, time.monotonic() + seconds)
            time.sleep(0.5)
        is_at_work = deliver.poll() is None
        deliver.terminate()
    if not is_at_work:
        raise AssertionError("it was to deliver, and to get nowhere")
    return most.pop(deliver.pid), max(most.values(), default=0)


def _resident(pid: int) -> int:
    """Megabytes; none if it has ended meanwhile."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    found = [int(line.split()[1]) for line in lines if line.startswith("VmRSS:")]
    return found[0] // 1024 if found else 0


if __name__ == "__main__":
    main()
