"""Fuzzes one target, guided by coverage, for some seconds.

    python tests/support/fuzz_one.py lines [--seconds 600] [--keep DIR]

It needs atheris; `nox -s fuzz` runs all targets side by side. A crash, or an input that takes longer than 10 s, ends it
with a status that is not 0 and leaves the input in the working directory. What reached something new is kept in DIR,
from where it may go into the corpus.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["rolecall"], enable_loader_override=False):
    from fuzz_targets import TARGETS

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"


def main() -> None:
    """Run libFuzzer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rolecall-corpus-") as folder:
        # libFuzzer writes what it finds into the first directory, and only reads the second
        keep = options.keep or Path(folder)
        keep.mkdir(parents=True, exist_ok=True)
        flags = [f"-max_total_time={options.seconds}", "-timeout=10", "-rss_limit_mb=2048", "-max_len=4096"]
        atheris.Setup([sys.argv[0], *flags, str(keep), str(CORPUS / options.target)], TARGETS[options.target])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
