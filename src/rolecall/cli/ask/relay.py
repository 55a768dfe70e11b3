"""Deliver the rows of all roles to one run, on any machine that sees the job's directory, until the job ends.

It is for jobs with `shared_run: relay` whose launcher has no relay: one with `courier: none`, or one
that died. The exit status is 1 if rows are left, and 2 if another relay is alive.

Examples:
  rolecall relay runs/grpo-1
  ROLECALL_ARGS='{wandb: {api_key: ...}}' rolecall relay runs/grpo-1
"""

import argparse
import math
import signal

from rolecall import timings
from rolecall.cli.ask.arguments import add_job_options, collect_args, print_event, print_left
from rolecall.config.commands import command
from rolecall.delivery.relay.serve import Relay


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_job_options(parser, timeout=math.inf, until="the job ends")


def run(options: argparse.Namespace) -> int:
    """Relay a job, and say what is left."""
    relay = Relay(options.directory, collect_args(options, None), trust=options.trust, on_event=print_event)
    signal.signal(signal.SIGTERM, lambda *_: relay.hurry(timings.PREEMPTION_TIMEOUT))
    left = relay.run(options.timeout)
    print_left(left)
    if any(each.rows for each in left):
        print(f"some rows are left; to go on, run: {command('relay', options.directory)}")
    else:
        print("what the journal still has is delivered" if left else "all rows are delivered")
    return 1 if left else 0
