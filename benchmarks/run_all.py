"""Runs every benchmark, keeps what was measured as JSON, and draws the plots and the table of docs/performance.md.

    python benchmarks/run_all.py [--only call stream ...] [--to FOLDER] [--plots FOLDER]

`nox -s benchmarks` does so with every peer installed. It takes the better part of an hour; nothing else should run
meanwhile. A peer that is not installed is left out, and a message says so.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
LOCAL = ("--peer", "limit", "rolecall local")
BUSY = (*LOCAL, "rolecall, busy courier")
BENCHMARKS: Mapping[str, Sequence[str]] = {
    "call": ("log_call.py",),
    "sizes": ("log_call.py", *BUSY, "--floats", "1", "10", "100"),
    "scalars": ("log_call.py", *LOCAL, "--floats", "10", "--scalars", "float", "numpy", "torch"),
    "threads": ("log_call.py", *LOCAL, "--floats", "10", "--threads", "1", "8"),
    "images": ("log_image.py",),
    "encoders": ("alternatives.py",),
    "training": ("training_loop.py", "--work", "matrices"),
    "network": ("training_loop.py", "--work", "network", "--step", "1"),
    "stream": ("stream.py",),
    "backlog": ("stream.py", "--backlog"),
    "scale": ("scale.py",),
    "weight": ("weight.py",),
    "start": ("start.py",),
    "agent": ("node_agent.py",),
    "axes": ("wandb_axes.py",),
    "refused": ("wandb_refused.py",),
}


def main() -> int:
    """Run them in turn. If one fails, the others still run, and the exit status says so."""
    args = _options()
    args.to.mkdir(parents=True, exist_ok=True)
    failed = [name for name in args.only if not _run(name, args.to)]
    plots = ("--results", str(args.to), "--plots", str(args.plots))
    subprocess.run([sys.executable, str(HERE / "plots.py"), *plots], check=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return len(failed)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=list(BENCHMARKS))
    parser.add_argument("--to", type=Path, default=HERE / "results")
    parser.add_argument("--plots", type=Path, default=HERE.parent / "docs" / "plots")
    return parser.parse_args()


def _run(name: str, folder: Path) -> bool:
    script, *options = BENCHMARKS[name]
    print(f"\n=== {name}: python benchmarks/{script} {' '.join(options)}", flush=True)
    command = [sys.executable, str(HERE / script), *options, "--json", str(folder / f"{name}.json")]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
