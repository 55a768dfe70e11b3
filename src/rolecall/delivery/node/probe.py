"""Measures one process, and its node, for it: `python -m rolecall.delivery.node.probe PID DIRECTORY`.

It is for a job of one process, whose rows all go to one run: it prints a line of JSON for each sample, and the process
that started it logs them. It ends when that closes its standard input or dies.
"""

import json
import os
import select
import signal
import sys
from contextlib import suppress
from pathlib import Path

from rolecall import timings
from rolecall.delivery.node.sampler import Sampler


def main() -> None:
    """Print samples until nobody wants them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pid, directory = int(sys.argv[1]), Path(sys.argv[2])
    sampler = Sampler(directory)
    wait = timings.FIRST_SAMPLE
    # The end of standard input alone does not tell: a forked child of the process keeps it open.
    while not select.select([sys.stdin], [], [], wait)[0] and os.getppid() == pid:
        wait = timings.SAMPLE_INTERVAL
        with suppress(BrokenPipeError):  # the process is gone
            os.write(1, json.dumps(sampler.sample({"process": pid})).encode() + b"\n")


if __name__ == "__main__":
    main()
