"""The process beside a role that delivers its rows: `python -m rolecall.delivery.process`.

It has a session of its own, ignores the terminal's Ctrl-C, holds none of the role's files, outlives a killed role,
drains, and ends. What a backend's SDK prints goes to a log in `<monitor_dir>/courier/`.
"""

import atexit
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from rolecall import timings
from rolecall.config.model import MonitorConfig
from rolecall.delivery.events import CourierEvent
from rolecall.delivery.group import Assignment, CourierGroup
from rolecall.store.codec import make_folder, open_own


def main() -> None:
    """Read what to do from standard input, deliver, end."""
    is_done = threading.Event()
    atexit.register(_end_at_once, is_done)  # before any SDK is imported, so that it is called after what those register
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    task = json.loads(sys.stdin.buffer.readline())
    spec = MonitorConfig.from_env(task["env"]).spec()
    report = _channel(Path(task["log"]))
    writer, backends = task["writer"], task["backends"]
    assignments = [Assignment(writer, plan) for plan in spec.plan.backends if plan.backend in backends]
    group = CourierGroup(spec, [writer], assignments, report)
    signal.signal(signal.SIGTERM, lambda *_: group.hurry(timings.PREEMPTION_TIMEOUT))
    if not group.run():
        # A backend's call hangs on its thread, and an orderly end of the interpreter could wait for it forever.
        os._exit(1)
    is_done.set()


def _end_at_once(is_done: threading.Event) -> None:
    """End without what the interpreter does last: it frees every object of every module, one by one.

    With what SDKs import, such as pandas, that takes 0.3 to 2 s in each process, and so of each role's `close`, which
    waits for it (tensorboardX 2.6.5, wandb 0.31.0, MLflow 3.17.2; measured). By now all is written, and every thread
    that is to be waited for has ended. After an exception, it ends as usual.
    """
    if is_done.is_set():
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(0)


def _channel(log: Path) -> Callable[[CourierEvent], None]:
    """Keep standard output for events, and send what anything else prints to the log."""
    channel = os.dup(1)
    os.set_blocking(channel, False)
    print_to(log)

    def report(event: CourierEvent) -> None:
        # The role may be gone, or not reading: the courier goes on all the same.
        with suppress(OSError):
            os.write(channel, json.dumps(asdict(event)).encode() + b"\n")

    return report


def print_to(log: Path) -> None:
    """Send what this process prints and logs to a file in `monitor_dir`.

    The process opens it and not the role that starts it, as the role must be able to end while `monitor_dir` does not
    answer. What is printed before goes to the role, which shows it if the process cannot start.
    """
    make_folder(log.parent)
    file = open_own(log, create=True)
    os.dup2(file, 1)
    os.dup2(file, 2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")


if __name__ == "__main__":
    main()
