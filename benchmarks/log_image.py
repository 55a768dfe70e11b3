"""How long `log` of an image takes, beside a bare write of its bytes and beside what people use today.

    python benchmarks/log_image.py [--peer rolecall "wandb offline" ...] [--size 224] [--calls 500] [--rounds 5]
                                   [--json FILE]

An image is an array of `uint8`, of so many pixels squared and 3 channels, whose noise no format compresses. The bare
write opens a new file, writes the bytes that rolecall stores of the image, and closes it, in the directory where the
peer stores its images: no logger whose images survive the death of the process can do with less. Each peer runs in a
process of its own, where calls and bare writes take turns, as the state of a disk changes by the second; and all peers
take turns for some rounds.

Times are in µs, each the median of the rounds. `x bare` is the peer's p50 by that of the bare write in the same
process, the median of the rounds, and `rounds` the least and the most. A peer that is not installed is left out, and
reported.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from report import run_worker, show_and_keep, table

OURS = "rolecall"
SLOW = 50
"""Calls of a peer that takes milliseconds for each."""
MOST = 3.0
"""What rolecall promises, by the bare write."""
Log = Callable[[Any, int], object]


@dataclass(frozen=True, slots=True)
class Measured:
    """What one process found, in µs."""

    calls: int
    p50: float
    p99: float
    bare: float


def main() -> None:
    """Measure every peer in turns, and print them."""
    args = _options()
    if args.worker:
        print(json.dumps(asdict(_worker(args.peer[0], args.size, args.calls))))
        return
    found: dict[str, list[Measured]] = {peer: [] for peer in args.peer}
    for _ in range(args.rounds):
        for peer, rounds in found.items():
            options = ["--worker", "--peer", peer, "--size", str(args.size), "--calls", str(args.calls)]
            if (measured := run_worker(__file__, options, peer)) is not None:
                rounds.append(Measured(**measured))
    show_and_keep([_row(peer, rounds) for peer, rounds in found.items() if rounds], args.json)
    if ours := found.get(OURS):
        ratio = statistics.median(_ratios(ours))
        promise = {"promised": "an image by a bare write", "bound": f"at most {MOST:g}", "measured": round(ratio, 2)}
        print(f"\n{table([{**promise, 'holds': 'yes' if ratio <= MOST else 'NO'}])}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--size", type=int, default=224, help="height and width, in pixels")
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _worker(peer: str, size: int, calls: int) -> Measured:
    import numpy as np

    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    data = f"P6\n{size} {size}\n255\n".encode() + pixels.tobytes()
    with tempfile.TemporaryDirectory(prefix="rolecall-bench-", ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        with PEERS[peer](Path(folder)) as log:
            # what is slow is known after a few calls, which warm up too
            times = sorted(_timed(log, pixels, step) for step in range(1, 11))
            count = min(calls, SLOW) if times[5] > 5e3 else calls
            place = _stored(Path(folder))
            pairs = [
                (_timed(log, pixels, step), _timed(_bare, data, place / f"bare{step}"))
                for step in range(11, 11 + count)
            ]
        os.chdir("/")
    times, bare = map(sorted, zip(*pairs, strict=True))
    return Measured(count, times[count // 2], times[count * 99 // 100], bare[count // 2])


def _timed(call: Callable[..., object], *given: object) -> float:
    began = time.perf_counter()
    call(*given)
    return (time.perf_counter() - began) * 1e6


def _bare(data: bytes, path: Path) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    os.write(descriptor, data)
    os.close(descriptor)


def _stored(folder: Path) -> Path:
    """The directory with most of the files, which are the images."""
    return max((Path(parent) for parent, _, _ in os.walk(folder)), key=lambda path: len(list(path.iterdir())))


# ----------------------------------------------------------------------- peers


@contextmanager
def rolecall(folder: Path) -> Iterator[Log]:
    """The journal alone."""
    from rolecall import Image, MonitorConfig, launch, open_monitor

    config = MonitorConfig(project="p", name="n", monitor_type="local", monitor_dir=folder / "monitor")
    with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
        yield lambda pixels, step: monitor.log({"maze": Image(pixels)}, step)


@contextmanager
def wandb_offline(folder: Path) -> Iterator[Log]:
    """wandb.Run.log of wandb.Image, mode offline."""
    import wandb

    run = wandb.init(project="p", mode="offline", dir=folder, settings=wandb.Settings(silent=True))
    yield lambda pixels, step: run.log({"maze": wandb.Image(pixels)}, step=step)
    run.finish()


@contextmanager
def trackio(folder: Path) -> Iterator[Log]:
    """trackio.log of trackio.Image."""
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio as tracker

    tracker.init(project="p", embed=False)
    yield lambda pixels, step: tracker.log({"maze": tracker.Image(pixels)}, step=step)
    tracker.finish()  # type: ignore[no-untyped-call,unused-ignore]


PEERS: Mapping[str, Callable[[Path], AbstractContextManager[Log]]] = {
    OURS: rolecall,
    "wandb offline": wandb_offline,
    "trackio": trackio,
}


# ---------------------------------------------------------------------- report


def _row(peer: str, rounds: list[Measured]) -> dict[str, Any]:
    ratios = _ratios(rounds)
    p50, p99, bare = (statistics.median(getattr(one, name) for one in rounds) for name in ("p50", "p99", "bare"))
    return {
        "peer": peer,
        "calls": sum(one.calls for one in rounds),
        "p50": round(p50, 1),
        "p99": round(p99, 1),
        "bare write": round(bare, 1),
        "x bare": round(statistics.median(ratios), 2),
        "rounds": f"{min(ratios):.2f} to {max(ratios):.2f}",
    }


def _ratios(rounds: list[Measured]) -> list[float]:
    return [one.p50 / one.bare for one in rounds]


if __name__ == "__main__":
    main()
