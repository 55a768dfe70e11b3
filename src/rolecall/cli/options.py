"""Values of options that several commands take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rolecall.config.loading import parse_yaml
from rolecall.errors import ConfigError, DirectoryError
from rolecall.store.layout import Layout, read_record


def add_directory(parser: argparse.ArgumentParser) -> None:
    """Add the argument `directory`."""
    parser.add_argument("directory", type=Path, help="the monitor_dir of a job")


def check_directory(root: Path) -> None:
    """Refuse a directory that is not a job's.

    Raises:
        DirectoryError: no job was launched there.
    """
    if read_record(Layout(root)) is None:
        raise DirectoryError(f"{root}: not a monitor_dir (no run.json)")


def parse_mapping(option: str, text: str) -> dict[str, Any]:
    """Parse the value of an option that takes a mapping, as YAML or JSON.

    Raises:
        ConfigError: it is not YAML, or not a mapping; the message names the option.
    """
    value = parse_yaml(text, option)
    if not isinstance(value, dict):
        # The value may be a secret, and the message may end in a log.
        raise ConfigError(f"{option}: must be a mapping such as '{{uri: sqlite:///runs.db}}'")
    return {str(key): item for key, item in value.items()}


def positive(text: str) -> int:
    """Parse a whole number from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, not {text}")
    return value
