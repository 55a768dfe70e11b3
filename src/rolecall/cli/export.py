"""Print every readable row of a job as JSON lines.

Each line is a row as the journal has it, with its writer and session, and without the checksum:
  {"writer": "trainer", "session": 1, "seq": 1, "step": 1, "time": 1764000000.5, "data": {"loss": 0.5}}
Damaged rows are left out. NaN and infinities are the strings "NaN", "Infinity" and "-Infinity".

Examples:
  rolecall export runs/grpo-1 > rows.jsonl
  rolecall export runs/grpo-1 | jq -c 'select(.writer == "trainer") | [.step, .data.loss]'
"""

import argparse
import sys
from pathlib import Path

from pydantic_core import to_json

from rolecall.job.history import read_rows
from rolecall.rows import NOT_FINITE


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("directory", type=Path, help="the monitor_dir of a job")


def run(options: argparse.Namespace) -> int:
    """Print the rows, writer by writer, in the order in which they were logged."""
    for row in read_rows(options.directory):
        always = {name: getattr(row, name) for name in ("writer", "session", "seq", "step", "time")}
        rare = {name: getattr(row, name) for name in ("axis", "commit", "backends", "table", "media")}
        found = {
            **always,
            "data": {**row.metrics, **row.text},
            **({"text": spelled} if (spelled := [key for key, text in row.text.items() if text in NOT_FINITE]) else {}),
            **{name: value for name, value in rare.items() if value},
        }
        # Bytes: JSON is UTF-8 whatever the terminal's encoding is.
        sys.stdout.buffer.write(to_json(found, inf_nan_mode="strings") + b"\n")
    sys.stdout.buffer.flush()
    return 0
