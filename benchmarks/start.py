"""How long a program takes from its start to its first `log`, with `rolecall.init` and the backend `local`.

    python benchmarks/start.py [--program "first log" "import pydantic" ...] [--runs 20] [--json FILE]

Each program is a process of its own in an empty directory, and all take turns, so that a busy machine is busy for all
of them. Milliseconds differ between machines; how many times the bare interpreter a program takes does so less.
`50 backends` is `rolecall backends` where so many are installed: it imports each and asks whether it shares runs. What
that takes is the difference to `import init`. `python -X importtime` says where the time of an import goes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from report import show_and_keep

# To the end of `log` alone: `os._exit` leaves out what a program does at its end.
LOGS = "import os, rolecall; run = rolecall.init(); run.log({'loss': 0.5}); os._exit(0)"
BACKEND = """
from pydantic import BaseModel, Field
from rolecall import SharedRunSupport, hookimpl

class Args(BaseModel):
    url: str = "http://localhost"
    retries: int = Field(default=3, ge=0)

@hookimpl
def backend_args():
    return Args

@hookimpl
def supports_shared_run():
    return SharedRunSupport(supported=True)

@hookimpl
def open_run(ticket):
    raise NotImplementedError
"""
PROGRAMS: Mapping[str, str] = {
    "nothing": "pass",
    "import pydantic": "from pydantic import BaseModel",
    "import init": "from rolecall import init",
    "first log": LOGS,
    "50 backends": "import sys; from rolecall.__main__ import main; sys.exit(main(['backends', '--json']))",
    "whole program": "import rolecall; run = rolecall.init(); run.log({'loss': 0.5}); run.finish()",
}


def main() -> None:
    """Time each program, and print them."""
    args = _options()
    programs = {name: PROGRAMS[name] for name in ("nothing", *args.program)}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as site:
        _install_backends(Path(site), 50)
        # its compiled code is kept, as that of installed packages is
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        with_backends = env | {"PYTHONPATH": os.pathsep.join([env.get("PYTHONPATH", ""), site])}
        for turn in range(args.runs + 1):
            for name, code in programs.items():
                taken = _time(code, with_backends if name == "50 backends" else env)
                if turn:  # the first one compiles what it imports
                    seconds[name].append(taken)
    bare = statistics.median(seconds["nothing"])
    show_and_keep([_row(name, taken, bare) for name, taken in seconds.items()], args.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _install_backends(site: Path, count: int) -> None:
    """Lay out distributions as pip leaves them, each with a backend."""
    for number in range(count):
        name = f"backend{number}"
        (site / f"{name}.py").write_text(BACKEND)
        info = site / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: pydantic\n")
        (info / "entry_points.txt").write_text(f"[rolecall.backends]\n{name} = {name}\n")


def _time(code: str, env: Mapping[str, str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        out = subprocess.DEVNULL
        subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, check=True, stdout=out, stderr=out)
        return time.perf_counter() - began


def _row(name: str, seconds: list[float], bare: float) -> Mapping[str, Any]:
    median = statistics.median(seconds)
    return {
        "program": name,
        "best, ms": round(min(seconds) * 1000),
        "median, ms": round(median * 1000),
        "times nothing": round(median / bare, 1),
    }


if __name__ == "__main__":
    main()
