"""Say what a config will do, and which settings a backend does not support.

Examples:
  rolecall check config.yaml
  rolecall check config.yaml --json
"""

import argparse
import json
from dataclasses import asdict

from rolecall import timings
from rolecall.backends.builtin import LOCAL
from rolecall.config.model import MonitorConfig
from rolecall.config.plan import Plan
from rolecall.config.resolve import resolve

_COURIERS = {
    "process": "delivered by a process beside each role",
    "thread": "delivered by a thread of each role",
    "none": "delivered by `rolecall relay` or `rolecall deliver`",
}
_RELAYED = {"process": "relayed by a process beside the launcher", "thread": "relayed by a thread of the launcher"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    what = "a YAML file with the settings, at the top or under the key `monitor`; `-` is standard input"
    parser.add_argument("config", help=what)
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")


def run(options: argparse.Namespace) -> int:
    """Print the plan of a config. Opens and writes nothing."""
    # `launch` does the same with a config, before it opens anything
    config = MonitorConfig.load("/dev/stdin" if options.config == "-" else options.config)
    plan = resolve(config)
    if options.json:
        print(json.dumps(asdict(plan), indent=2))
        return 0
    print(f"{config.project} / {config.name} in {config.monitor_dir}")
    for chosen in plan.backends:
        runs = "one run, shared by all roles" if chosen.has_one_run else "a run for each role"
        courier = {**_COURIERS, **(_RELAYED if chosen.relayed else {})}[chosen.courier]
        if chosen.backend == LOCAL:
            courier = "nothing to deliver: the journal is the run"
        print(f"  {chosen.backend}: {runs}, {courier}")
        if remark := config.registry.load(chosen.backend).remark:
            print(f"  {remark}")
    if plan.system_metrics:
        print(f"  system metrics: {_measured(plan)}")
    if plan.disabled:
        print("  monitoring is off")
    for downgrade in plan.downgrades:
        print(f"  downgraded: {downgrade}")
    return 0


def _measured(plan: Plan) -> str:
    """Where system metrics come from."""
    own = ", ".join(each.backend for each in plan.backends if each.measures)
    how = f"a process on each node logs them every {timings.SAMPLE_INTERVAL:.0f} s"
    return f"{how} ({own}: its SDK does)" if own else how
