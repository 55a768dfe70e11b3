"""Runs every fuzzer at once, each in a process of its own, for some seconds; fails if one of them finds anything.

python tests/support/fuzz_all.py 30
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from fuzz_targets import TARGETS

FUZZER = Path(__file__).parent / "fuzz_one.py"


def main() -> int:
    """Start them, wait, and show how each ended."""
    with tempfile.TemporaryDirectory(prefix="rolecall-fuzz-") as folder:
        running = {target: _start(target, sys.argv[1], Path(folder)) for target in TARGETS}
        return max([_end(target, process) for target, process in running.items()])


def _start(target: str, seconds: str, folder: Path) -> subprocess.Popen[str]:
    """In the working directory, where it leaves an input that it ends with."""
    command = [sys.executable, str(FUZZER), target, "--seconds", seconds, "--keep", str(folder / target)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _end(target: str, process: subprocess.Popen[str]) -> int:
    said, _ = process.communicate()
    print(f"{target}: status {process.returncode}: {said.strip().splitlines()[-1]}", flush=True)
    if process.returncode:
        print(said)
    return int(process.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
