"""List the backends that you can choose as monitor_type.

Examples:
  rolecall backends
  rolecall backends --json
"""

import argparse
import json
from collections import defaultdict
from typing import Any

from pydantic import ValidationError

from rolecall.backends.registry import Listing, Registry
from rolecall.errors import RolecallError

_SHARING = {True: "shared runs", False: "no shared runs", None: "shared runs: depends"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")


def run(options: argparse.Namespace) -> int:
    """Print each backend, the distribution that provides it, and whether it can share a run."""
    registry = Registry()
    providers = defaultdict[str, list[str]](list)
    for each in registry.listings():
        providers[each.name].append(f"{each.distribution} {each.version}")
    found = [_describe(registry, name, " and ".join(providers[name])) for name in registry.names()]
    found += [_refused(each) for each in registry.misnamed()]
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    names, widest = (max(len(backend[column]) for backend in found) for column in ("name", "distribution"))
    for backend in found:
        verdict = "broken" if "error" in backend else _SHARING[backend["shared_run"]]
        print(f"{backend['name']:<{names}}  {backend['distribution']:<{widest}}  {verdict}")
        for words in filter(None, (backend.get("error") or backend["reason"], backend.get("remark"))):
            # One line, which the terminal wraps: a command or an address in it can then be copied.
            print(f"{'':{names}}  {words}")
    return 0


def _refused(listing: Listing) -> dict[str, Any]:
    why = f"nobody can choose it, as monitor_type {listing.name!r} turns monitoring off; its authors must rename it"
    distribution = f"{listing.distribution} {listing.version}"
    return {"name": listing.name, "distribution": distribution, "shared_run": None, "reason": "", "error": why}


def _describe(registry: Registry, name: str, distribution: str) -> dict[str, Any]:
    """One backend with default arguments; a broken one has an `error`, and hides no other."""
    found: dict[str, Any] = {"name": name, "distribution": distribution, "shared_run": None, "reason": ""}
    try:
        # With default arguments: a backend may share runs on a server and not in files.
        backend = registry.load(name)
        found |= {"remark": backend.remark} if backend.remark else {}
        support = backend.supports_shared_run(backend.args_model()())
    except ValidationError as error:
        needed = ", ".join(".".join(["monitor_args", *map(str, each["loc"])]) for each in error.errors())
        return {**found, "reason": f"depends on {needed}; set them in a config, and `rolecall check` says what it does"}
    except RolecallError as error:
        return {**found, "error": str(error)}
    return {**found, "shared_run": support.supported, "reason": support.reason}
