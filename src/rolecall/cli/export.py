"""`rolecall export`: every row of a job as JSON lines.

The lines are those of a journal without checksums, with the writer and the session of each row::

    {"writer": "trainer", "session": 1, "seq": 1, "step": 1, "time": 1764000000.5, "data": {"loss": 0.5}}
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import Any

from pydantic_core import to_json

from rolecall.cli.options import add_directory, check_directory
from rolecall.cli.output import without_nan
from rolecall.job.history import read_rows
from rolecall.rows import Row

HELP = "print every readable row of a job as JSON lines"
EXAMPLES = """\
Leaves out what is damaged, so that the output of a damaged journal is clean. NaN and infinities are
the strings "NaN", "Infinity" and "-Infinity".

examples:
  rolecall export runs/grpo-1 > rows.jsonl
  rolecall export runs/grpo-1 | jq -c 'select(.writer == "trainer") | [.step, .data.loss]'
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_directory(parser)


def run(options: argparse.Namespace) -> int:
    """Print the rows, writer by writer, in the order in which they were logged."""
    check_directory(options.directory)
    for row in read_rows(options.directory):
        # Bytes: JSON is UTF-8 whatever the terminal's encoding is.
        sys.stdout.buffer.write(to_json(without_nan(_as_dict(row))) + b"\n")
    sys.stdout.buffer.flush()
    return 0


def _as_dict(row: Row) -> dict[str, Any]:
    """A row, without the fields that it has no value for."""
    found: dict[str, Any] = {
        "writer": row.writer,
        "session": row.session,
        "seq": row.seq,
        "step": row.step,
        "time": row.time,
        "data": {**row.metrics, **row.text},
    }
    if row.axis is not None:
        found["axis"] = row.axis
    if row.commit:
        found["commit"] = True
    if row.table is not None:
        found["table"] = asdict(row.table)
    if row.media:
        found["media"] = [asdict(media) for media in row.media]
    return found
