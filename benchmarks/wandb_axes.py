"""What it costs to bind many metric keys to their axes in one wandb run that three roles write.

    python benchmarks/wandb_axes.py [--keys 1000 10000] [--how once each-flush pattern] [--flushes 6] [--limit 2000]
                                    [--json FILE]

Each role is a process that opens the run with rolecall's wandb plugin, against the emulator of wandb's server that the
plugin's tests use, in a process of its own. In each of `--flushes` rounds some of the keys are new. `once` is what
rolecall does: a key is defined once in each writer, up to `--limit` keys. `each-flush` is the plain way: every writer
defines all known keys at each flush. `pattern` defines one `{writer}/*` for each writer. CPU is that of wandb-core, of
all three roles, before the run is closed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

from report import show_and_keep
from servers import EMULATOR, wandb_server
from usage import children_cpu

WRITERS = ("explorer/0", "explorer/1", "trainer")


def keys_of(writer: str, count: int) -> dict[str, str]:
    """A number of keys of one writer, bound to its axis."""
    return {f"{writer}/group{number % 10}/metric_{number}": f"{writer}/step" for number in range(count)}


def role(writer: str, how: str, keys: int, flushes: int, limit: int, directory: str) -> dict[str, float]:
    """One writer's part: every writer's new keys in each flush, then its rows, then the end."""
    from rolecall import Row, RunTicket
    from rolecall_wandb import definitions
    from rolecall_wandb.args import WandbArgs
    from rolecall_wandb.plugin import open_run

    definitions.MANY = limit  # type: ignore[misc]
    ticket = RunTicket(
        project="bench",
        name="axes",
        group=None,
        run_id="axes",
        backend_run_id=None,
        shared=True,
        primary=writer == WRITERS[0],
        writer=writer,
        role=writer,
        config={},
        directory=Path(directory),
        pid=os.getpid(),
    )
    run: Any = open_run(ticket, WandbArgs())
    everyone = [list(keys_of(one, keys // len(WRITERS)).items()) for one in WRITERS]
    began, cpu, python = time.monotonic(), children_cpu(), time.process_time()
    known: dict[str, str] = {}
    for flush in range(flushes):
        news = {}
        for bindings in everyone:
            share = -(-len(bindings) // flushes)
            news.update(dict(bindings[flush * share : (flush + 1) * share]))
        known.update(news)
        define(run, how, news, known)
        run.log(
            [
                Row(
                    writer=writer,
                    session=1,
                    seq=flush + 1,
                    step=flush + 1,
                    time=time.time(),
                    metrics={f"{writer}/step": flush + 1},
                )
            ]
        )
        time.sleep(max(0.0, began + flush + 1 - time.monotonic()))
    measured = {"python_cpu": time.process_time() - python}
    run.tend()
    time.sleep(6.0)  # the SDK holds uploads back for 5 s
    measured["core_cpu"] = children_cpu() - cpu
    began = time.monotonic()
    run.flush(60.0)
    close(run)
    measured["close"] = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured["core_cpu_with_close"] = used.ru_utime + used.ru_stime
    return measured


def close(run: Any) -> None:
    """Until the server shows that it has taken the end, as a courier does."""
    from rolecall import Unavailable

    while True:
        try:
            run.close("finished")
        except Unavailable as error:
            print(error, file=sys.stderr)
        else:
            return


def define(run: Any, how: str, news: dict[str, str], known: dict[str, str]) -> None:
    """Define keys in wandb, in one of the ways."""
    match how:
        case "once":
            run.define(news)
        case "each-flush":
            run.definitions.keys.clear()
            run.define(known)
        case _:
            for axis in sorted(set(news.values())):
                run.definitions.define_pattern(axis)


def measure(how: str, keys: int, flushes: int, limit: int) -> dict[str, Any]:
    """One line of the table."""
    with wandb_server() as address, tempfile.TemporaryDirectory() as directory:
        url = address["WANDB_BASE_URL"]
        environment = {**os.environ, **address, "PYTHONPATH": str(EMULATOR), "WANDB_SILENT": "true"}
        environment["HOME"] = directory
        measured = [
            json.loads(process.communicate()[0].splitlines()[-1])
            for process in [
                start([writer, how, str(keys), str(flushes), str(limit), directory], environment) for writer in WRITERS
            ]
        ]
        with urllib.request.urlopen(f"{url}/_state") as answer:  # noqa: S310 - it is our own
            run = json.load(answer)["axes"]
    uploads = [size for _, _, size, count in run["upserts"] if count]
    return {
        "how": how,
        "keys": keys,
        "core CPU, s": round(sum(one["core_cpu"] for one in measured), 2),
        "Python CPU, s": round(sum(one["python_cpu"] for one in measured), 2),
        "uploads": len(uploads),
        "MB": round(sum(uploads) / 1e6, 2),
        "close, s": round(max(one["close"] for one in measured), 2),
        "bound": run["bindings"],
    }


def start(errand: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    """A role in a process of its own."""
    command = [sys.executable, __file__, "--role", *errand]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def main() -> None:
    """Measure, print, and write down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, nargs="+", default=[1_000])
    parser.add_argument(
        "--how", nargs="+", choices=["once", "each-flush", "pattern"], default=["once", "each-flush", "pattern"]
    )
    parser.add_argument("--flushes", type=int, default=6)
    parser.add_argument("--limit", type=int, default=2_000, help="of keys bound one by one")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--role", nargs=6, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role:
        writer, how, keys, flushes, limit, directory = args.role
        print(json.dumps(role(writer, how, int(keys), int(flushes), int(limit), directory)))
        return
    lines = [measure(how, keys, args.flushes, args.limit) for keys in args.keys for how in args.how]
    show_and_keep(lines, args.json)


if __name__ == "__main__":
    main()
