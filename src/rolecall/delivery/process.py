"""The process beside a role that carries its rows: `python -m rolecall.process`.

It has a session of its own, ignores the terminal's Ctrl-C, holds none of the role's files, outlives a killed role,
drains, and ends. What a backend's SDK prints goes to a log in `<monitor_dir>/courier/`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from rolecall.config.model import MonitorConfig
from rolecall.delivery.courier import News
from rolecall.delivery.group import Crew

__all__ = ["main"]

PREEMPTED = 25.0
"""Seconds to drain after SIGTERM; schedulers give 30 before SIGKILL (Slurm's KillWait, Kubernetes' default)."""


def main() -> None:
    """Read the errand, carry, end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    errand = json.loads(sys.stdin.buffer.readline())
    tell = _channel(Path(errand["log"]))
    config = MonitorConfig.from_env(errand["env"])
    plans = [
        plan for plan in (config.plan.backends if config.plan else ()) if plan.backend in errand["backends"]
    ]
    crew = Crew(config, errand["writer"], plans, tell)
    signal.signal(signal.SIGTERM, lambda *_: crew.hurry(PREEMPTED))
    if not crew.run():
        # A backend's call hangs on its thread; an orderly end of the interpreter could wait for it for ever.
        os._exit(1)


def _channel(log: Path) -> Callable[[News], None]:
    """Keeps standard output for the news, and sends what anything else prints to the log."""
    channel = os.dup(1)
    os.set_blocking(channel, False)
    log.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")

    def tell(news: News) -> None:
        # The role may be gone, or not reading: the courier goes on all the same.
        with suppress(OSError):
            os.write(channel, json.dumps(asdict(news)).encode() + b"\n")

    return tell


if __name__ == "__main__":
    main()
