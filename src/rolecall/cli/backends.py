"""`rolecall backends`: lists the backends."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from rolecall.backends.registry import Registry
from rolecall.errors import RolecallError

HELP = "list the backends that you can choose as monitor_type"
EXAMPLES = """\
examples:
  rolecall backends
  rolecall backends --json
"""
WIDEST = 110
_COMMAND = re.compile(r"`[^`]+`|pip (?:un)?install (?:'[^']*'|[^\s'])+")
_SPACE = "\0"
"""Stands for a space of a command while text is wrapped."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")


def run(options: argparse.Namespace) -> int:
    """Print each backend, the distribution that provides it, and whether it can share a run."""
    registry = Registry()
    found = [_describe(registry, name) for name in registry.names()]
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    width = min(shutil.get_terminal_size().columns, WIDEST)
    names = max(len(backend["name"]) for backend in found)
    providers = max(len(backend["distribution"]) for backend in found)
    for backend in found:
        verdict, words = _sharing(backend)
        print(f"{backend['name']:<{names}}  {backend['distribution']:<{providers}}  {verdict}")
        margin = " " * (names + 2)
        # Commands, addresses and paths stay whole, so that they can be copied; they may be wider than the terminal.
        whole = _COMMAND.sub(lambda found: found[0].replace(" ", _SPACE), words)
        for line in textwrap.wrap(
            whole,
            max(width, names + 42),
            initial_indent=margin,
            subsequent_indent=margin,
            break_long_words=False,
            break_on_hyphens=False,
        ):
            print(line.replace(_SPACE, " "))
    return 0


def _describe(registry: Registry, name: str) -> dict[str, Any]:
    """One backend with default arguments; a broken one has an `error`, and hides no other."""
    providers = [listing for listing in registry.listings() if listing.name == name]
    found: dict[str, Any] = {
        "name": name,
        "distribution": " and ".join(f"{listing.distribution} {listing.version}" for listing in providers),
        "shared_run": None,
        "reason": "",
    }
    try:
        # With default arguments: a backend may share runs on a server and not in files.
        backend = registry.load(name)
        support = backend.supports_shared_run(backend.args_model()())
    except ValidationError as error:
        needed = [".".join(["monitor_args", *map(str, problem["loc"])]) for problem in error.errors(include_url=False)]
        return {
            **found,
            "reason": f"depends on {', '.join(needed)}; set them in a config, and `rolecall check` says what it does",
        }
    except RolecallError as error:
        return {**found, "error": str(error)}
    return {**found, "shared_run": support.supported, "reason": support.reason}


def _sharing(backend: Mapping[str, Any]) -> tuple[str, str]:
    if "error" in backend:
        return "broken", backend["error"]
    if backend["shared_run"] is None:
        return "shared runs: depends", backend["reason"]
    return ("shared runs" if backend["shared_run"] else "no shared runs"), backend["reason"]
