"""A launcher in a process of its own: says the roles' environment as JSON, and ends with its standard input."""

from __future__ import annotations

import json
import sys

from rolecall import MonitorConfig, launch

if __name__ == "__main__":
    with launch(MonitorConfig.from_env()) as job:
        print(json.dumps(job.config.to_env()), flush=True)
        sys.stdin.read()
