"""A role whose training is a loop that only reads the clock; it is the control that `log` is compared with."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final, NoReturn

from fault_page import Page
from fault_pictures import picture
from stopped import children, stop

from rolecall import Monitor, MonitorConfig, open_monitor

FORKED = 10_000_000
"""Steps from here on are a forked child's, which must not come to the backend."""


def main() -> None:
    """Log, and record in the page what was logged."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("--first", type=int, default=1, help="the first step")
    parser.add_argument("--count", type=int, default=200, help="rows")
    parser.add_argument("--pace", type=float, default=0.001, help="seconds of training for each row")
    parser.add_argument("--close", type=float, default=30.0, help="seconds that close may take")
    parser.add_argument("--media", action="store_true", help="a picture in each row, too")
    parser.add_argument("--die", choices=DEATHS, help="be killed when the picture of the row in the midst is stored")
    parser.add_argument("--spoil", action="store_true", help="spoil some pictures before they are delivered")
    parser.add_argument("--fork", action="store_true", help="fork in the midst, as a data loader does")
    args = parser.parse_args()
    page = Page(args.page, args.count)
    signal.signal(signal.SIGTERM, lambda signum, _: sys.exit(128 + signum))
    with open_monitor(MonitorConfig.from_env(), "trainer") as monitor:
        if args.spoil:
            # What is logged while the courier is stopped is not delivered yet.
            for child in children():
                stop(child)
        for index in range(args.count):
            if args.fork and index == args.count // 2:
                fork(monitor, index)
            if args.die and index == args.count // 2:
                DEATHS[args.die]()
            log(monitor, page, index, args.first + index, media=args.media)
            if args.spoil and index == args.count // 2:
                spoil(MonitorConfig.from_env().monitor_dir)
                for child in children():
                    os.kill(child, signal.SIGCONT)
            page.measure(0, train(args.pace))
        page.mark_closing()
        monitor.close(timeout=args.close)


def log(monitor: Monitor, page: Page, index: int, step: int, *, media: bool) -> None:
    """One row; a row that was reported as lost was not acknowledged."""
    data: dict[str, Any] = {"loss": 1 / step, "maze": picture(step)} if media else {"loss": 1 / step}
    lost, began = monitor.lost, time.perf_counter_ns()
    monitor.log(data, step=step)
    page.measure(time.perf_counter_ns() - began, 0)
    if monitor.lost == lost:
        page.acknowledge(index)


def train(seconds: float) -> int:
    """Read the clock for so long; returns the longest time between two readings, in ns."""
    now = time.perf_counter_ns()
    end, longest = now + int(seconds * 1e9), 0
    while now < end:
        before, now = now, time.perf_counter_ns()
        longest = max(longest, now - before)
    return longest


def fork(monitor: Monitor, index: int) -> None:
    """A child that logs, and ends in an orderly way."""
    child = os.fork()
    if child == 0:
        monitor.log({"loss": 0.0}, step=FORKED + index)
        monitor.close()
        os._exit(0)
    os.waitpid(child, 0)


# -------------------------------------------------------------- spoiled files


def spoil(directory: Path) -> None:
    """Remove a picture's file, cut one short, and alter one."""
    removed, cut, altered = sorted(directory.glob("journal/trainer/*.files/maze-*"))[:SPOILED]
    removed.unlink()
    os.truncate(cut, cut.stat().st_size // 2)
    data = altered.read_bytes()
    altered.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


SPOILED: Final = 3
"""How many files `spoil` does something to."""

# ---------------------------------------------------------------------- deaths


def die_amid_file() -> None:
    """The next picture is written by half."""
    write = os.write

    def half(descriptor: int, data: bytes) -> int:
        if len(data) < _PICTURE:
            return write(descriptor, data)
        write(descriptor, data[: len(data) // 2])
        _die()

    os.write = half  # type: ignore[assignment]


def die_before_name() -> None:
    """The next picture is written, and its file has not its name yet."""

    def die(*_: Any, **__: Any) -> None:
        _die()

    os.replace = die


def die_before_row() -> None:
    """The next picture is stored, and its row is not."""
    replace = os.replace

    def replace_and_die(*given: Any, **named: Any) -> None:
        replace(*given, **named)
        _die()

    os.replace = replace_and_die


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it lives")


_PICTURE: Final = 4096
"""Bytes that only a picture has."""
DEATHS: Final = {"amid file": die_amid_file, "before name": die_before_name, "before row": die_before_row}


if __name__ == "__main__":
    main()
