"""wandb's own names, for scripts that were written for it, on any tracker.

`import rolecall.compat.wandb as wandb` instead of `import wandb`. What rolecall has nothing for raises, and says what
to do instead. wandb itself need not be installed.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rolecall.compat.wandb import util
from rolecall.compat.wandb.absent import Error, UnsupportedError, UsageError, explain_absent
from rolecall.compat.wandb.artifact import Artifact
from rolecall.compat.wandb.configs import Config
from rolecall.compat.wandb.media import Audio, Histogram, Html, Image, Table, Video
from rolecall.compat.wandb.metrics import Metric
from rolecall.compat.wandb.runs import Run
from rolecall.compat.wandb.start import Settings, current, finish, init, need
from rolecall.compat.wandb.summaries import Summary

__all__ = [
    "Artifact",
    "Audio",
    "Config",
    "Error",
    "Histogram",
    "Html",
    "Image",
    "Run",
    "Settings",
    "Summary",
    "Table",
    "UnsupportedError",
    "UsageError",
    "Video",
    "define_metric",
    "finish",
    "init",
    "log",
    "log_artifact",
    "login",
    "require",
    "setup",
    "teardown",
    "termerror",
    "termlog",
    "termwarn",
    "util",
]

run: Run | None
"""The run that `init` began last; `None` before it, and after `finish`."""
config: Config
"""Its config."""
summary: Summary
"""Its summary."""


def __getattr__(name: str) -> Any:
    # No module of this package has one of these names: importing it would make it an attribute, and hide what is here.
    if name == "run":
        return current()
    if name in {"config", "summary"}:
        return getattr(need(name), name)
    return explain_absent("rolecall.compat.wandb", name)


def log(data: Mapping[str, Any], step: int | None = None, commit: bool | None = None) -> None:
    """Record values; see `Run.log`."""
    need("log()").log(data, step, commit)


def define_metric(name: str, step_metric: str | Metric | None = None, **options: Any) -> Metric:
    """Say over which step a key is shown; see `Run.define_metric`."""
    return need("define_metric()").define_metric(name, step_metric, **options)


def log_artifact(artifact_or_path: Any, name: str | None = None, **options: Any) -> Artifact:
    """Copy files; see `Run.log_artifact`."""
    return need("log_artifact()").log_artifact(artifact_or_path, name, **options)


def login(*credentials: object, **options: object) -> bool:
    """Do nothing: trackers read their own credentials."""
    return True


def setup(settings: object = None) -> None:
    """Do nothing: there is no process to start before the run."""


def require(requirement: str | Sequence[str] | None = None, experiment: object = None) -> None:
    """Do nothing: there is nothing to switch on."""


def teardown(exit_code: int | None = None) -> None:
    """End the run, if there is one."""
    finish(exit_code)


def termlog(string: str = "", **options: object) -> None:
    """Print a line on standard error."""
    sys.stderr.write(f"wandb: {string}\n")


def termwarn(string: str, **options: object) -> None:
    """Print a warning on standard error."""
    termlog(f"WARNING {string}")


def termerror(string: str, **options: object) -> None:
    """Print an error on standard error."""
    termlog(f"ERROR {string}")
