"""What a relay costs beside a native shared run, and how old rows are when a backend gets them.

    python benchmarks/relay.py [--what native many] [--backends wandb mlflow] [--roles 2 8 32] [--seconds 20]
                               [--json FILE]
    python benchmarks/relay.py --tables FILE    # what was kept in FILE, as docs/relay.md shows it

`native`: one run of so many roles, each a process that logs 10 metrics once a second, written by the roles' own
couriers or by a relay. Told are memory of all that is not training (PSS of couriers and SDKs), their number, their
CPU, how long a role took to open, what was uploaded to define axes, the age of rows, and the load average. `many`: 64
roles at 10 rows a second on TensorBoard through one relay, and the same roles when they log nothing. The age of a row
is the time from `Monitor.log` to `Run.log`; its 99th percentile is given. wandb's server is the tests' emulator,
MLflow's a sqlite file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers import plain_row
from report import show_and_keep
from usage import descendants

from rolecall import Monitor, MonitorConfig, launch, open_monitor

HERE = Path(__file__).resolve().parent
PIPE = subprocess.PIPE
TICKS = os.sysconf("SC_CLK_TCK")
MANY = 64
RATE = 10
BOUND = 0.99


def main() -> None:
    """Measure what is asked for, and print a table for each."""
    args = _options()
    if args.role is not None:
        _role(args.role, args.seconds)
        return
    if args.tables is not None:
        print("\n\n".join(tables(json.loads(args.tables.read_text(encoding="utf-8"))["found"])))
        return
    found: list[Mapping[str, Any]] = []
    if "native" in args.what:
        for case in [(name, how, roles) for name in args.backends for roles in args.roles for how in (True, "relay")]:
            found.append(_native(*case, args.seconds))
            show_and_keep(found, args.json)  # after each, as 32 roles with MLflow take a quarter of an hour
    if "many" in args.what:
        many = [_many(rows, args.seconds) for rows in (RATE, 0)]
        show_and_keep(many, None)
        found += many
    if args.json:
        show_and_keep(found, args.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--what", nargs="+", choices=["native", "many"], default=["native", "many"])
    parser.add_argument("--backends", nargs="+", choices=["wandb", "mlflow"], default=["wandb", "mlflow"])
    parser.add_argument("--roles", nargs="+", type=int, default=[2, 8, 32])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tables", type=Path)
    parser.add_argument("--role", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


# -------------------------------------------------------------- native or relay


def _native(backend: str, how: bool | str, roles: int, seconds: float) -> Mapping[str, Any]:
    """One run of so many roles."""
    with tempfile.TemporaryDirectory(prefix="rolecall-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        probe = stack.enter_context(_probe(folder))
        server = _emulator(folder, stack) if backend == "wandb" else None
        config = _config(folder, backend, how)
        with launch(config) as job:
            environ = {**os.environ, **job.config.to_env()}
            command = [sys.executable, __file__, "--seconds", str(seconds), "--role"]
            children = [
                subprocess.Popen([*command, str(rank)], env=environ, stdin=PIPE, stdout=PIPE, text=True)
                for rank in range(roles)
            ]
            opened = [float(child.stdout.readline()) for child in children if child.stdout is not None]
            for child in children:  # all at once: none has ended when the others are measured
                if child.stdin is not None:
                    child.stdin.close()
            ours = {child.pid for child in children}
            time.sleep(seconds / 2)
            used = _Used.by(pid for pid in descendants(os.getpid()) if pid not in ours)
            for child in children:
                child.wait()
        definitions = [upsert.size for upsert in server.run(job.run_id or "").upserts] if server is not None else []
        age = probe.age()
    return {
        "backend": backend,
        "written by": "relay" if how == "relay" else "each role",
        "roles": roles,
        "processes": used.processes,
        "memory, MB": round(used.memory / 1e6),
        "CPU, s": round(used.cpu, 1),
        "opening a role, ms": round(statistics.median(opened) * 1e3),
        "uploads": len(definitions),
        "of definitions, kB": round(sum(definitions) / 1e3),
        "age of rows, s": age,
        "load": round(os.getloadavg()[0]),
    }


def tables(found: list[Mapping[str, Any]]) -> Iterator[str]:
    """What was measured natively, as Markdown: a table for each backend, with a column for each job."""
    for backend in dict.fromkeys(each["backend"] for each in found if "backend" in each):
        jobs = [each for each in found if each.get("backend") == backend]
        heads = ["relay" if each["written by"] == "relay" else f"{each['roles']} roles" for each in jobs]
        rows = [[name, *(show(each) for each in jobs)] for name, show in SHOWN.items()]
        kept = [row for row in rows if any(row[1:])]
        yield "\n".join(f"| {' | '.join(row)} |" for row in [[backend, *heads], ["---", *["--:"] * len(heads)], *kept])


def _seconds(value: float) -> str:
    return f"{float(f'{value:.2g}'):g} s"  # two digits, as no more can be repeated on a machine that others share


SHOWN: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "processes": lambda job: str(job["processes"]),
    "memory (PSS)": lambda job: f"{job['memory, MB']:,} MB",
    "CPU": lambda job: _seconds(job["CPU, s"]),
    "opening a role": lambda job: _seconds(job["opening a role, ms"] / 1e3),
    "uploads of definitions": lambda job: str(job["uploads"] or ""),
    "bytes of definitions": lambda job: f"{job['of definitions, kB']:,} kB" if job["uploads"] else "",
    "age of rows": lambda job: _seconds(job["age of rows, s"]),
    "load average": lambda job: str(job["load"]),
}


def _role(rank: int, seconds: float) -> None:
    """A role in a process of its own; says how long it took to open."""
    config = MonitorConfig.from_env()
    began = time.perf_counter()
    with open_monitor(config, "explorer", rank) as monitor:
        print(time.perf_counter() - began, flush=True)
        sys.stdin.read()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            monitor.log(plain_row(10))
            time.sleep(1.0)


def _config(folder: Path, backend: str, how: bool | str) -> MonitorConfig:
    args = {"mlflow": {"uri": f"sqlite:///{folder / 'mlflow.db'}"}}
    return MonitorConfig(
        project="bench",
        name=backend,
        monitor_type=backend,
        monitor_args=args.get(backend, {}),
        shared_run="relay" if how == "relay" else bool(how),
        monitor_dir=folder / "monitor",
        open_timeout=300.0,
    )


def _emulator(folder: Path, stack: ExitStack) -> Any:
    """The tests' server, which every process of the job finds in the environment."""
    sys.path.insert(0, str(HERE.parent / "tests" / "support"))
    from wandb_emulator import Policy, WandbServer, environment

    server = stack.enter_context(WandbServer(Policy.MERGE))
    os.environ.update(environment(server, folder), WANDB_SILENT="true", WANDB_ERROR_REPORTING="false")
    return server


# ----------------------------------------------------------------- many roles


def _many(rate: int, seconds: float) -> Mapping[str, Any]:
    """64 roles of this process through one relay to TensorBoard; the CPU is that of the relay's process alone."""
    with tempfile.TemporaryDirectory(prefix="rolecall-bench-") as name, _probe(Path(name)) as probe:
        with launch(_config(Path(name), "tensorboard", "relay")) as job, ExitStack() as stack:
            roles = [stack.enter_context(open_monitor(job.config, "explorer", rank)) for rank in range(MANY)]
            _log_for(roles, rate or 1, 3.0)  # all are known, with their keys
            time.sleep(2.0)
            relay = [*descendants(os.getpid())]
            before = _Used.by(relay)
            probe.forget()
            _log_for(roles, rate, seconds)
            after = _Used.by(relay)
        return {
            "roles": MANY,
            "rows a second of each": rate,
            "CPU of the relay, %": round(100 * (after.cpu - before.cpu) / seconds, 1),
            "memory of the relay, MB": round(after.memory / 1e6),
            "age of rows, s": probe.age(),
        }


def _log_for(roles: list[Monitor], rate: int, seconds: float) -> None:
    """Each logs at its own moment, as processes do, and not all at once."""
    if not rate:
        time.sleep(seconds)
        return
    row, began = plain_row(10), time.monotonic()
    for number in range(int(seconds * rate * len(roles))):
        wait = began + number / (rate * len(roles)) - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        roles[number % len(roles)].log(row)


# ------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class _Used:
    """What processes used of the machine: their number, bytes (PSS), seconds of CPU."""

    processes: int
    memory: float
    cpu: float

    @classmethod
    def by(cls, pids: Any) -> _Used:
        found = [each for each in map(_of, pids) if each is not None]
        return cls(len(found), sum(memory for memory, _ in found), sum(cpu for _, cpu in found))


def _of(pid: int) -> tuple[float, float] | None:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    memory = sum(float(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return memory, (int(fields[11]) + int(fields[12])) / TICKS


@dataclass(frozen=True)
class _Probe:
    """The ages of rows that couriers handed over."""

    file: Path

    def forget(self) -> None:
        os.truncate(self.file, 0)

    def age(self) -> float | None:
        """The 99th percentile, in seconds."""
        ages = sorted(map(float, self.file.read_text(encoding="ascii").split()))
        return round(ages[min(len(ages) - 1, int(BOUND * len(ages)))], 2) if ages else None


@contextmanager
def _probe(folder: Path) -> Iterator[_Probe]:
    """Let every courier that starts in the block say how old its rows are."""
    before = dict(os.environ)
    file = folder / "ages"
    file.touch()
    os.environ["ROLECALL_PROBE"] = str(file)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE / "relay_probe"), *filter(None, [before.get("PYTHONPATH")])])
    try:
        yield _Probe(file)
    finally:
        os.environ.clear()
        os.environ.update(before)


if __name__ == "__main__":
    main()
