"""The command `rolecall`.

Exit status: 0 done; 1 something is left undelivered; 2 the call, the config or the directory cannot be used.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rolecall.backends.builtin import LOCAL, NONE
from rolecall.backends.installed import version_of
from rolecall.backends.registry import Registry
from rolecall.config.loading import parse_yaml
from rolecall.config.model import MonitorConfig
from rolecall.config.resolve import resolve
from rolecall.delivery.events import CourierEvent as News
from rolecall.errors import BackendError, ConfigError, RolecallError

__all__ = ["main"]

ARGS = "ROLECALL_ARGS"
"""The environment's `--args`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; an error is told in words, without a traceback."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        status: int = options.run(options)
    except RolecallError as error:
        print(f"rolecall: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name not in ("rich", "plotext", "numpy"):
            raise
        print(f"rolecall: this needs {error.name}: pip install 'rolecall[cli]'", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("rolecall: interrupted", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rolecall", description="The monitor layer of multi-process training jobs."
    )
    parser.add_argument("--version", action="version", version=f"rolecall {version_of('rolecall')}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add(commands, "backends", _backends, "list the backends that can be selected", _backends_options)
    _add(
        commands,
        "check",
        _check,
        "say what a config will do, and where that is less than it asks for",
        _check_options,
    )
    _add(commands, "demo", _demo, "run a small reinforcement-learning job and monitor it", _demo_options)
    _add(commands, "show", _show, "draw a job from its journals", _show_options)
    _add(commands, "deliver", _deliver, "send what a job's backends do not hold yet", _deliver_options)
    return parser


def _add(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    words: str,
    options: Callable[[argparse.ArgumentParser], None],
) -> None:
    parser = commands.add_parser(name, help=words, description=words)
    options(parser)
    parser.set_defaults(run=run)


# -------------------------------------------------------------------- backends


def _backends_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for scripts")


def _backends(options: argparse.Namespace) -> int:
    registry = Registry()
    found = [_backend(registry, name) for name in registry.names()]
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    width = min(shutil.get_terminal_size().columns, 110)
    names = max(len(one["name"]) for one in found)
    bringers = max(len(one["distribution"]) for one in found)
    for one in found:
        verdict, words = _sharing(one)
        print(f"{one['name']:<{names}}  {one['distribution']:<{bringers}}  {verdict}")
        print(_indented(words, names + 2, width), end="")
    return 0


def _backend(registry: Registry, name: str) -> dict[str, Any]:
    """One backend with default arguments; a broken one says what is wrong, and the others still work."""
    listings = [one for one in registry.listings() if one.name == name]
    brought_by = " and ".join(f"{one.distribution} {one.version}" for one in listings)
    found: dict[str, Any] = {"name": name, "distribution": brought_by, "shared_run": None, "reason": ""}
    try:
        backend = registry.load(name)
        support = backend.supports_shared_run(backend.args_model()())
    except ValidationError as error:
        return {**found, "reason": _no_defaults(error)}
    except RolecallError as error:
        return {**found, "error": str(error)}
    return {**found, "shared_run": support.supported, "reason": support.reason}


def _no_defaults(error: ValidationError) -> str:
    """Why a backend's arguments cannot be made without a word from the user."""
    paths = [".".join(map(str, fault["loc"])) or "all together" for fault in error.errors(include_url=False)]
    return (
        f"its monitor_args have no default that will do: {', '.join(paths)}. Give them in a config, and "
        f"`rolecall check CONFIG` says what it will do"
    )


def _sharing(one: Mapping[str, Any]) -> tuple[str, str]:
    """Whether a backend shares runs, and the words for it."""
    if "error" in one:
        return "broken", one["error"]
    if one["shared_run"] is None:
        return "shared runs: depends", one["reason"]
    return ("shared runs" if one["shared_run"] else "no shared runs"), one["reason"]


def _indented(words: str, indent: int, width: int) -> str:
    """A paragraph that fits the terminal; commands and paths are not broken."""
    margin = " " * indent
    lines = textwrap.wrap(
        words,
        max(width, indent + 40),
        initial_indent=margin,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "".join(f"{line}\n" for line in lines)


# ----------------------------------------------------------------------- check


def _check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="a YAML file, ours or with ours under its key `monitor`")
    parser.add_argument("--json", action="store_true", help="for scripts")


def _check(options: argparse.Namespace) -> int:
    config = MonitorConfig.load(options.config)
    plan = resolve(config)
    downgrades = [{"backend": d.backend, "setting": d.setting, "reason": d.reason} for d in plan.downgrades]
    backends = [{"backend": b.backend, "shared": b.shared, "courier": b.courier} for b in plan.backends]
    if options.json:
        print(json.dumps({"backends": backends, "downgrades": downgrades}, indent=2))
        return 0
    print(f"{config.project} / {config.name} in {config.monitor_dir}")
    for one in plan.backends:
        print(f"  {one.backend}: {_run_words(one.shared)}, {_courier_words(one.courier)}")
    if plan.disabled:
        print("  monitoring is off")
    for downgrade in plan.downgrades:
        print(f"  downgraded: {downgrade}")
    return 0


def _run_words(shared: bool) -> str:
    return "one run, shared by all roles" if shared else "a run for each role"


def _courier_words(carrier: str) -> str:
    where = {"process": "carried by a process beside each role", "thread": "carried by a thread of each role"}
    return where.get(carrier, "nothing to carry: the journal is the run")


# ------------------------------------------------------------------------ demo


def _demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--monitor-type", help="backends, separated by commas (local, and tensorboard if installed)"
    )
    parser.add_argument("--monitor-args", default="{}", help="their arguments, as YAML or JSON")
    parser.add_argument("--shared-run", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--steps", type=_positive, help="rounds of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--monitor-dir", type=Path, help="by default a new one below ./rolecall-demo")


def _demo(options: argparse.Namespace) -> int:
    from rolecall.demo import options_of, run_demo

    types = tuple(options.monitor_type.split(",")) if options.monitor_type else None
    run_demo(
        options_of(
            monitor_type=types,
            monitor_args=_mapping("--monitor-args", options.monitor_args),
            shared_run=options.shared_run,
            steps=options.steps,
            seed=options.seed,
            monitor_dir=options.monitor_dir,
        )
    )
    return 0


# ------------------------------------------------------------------------ show


def _show_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, help="the monitor_dir of a job")
    parser.add_argument(
        "--metric", action="append", default=[], help="chart these, a pattern such as 'explorer/*'"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a summary, for scripts")
    form.add_argument("--csv", action="store_true", help="every value, for scripts")


def _show(options: argparse.Namespace) -> int:
    from rolecall.cli.show import show, show_csv, show_json

    if options.json:
        show_json(options.directory)
    elif options.csv:
        show_csv(options.directory)
    else:
        show(options.directory, options.metric)
    return 0


# --------------------------------------------------------------------- deliver


def _deliver_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, help="the monitor_dir of a job")
    parser.add_argument("--to", help="copy the job to this backend; by default what its own lack is sent")
    parser.add_argument(
        "--args",
        default="{}",
        help=f"the backend's arguments, as YAML or JSON, where the job's lack; secrets better in {ARGS}",
    )
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds after which to give up (600)")


def _deliver(options: argparse.Namespace) -> int:
    from rolecall.cli.progress_bar import bars
    from rolecall.delivery.redeliver import Listener, deliver

    if options.to:
        _check_backend("--to", options.to)
    args = _deliver_args(options)
    with bars() as show:
        left = deliver(options.directory, options.to, args, options.timeout, Listener(_tell, show))
    for one in left:
        print(f"{one.writer}: {one.rows} rows are not in {one.backend}", file=sys.stderr)
    print("something is left; run the same again later" if left else "all rows are delivered")
    return 1 if left else 0


def _deliver_args(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """By backend; what the command line says wins over the environment, which a list of processes does not show."""
    args: dict[str, dict[str, Any]] = {}
    for option, text in ((ARGS, os.environ.get(ARGS, "{}")), ("--args", options.args)):
        given = _mapping(option, text)
        keyed = {options.to: given} if options.to and options.to not in given else given
        for name, values in keyed.items():
            args[name] = {**args.get(name, {}), **values}
    return args


def _check_backend(option: str, name: str) -> None:
    """Tell of a backend that cannot be delivered to by the option that named it."""
    if name in (LOCAL, NONE):
        raise ConfigError(f"{option}: {name!r} is no place to deliver to; name another backend")
    try:
        Registry().load(name)
    except BackendError as error:
        raise type(error)(f"{option}: {error}") from error.__cause__


def _tell(news: News) -> None:
    if news.kind not in ("ended", "opened", "prepared", "progress"):
        print(f"{news.writer}: {news.backend}: {news.kind} {news.message}", file=sys.stderr)


# ------------------------------------------------------------------ their values


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1")
    return value


def _mapping(option: str, text: str) -> dict[str, Any]:
    value = parse_yaml(text, option)
    if not isinstance(value, dict):
        raise ConfigError(f"{option}: must be a mapping such as '{{uri: sqlite:///runs.db}}', not {text!r}")
    return {str(key): item for key, item in value.items()}
