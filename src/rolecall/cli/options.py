"""Values of options that several commands take."""

import argparse
from pathlib import Path
from typing import Any

from rolecall.config.loading import parse_yaml
from rolecall.errors import ConfigError


def add_directory(parser: argparse.ArgumentParser) -> None:
    """Add the argument `directory`."""
    parser.add_argument("directory", type=Path, help="the monitor_dir of a job")


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
