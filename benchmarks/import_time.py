"""How long `import rolecall` takes: fresh interpreters, one after another, each timing its own import.

::

    python benchmarks/import_time.py [--runs 20] [--module rolecall]

Prints the median, the quickest and the slowest in milliseconds, and what an interpreter alone takes. Asserts nothing:
what is measured depends on the machine, its disk cache and its other work. The first run warms up and is left out.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

TIMED = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def main() -> None:
    """Measure and print."""
    options = _options()
    imports = [_import_seconds(options.module) for _ in range(options.runs + 1)][1:]
    bare = [_bare_seconds() for _ in range(options.runs)]
    print(f"import {options.module}: {_words(imports)}")
    print(f"python -c pass: {_words(bare)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--module", default="rolecall")
    return parser.parse_args()


def _import_seconds(module: str) -> float:
    ran = subprocess.run(
        [sys.executable, "-c", TIMED.format(module)], check=True, capture_output=True, text=True
    )
    return float(ran.stdout)


def _bare_seconds() -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.perf_counter() - began


def _words(seconds: list[float]) -> str:
    median, low, high = statistics.median(seconds), min(seconds), max(seconds)
    return f"median {median * 1e3:.0f} ms, {low * 1e3:.0f} to {high * 1e3:.0f}, of {len(seconds)}"


if __name__ == "__main__":
    main()
