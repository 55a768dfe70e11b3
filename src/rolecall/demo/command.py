"""Run a small reinforcement-learning job of several processes, and monitor it.

Examples:
  rolecall demo
  rolecall demo --steps 4 --monitor-dir runs/demo
  rolecall demo --ray
  rolecall demo --monitor-type mlflow --monitor-args '{uri: "sqlite:///mlflow.db"}'
"""

import argparse
import os
import shutil
from argparse import BooleanOptionalAction
from collections.abc import Iterator
from pathlib import Path

from rolecall.backends.installed import install_hint
from rolecall.backends.registry import Registry
from rolecall.config.commands import command, with_path
from rolecall.config.loading import parse_mapping
from rolecall.demo.options import DemoResult, options_of, run_demo
from rolecall.demo.processes import RoleFailed


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    backends = "the backends, separated by commas (default: local, and tensorboard if its plugin is installed)"
    shared = "all roles write one run, where the backend can share one (default: one run, which a relay writes for "
    shared += "TensorBoard)"
    directory = "where the journals are written (default: a new one in ./rolecall-demo)"
    parser.add_argument("--monitor-type", help=backends)
    parser.add_argument("--monitor-args", default="{}", help="arguments of the backends, as YAML or JSON")
    parser.add_argument("--shared-run", action=BooleanOptionalAction, help=shared)
    parser.add_argument("--steps", type=int, help="rounds of training (default: 30)")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random (default: 0)")
    cluster = "run the roles on the Ray cluster of RAY_ADDRESS, or on one of two nodes that is started on this machine"
    parser.add_argument("--ray", action="store_true", help=cluster)
    parser.add_argument("--monitor-dir", type=Path, help=directory)


def run(options: argparse.Namespace) -> int:
    """Run the demo, and print where to look."""
    chosen = options_of(
        monitor_type=options.monitor_type.split(",") if options.monitor_type else None,
        monitor_args=parse_mapping("--monitor-args", options.monitor_args),
        shared_run=options.shared_run,
        steps=options.steps,
        seed=options.seed,
        monitor_dir=options.monitor_dir,
        ray=options.ray,
    )
    try:
        result = run_demo(chosen)
    except (KeyboardInterrupt, RoleFailed):
        if chosen.monitor_dir.exists():
            print(f"Stopped. To see what was logged: {_show_command(chosen.monitor_dir)}")
        raise
    print(*_where_to_look(result), sep="\n")
    return 0


def _where_to_look(result: DemoResult) -> Iterator[str]:
    if not result.urls:
        yield "\nMonitoring was off: nothing was recorded."
        return
    yield "\nLook at the run:"
    yield f"  {_show_command(result.directory)}"
    yield from (f"  {url}" for url in result.urls.values() if url is not None)
    if "tensorboard" not in Registry().names():
        yield f"\nTo see it in TensorBoard too, {install_hint('tensorboard')}"
    elif with_path("tensorboard .") == "tensorboard ." and shutil.which("tensorboard") is None:
        yield f"\nTensorBoard's viewer is not installed; run: {with_path('pip install tensorboard')}"
    yield "\nTo write such a job, start from the code of rolecall.demo.roles and rolecall.demo.job."


def _show_command(directory: Path) -> str:
    near = os.path.relpath(directory)
    return command("show", directory if near.startswith("..") else Path(near))
