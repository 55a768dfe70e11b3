"""What many writers, many keys and long journals cost, and a filesystem that answers late.

    python benchmarks/scale.py [--what writers keys journal latency] [--writers 1 8 32 128] [--keys 10 ... 100000]
                               [--rows 1000 ... 10000000] [--delay 0 1 5] [--json FILE]

`writers`: so many writers, each with 1,000 keys, in one directory, each with its courier to a run in memory. Told are
CPU of a courier's flush in which nobody has a new key, the exchange's part of it, and how many times a courier reads
all bindings. `keys`: one writer with so many keys, rows of 10 of them in turn: first calls with each, and those after
it; and a flush without a new key. `journal`: the cost of the last 1,000 rows of a journal so long; to open a
monitor beside it, and to open the same job again. `latency`: `log`, the exchange with 128 writers, and opening, where
each call on a file in `monitor_dir` takes so many ms longer; journals are spooled on the node.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from latency import late
from peers import plain_row
from pydantic import BaseModel
from report import show_and_keep

from rolecall import Monitor, MonitorConfig, Row, Run, RunTicket, SharedRunSupport, hookimpl, launch, open_monitor
from rolecall.backends.registry import Registry
from rolecall.delivery.courier import Courier
from rolecall.delivery.cursor import Cursor
from rolecall.states import Status
from rolecall.store.acks import Acknowledgements, Position, undelivered
from rolecall.store.axes import AxisBook, axis_key
from rolecall.store.journal import JournalWriter
from rolecall.store.layout import Layout
from rolecall.store.lease import claim, sessions

EACH = 1000
"""Keys of a writer where writers are many."""
FLUSHES = 50
METRICS = plain_row(10)


def main() -> None:
    """Measure what is asked for, and print a table for each."""
    args = _options()
    measured: Mapping[str, tuple[Callable[[Any, Path], Mapping[str, Any]], Sequence[Any]]] = {
        "writers": (_writers, args.writers),
        "keys": (_keys, args.keys),
        "journal": (_journal, args.rows),
        "latency": (_latency, args.delay),
    }
    found: list[Mapping[str, Any]] = []
    for what in args.what:
        rows = list(_each(*measured[what]))
        print(f"\n{what}")
        show_and_keep(rows, None)
        found += [{"what": what, **row} for row in rows]
    if args.json:
        show_and_keep(found, args.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = ("writers", "keys", "journal", "latency")
    parser.add_argument("--what", nargs="+", choices=every, default=every)
    parser.add_argument("--writers", nargs="+", type=int, default=[1, 8, 32, 128])
    parser.add_argument("--keys", nargs="+", type=int, default=[10, 100, 1000, 10_000, 100_000])
    parser.add_argument("--rows", nargs="+", type=int, default=[10**power for power in range(3, 8)])
    parser.add_argument("--delay", nargs="+", type=float, default=[0.0, 1.0, 5.0], help="ms")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _each(measure: Callable[[Any, Path], Mapping[str, Any]], values: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
    for value in values:
        with tempfile.TemporaryDirectory(prefix="rolecall-bench-") as folder:
            yield measure(value, Path(folder))


# ----------------------------------------------------------- a courier in hand


class _Memory:
    """A run that holds everything at once, and knows axes."""

    id = "memory"
    url = None

    def log(self, rows: Sequence[Row]) -> None:
        """Take them."""

    def flush(self, timeout: float) -> None:
        """Nothing to wait for."""

    def close(self, status: Status) -> None:
        """Nothing to end."""


class _Args(BaseModel):
    """None."""


class _Backend:
    """What the entry point in `rolecall.backends` would be."""

    @hookimpl
    def backend_args(self) -> type[BaseModel]:
        """None."""
        return _Args

    @hookimpl
    def supports_shared_run(self, args: BaseModel) -> SharedRunSupport:
        """It can."""
        return SharedRunSupport(supported=True)

    @hookimpl
    def open_run(self, ticket: RunTicket, args: BaseModel) -> Run:
        """Another one each time."""
        return _Memory()

    @hookimpl
    def declare_axes(self, run: Run, axes: Mapping[str, str]) -> None:
        """Nothing to do."""


class _Role:
    """A writer's journal, and a courier that is called by hand."""

    def __init__(self, layout: Layout, writer: str) -> None:
        self.journal = JournalWriter(claim(layout.journal(writer), {}, writer))
        self.book = AxisBook(layout, writer)
        self._step = 0
        backend = Registry().register("memory", _Backend()).load("memory")
        self._courier = Courier(
            backend=backend,
            args=_Args(),
            shared=True,
            ticket=lambda: _ticket(layout, writer),
            cursors=[Cursor(layout, writer, Acknowledgements(layout, "memory", writer))],
            book=self.book,
            report=lambda _: None,
        )
        self._run = self._courier._open()

    def log(self, metrics: Mapping[str, float]) -> None:
        """One row."""
        self._step += 1
        self.journal.append(metrics, self._step)

    def flush(self) -> None:
        """What a courier does about once a second: carry, acknowledge, and look at the other writers' news."""
        self._courier._flushed = 0.0
        self._courier._deliver_some(self._run)


def _ticket(layout: Layout, writer: str) -> RunTicket:
    return RunTicket(
        project="p",
        name="n",
        group=None,
        run_id="r",
        backend_run_id="r",
        shared=True,
        primary=False,
        writer=writer,
        role=writer.partition("/")[0],
        config={},
        directory=layout.root,
        pid=os.getpid(),
    )


def _cpu_of(action: Callable[[], object], before: Callable[[], object], times: int) -> float:
    """ms of CPU, the median of a number of times."""
    found: list[float] = []
    for _ in range(times):
        before()
        began = time.thread_time()
        action()
        found.append((time.thread_time() - began) * 1e3)
    return statistics.median(found)


# --------------------------------------------------------------------- writers


def _writers(count: int, folder: Path) -> Mapping[str, Any]:
    layout = Layout(folder)
    names = [f"explorer/{rank}" for rank in range(count)]
    for name in names:
        AxisBook(layout, name).publish(
            dict.fromkeys([f"{name}/{key}" for key in plain_row(EACH)], axis_key(f"{name}/"))
        )
    size = sum(path.stat().st_size for path in layout.axes.iterdir())
    before = _bytes_read()
    AxisBook(layout, names[-1])
    read = _bytes_read() - before
    role = _Role(layout, names[-1])
    role.log(plain_row(EACH))
    role.flush()
    before = _bytes_read()
    flush = _cpu_of(role.flush, lambda: role.log(plain_row(10)), FLUSHES)
    again = (_bytes_read() - before) / FLUSHES
    return {
        "writers": count,
        "keys": len(role.book.bindings()),
        "flush, ms CPU": round(flush, 3),
        "of it exchange": round(_cpu_of(role.book.refresh, lambda: None, FLUSHES), 3),
        "bindings read, times": round(read / size, 2),
        "read by a flush, bytes": round(again),
    }


def _bytes_read() -> int:
    line = Path("/proc/self/io").read_text(encoding="ascii").splitlines()[0]
    return int(line.removeprefix("rchar: "))


# ------------------------------------------------------------------------ keys


def _keys(count: int, folder: Path) -> Mapping[str, Any]:
    role = _Role(Layout(folder), "trainer")
    for first in range(0, count, 10):
        role.log(plain_row(10, first))
        if first % 10_000 == 0:
            role.flush()
    role.flush()
    at = iter(range(10**9))
    flush = _cpu_of(role.flush, lambda: role.log(plain_row(10, next(at) * 10 % count)), FLUSHES)
    return {"keys": count, "flush, ms CPU": round(flush, 3), **_log_of_keys(count, folder)}


def _log_of_keys(count: int, folder: Path) -> Mapping[str, float]:
    """The median call that logs 10 of the keys: of the first with these keys, and of those after it, in turn."""
    rows = [plain_row(10, first) for first in range(0, count, 10)]
    with launch(_config(folder / "job")) as job, open_monitor(job.config, "trainer") as monitor:
        _timed(monitor, {"other": 0.5}, 0)
        first = [_timed(monitor, metrics, step) for step, metrics in enumerate(rows, start=1)]
        calls = [_timed(monitor, rows[at % len(rows)], at) for at in range(max(5000, len(rows)))]
    times = {"log, µs": calls, "the first, µs": first}
    return {name: round(statistics.median(each) * 1e6, 1) for name, each in times.items()}


def _config(directory: Path, **settings: Any) -> MonitorConfig:
    return MonitorConfig.load({"project": "p", "name": "n", "monitor_dir": directory, **settings})


# --------------------------------------------------------------------- journal


def _journal(rows: int, folder: Path) -> Mapping[str, Any]:
    with launch(_config(folder)) as job:
        with open_monitor(job.config, "trainer") as monitor:
            last = _log(monitor, rows)
        opened = _seconds(lambda: open_monitor(job.config, "trainer").close())
        layout = Layout(folder)
        size = sum(one.path.stat().st_size for one in sessions(layout.journal("trainer")))
        counted = _seconds(lambda: undelivered(layout, "memory", "trainer"))
        acks = Acknowledgements(layout, "memory", "trainer")
        size_of_first = sessions(layout.journal("trainer"))[0].path.stat().st_size
        acks.acknowledge(Position(1, size_of_first, rows), rows, 0)
        acks.release(None)
        courier = _seconds(lambda: _first_look(layout))
        job.close("failed")
    again = _seconds(lambda: launch(_config(folder)).close("failed"))
    return {
        "rows": rows,
        "MB": round(size / 1e6, 1),
        "log, µs": round(last, 1),
        "open_monitor, ms": round(opened * 1e3, 1),
        "a courier begins, ms": round(courier * 1e3, 1),
        "launch again, ms": round(again * 1e3, 1),
        "count what waits, ms": round(counted * 1e3, 1),
    }


def _log(monitor: Monitor, rows: int) -> float:
    """The median of the last 1,000 calls, in µs."""
    for step in range(1, rows - EACH + 1):
        monitor.log({"loss": step / 7}, step=step)
    last = range(rows - EACH + 1, rows + 1)
    return statistics.median(_timed(monitor, {"loss": step / 7}, step) for step in last) * 1e6


def _first_look(layout: Layout) -> None:
    acks = Acknowledgements(layout, "memory", "trainer")
    Cursor(layout, "trainer", acks).read()
    acks.release(None)


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


# --------------------------------------------------------------------- latency


def _latency(delay: float, folder: Path) -> Mapping[str, Any]:
    config = _config(folder / "monitor", spool_dir=folder / "spool", courier="thread")
    with late(folder / "monitor", delay / 1e3):
        began = time.perf_counter()
        with launch(config) as job, open_monitor(job.config, "trainer") as monitor:
            opened = time.perf_counter() - began
            calls = sorted(_timed(monitor, METRICS, step) for step in range(5000))
    axes = Layout(folder / "axes")
    for rank in range(128):
        name = f"explorer/{rank}"
        AxisBook(axes, name).publish(dict.fromkeys([f"{name}/{key}" for key in METRICS], axis_key(f"{name}/")))
    role = _Role(axes, "trainer")
    with late(folder / "axes", delay / 1e3) as latency:
        exchange = statistics.median(_seconds(role.book.refresh) for _ in range(5))
    return {
        "delay, ms": delay,
        "log p50, µs": round(calls[len(calls) // 2] * 1e6, 1),
        "log p99, µs": round(calls[len(calls) * 99 // 100] * 1e6, 1),
        "launch and open, ms": round(opened * 1e3),
        "exchange of 128 writers, ms": round(exchange * 1e3, 1),
        "its calls": latency.calls // 5,
    }


def _timed(monitor: Monitor, metrics: Mapping[str, float], step: int) -> float:
    began = time.perf_counter()
    monitor.log(metrics, step=step)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
