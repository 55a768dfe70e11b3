"""What rolecall weighs beside peers: its import, the memory of a process that logs with it, its files on the disk.

    python benchmarks/weight.py [--peer "rolecall local" "wandb offline" ...] [--runs 5] [--json FILE]

Each is a process of its own, and all take turns. Import time is that of the first import, in an
interpreter that has started. Memory is the resident set after 1,000 rows of 10 floats, of the process and (where
there are) of its children, counted in proportion to what they share (PSS, Linux). Distributions are those that an
installation adds, without extras; their size is that of the installed files.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import time
from collections.abc import Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from report import run_worker, show_and_keep
from usage import descendants

# What `import rolecall` gives is imported when it is asked for; this is where `init` comes from.
INIT = "rolecall.job.single.start"
IMPORTED: Mapping[str, tuple[str, str]] = {
    "rolecall local": (INIT, "rolecall"),
    "rolecall, tensorboard": (INIT, "rolecall-tensorboard"),
    "rolecall, mlflow": (INIT, "rolecall-mlflow"),
    "rolecall, wandb": (INIT, "rolecall-wandb"),
    "wandb offline": ("wandb", "wandb"),
    "mlflow sqlite": ("mlflow", "mlflow"),
    "tensorboardX": ("tensorboardX", "tensorboardX"),
    "torch writer": ("torch.utils.tensorboard", "tensorboard"),
    "trackio": ("trackio", "trackio"),
    "swanlab offline": ("swanlab", "swanlab"),
}
"""A peer, what a process that logs with it imports, and what is installed for it."""


def main() -> None:
    """Weigh each peer, and print them."""
    args = _options()
    if args.worker:
        print(json.dumps(_worker(args.peer[0])))
        return
    found: dict[str, list[Any]] = {peer: [] for peer in args.peer}
    for _ in range(args.runs):
        for peer in args.peer:
            found[peer].append(run_worker(__file__, ["--worker", "--peer", peer], peer))
    show_and_keep([_row(peer, runs) for peer, runs in found.items() if all(runs)], args.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", nargs="+", choices=IMPORTED, default=list(IMPORTED))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _row(peer: str, runs: list[Mapping[str, float]]) -> Mapping[str, Any]:
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    needed = _needed(IMPORTED[peer][1])
    return {
        "peer": peer,
        **{name: round(value, 1) for name, value in medians.items()},
        "distributions": len(needed),
        "installed, MB": round(sum(map(_size, needed.values())) / 1e6, 1),
    }


def _worker(peer: str) -> Mapping[str, float]:
    began = time.perf_counter()
    importlib.import_module(IMPORTED[peer][0])
    imported = time.perf_counter() - began

    from peers import opened, plain_row  # which imports rolecall: not before the clock has stopped

    with opened(peer) as log:
        for step in range(1, 1001):
            log(plain_row(10), step)
        own, others = memory_of(os.getpid()), sum(map(memory_of, descendants(os.getpid())))
    return {"import, ms": imported * 1e3, "process, MB": own / 1e6, "its children, MB": others / 1e6}


def memory_of(pid: int) -> float:
    """Bytes of a process; a page that n processes share counts as its n-th part."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    return sum(float(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _needed(name: str) -> dict[str, Distribution]:
    """A distribution and all that it needs and is installed."""
    found: dict[str, Distribution] = {}
    waiting = [name]
    while waiting:
        one = waiting.pop()
        try:
            found[one] = distribution(one)
        except PackageNotFoundError:
            continue
        asked = map(Requirement, found[one].requires or [])
        needed = (need.name for need in asked if need.marker is None or need.marker.evaluate({"extra": ""}))
        waiting += [need for need in needed if need not in found and need.lower() not in found]
    return {one.metadata["Name"].lower(): one for one in found.values()}


def _size(one: Distribution) -> int:
    """Bytes of its installed files; next to none if it is used from where it stands."""
    files = [Path(str(file.locate())) for file in one.files or []]
    return sum(file.stat().st_size for file in files if file.is_file())


if __name__ == "__main__":
    main()
