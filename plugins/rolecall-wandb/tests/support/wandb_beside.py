"""Runs `wandb_same.py` with the plain SDK and through rolecall, and says where two stored runs differ."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from wandb_emulator import StoredRun, WandbServer

from rolecall import MonitorConfig, launch

__all__ = [
    "REMOTE",
    "SAME",
    "SUPPORT",
    "differences",
    "make_repository",
    "own_runs",
    "run_plain",
    "run_through_rolecall",
    "view",
]

SUPPORT = Path(__file__).parent
SAME = (str(SUPPORT / "wandb_same.py"),)
REMOTE = "https://git.example.org/team/trainer.git"
GIT = ("git", "-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "init.defaultBranch=main")
CLOCK = len("2026-01-01T00:00:00.000000 ")

Finished = subprocess.CompletedProcess[str]


def make_repository(directory: Path) -> str:
    """A working copy with a remote; the commit."""
    directory.mkdir(parents=True)
    (directory / "train.py").write_text("import wandb_same\nwandb_same.main()\n")
    for command in (["init", "-q"], ["remote", "add", "origin", REMOTE], ["add", "."], ["commit", "-qm", "one"]):
        subprocess.run([*GIT, *command], cwd=directory, check=True)
    commit = subprocess.run([*GIT, "rev-parse", "HEAD"], cwd=directory, check=True, capture_output=True, text=True)
    return commit.stdout.strip()


def run_plain(*command: str) -> Finished:
    """A Python command line that uses the SDK alone."""
    return _run(command, {"WANDB_SAME": "plain"})


def run_through_rolecall(config: MonitorConfig, *command: str) -> Finished:
    """The same command line as a role of a job."""
    with launch(config) as job:
        return _run(command, {"WANDB_SAME": "rolecall", **job.config.to_env()})


def _run(command: Sequence[str], variables: Mapping[str, str]) -> Finished:
    environ = {**os.environ, "PYTHONPATH": str(SUPPORT), **variables}
    return subprocess.run([sys.executable, *command], env=environ, capture_output=True, text=True, check=False)


def own_runs(server: WandbServer) -> list[StoredRun]:
    """The server's runs, less what only holds files of artifacts."""
    return [run for run in server.runs.values() if run.upserts]


def view(run: StoredRun) -> dict[str, str]:
    """All that reached the server of a run, each value by its place; how it was cut into requests is left out."""
    whole = {
        "upserts": {key: value for upsert in run.upserts for key, value in upsert.variables.items()},
        "named": run.named,
        "project": run.project,
        "entity": run.entity,
        "state": run.state,
        "exits": [code for _, _, code in run.exits],
        "config": _anonymous(run.config),
        "history": [entry.line for entry in run.history],
        "summary": run.summary,
        "console": [line[CLOCK:] for lines in run.console.values() for line in lines],
        "files": {name: _content(name, content) for name, content in sorted(run.files.items())},
        "uploaded": sorted({name for _, _, post in run.posts for name in post.get("uploaded") or ()}),
    }
    return dict(_leaves(whole, ""))


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Each place where two views differ, and both values."""
    places = sorted(ours.keys() | theirs.keys())
    pairs = {place: (ours.get(place, "nothing"), theirs.get(place, "nothing")) for place in places}
    return {place: pair for place, pair in pairs.items() if pair[0] != pair[1]}


def _anonymous(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config, with the environment not under its writer's random name."""
    own = dict(config.get("_wandb", {}).get("value", {}))
    if "e" in own:
        own["e"] = list(own["e"].values())
    return {**config, "_wandb": {"value": own}}


def _content(name: str, content: bytes) -> Any:
    if name.endswith(".yaml"):
        return _anonymous(yaml.safe_load(content))
    if name.endswith(".json"):
        return json.loads(content)
    lines = content.decode().splitlines()
    return sorted(lines) if name == "requirements.txt" else lines


def _leaves(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Values by their places, written out: so NaN equals NaN, and 1 is not 1.0."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{place}|{key}" if place else str(key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, f"{place}|{index}")
    else:
        yield place, repr(value)
