"""Remove the rows of a job that each of its backends holds.

Rows that a backend lacks or has rejected stay. `show` and `deliver` still work, and count the removed
rows as delivered. It refuses a job that is alive, and one with the backend `local`. Earlier jobs of the
directory, in `previous`, are cleaned one by one.

Examples:
  rolecall clean runs/grpo-1 --dry-run
  rolecall clean runs/grpo-1
  rolecall clean runs/grpo-1/previous/7ffb7bcd66d4
"""

import argparse
from pathlib import Path
from typing import Final

from rolecall.cli.view.text import visible
from rolecall.config.commands import command
from rolecall.delivery.clean import clean, earlier

_MOST_EARLIER: Final = 10


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("directory", type=Path, help="the monitor_dir of a job")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")


def run(options: argparse.Namespace) -> int:
    """Clean a job, and say what was removed."""
    found = clean(options.directory, dry_run=options.dry_run)
    what = "would be removed" if options.dry_run else "removed"
    for each in found:
        print(visible(f"{each.writer}, session {each.session}: {each.rows} rows, {each.size:,} bytes"))
    print(f"{what}: {sum(each.rows for each in found)} rows, {sum(each.size for each in found):,} bytes")
    _name_earlier(options.directory)
    return 0


def _name_earlier(root: Path) -> None:
    """Say which jobs were set aside here, and how to clean them."""
    found = earlier(root)
    for path, size in list(found.items())[:_MOST_EARLIER]:
        print(visible(f"an earlier job takes {size:,} bytes; to clean it: {command('clean', path)}"))
    if len(found) > _MOST_EARLIER:
        print(visible(f"{len(found) - _MOST_EARLIER} more earlier jobs are in {root / 'previous'}"))
