"""Check that a wandb server supports what a shared run needs, with a small run.

docs/wandb.md says what is not known of the hosted server. This command finds it out for yours: it opens a run in the
project `rolecall-check` with the plugin's own code, writes to it as a launcher and two roles, and prints what the
server holds. The run is not deleted, so that you can look at it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rolecall import BackendRefused, Row, RunTicket, Unavailable
from rolecall_wandb.args import WandbArgs
from rolecall_wandb.definitions import stored_bindings
from rolecall_wandb.plugin import open_run, supports_shared_run
from rolecall_wandb.server import RunPath, RunState, Server, server_of
from rolecall_wandb.shared import SharedRun
from rolecall_wandb.watch import until

__all__ = ["Finding", "check", "main"]

ROWS: Final = 20
WAIT: Final = 60.0
MANY_STEPS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """A question, what the server did, and whether a shared run works with that."""

    question: str
    answer: str
    good: bool = True

    def __str__(self) -> str:
        return f"{'ok ' if self.good else 'NO '} {self.question}: {self.answer}"


def main(given: Sequence[str] | None = None) -> int:
    """Run all checks and print the answers; the exit status is 0 if all are good, 1 if not, 2 if none could be run."""
    parser = argparse.ArgumentParser(prog="rolecall-wandb", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base-url", help="URL of the server (default: the one that the SDK uses)")
    parser.add_argument("--entity", help="team or user (default: the default of the API key)")
    options = parser.parse_args(given)
    try:
        args = WandbArgs(base_url=options.base_url, entity=options.entity)
        findings = []
        for finding in check(args):
            findings.append(finding)
            sys.stdout.write(f"{finding}\n")
            sys.stdout.flush()
    except (BackendRefused, Unavailable, ValueError) as error:
        sys.stderr.write(f"rolecall-wandb: {error}\n")
        return 2
    return 0 if all(finding.good for finding in findings) else 1


def check(args: WandbArgs) -> Iterator[Finding]:
    """Run the checks, one after the other.

    Raises:
        BackendRefused, Unavailable: the server cannot be used at all.
    """
    support = supports_shared_run(args)
    yield Finding("can a run be shared with this configuration", support.reason or "yes", support.supported)
    if support.supported:
        with tempfile.TemporaryDirectory(prefix="rolecall-wandb-") as directory:
            yield from _Trial(args, Path(directory)).run()


class _Trial:
    """One run, written to by a launcher and two roles in this process."""

    def __init__(self, args: WandbArgs, directory: Path) -> None:
        self._args = args
        self._directory = directory
        self._id = uuid.uuid4().hex[:12]
        self._server: Server = server_of(args)
        self._path: RunPath

    def run(self) -> Iterator[Finding]:
        launcher = self._open(None)
        yield Finding("a run was opened", launcher.url or launcher.id)
        self._path = launcher.path
        launcher.define({"trainer/loss": "trainer/step"})
        yield self._stored("does the server keep definitions in the run's config", {"trainer/loss"}, launcher.tend)
        trainer = self._open("trainer")
        yield self._policy()
        yield from self._write(trainer, "trainer")
        explorer = self._open("explorer/0")
        yield from self._write(explorer, "explorer/0")
        for role in (trainer, explorer):
            role.close("finished")
        launcher.define({"explorer/0/loss": "explorer/0/step"})
        launcher.close("finished")
        yield from self._look_back()

    def _write(self, run: SharedRun, writer: str) -> Iterator[Finding]:
        run.define({"trainer/loss": "trainer/step", "explorer/0/loss": "explorer/0/step"})
        began = time.monotonic()
        run.log([_row(writer, seq) for seq in range(1, ROWS + 1)])
        held = until(lambda: self._held(run, writer), WAIT)
        took = f"after {time.monotonic() - began:.1f} s"
        yield Finding(f"does it show the progress of {writer} while the run is open", took if held else "no", held)

    def _held(self, run: SharedRun, writer: str) -> bool:
        run.tend()
        return run.confirmed(writer, 1) == ROWS

    def _policy(self) -> Finding:
        # The first upload of a writer that joins has no definitions, so it shows whether the server merges configs.
        kept = "trainer/loss" in stored_bindings(self._look().config)
        return Finding("what happens to a writer's config when another joins", "merged" if kept else "replaced")

    def _stored(self, question: str, keys: set[str], meanwhile: Callable[[], None] = lambda: None) -> Finding:
        def is_stored() -> bool:
            meanwhile()
            return keys <= stored_bindings(self._look().config).keys()

        found = until(is_stored, WAIT)
        return Finding(question, "yes" if found else f"not within {WAIT:.0f} s", found)

    def _look_back(self) -> Iterator[Finding]:
        keys = {"trainer/loss", "explorer/0/loss"}
        yield self._stored("are all keys bound to their axes at the end", keys)
        counts = self._look().counts
        answer = "no, so the courier has to read lines back" if counts is None else "yes"
        yield Finding("does it count the lines that have a key", answer)
        lines = until(lambda: self._look().lines == 2 * ROWS, WAIT)
        yield Finding("does it hold every row of both roles", f"{self._look().lines} of {2 * ROWS}", lines)
        # Steps that are far apart are read in pages of many steps.
        shown = len(self._server.page(self._path, 0, MANY_STEPS))
        yield Finding("does a page of many steps have all lines", f"{shown} of {2 * ROWS}", shown == 2 * ROWS)
        summary = self._look().summary
        yield Finding(
            "does the summary hold both roles' last values", str(keys <= summary.keys()), keys <= summary.keys()
        )
        state = self._look().state
        yield Finding("which state does the run end with", state, state == "finished")

    def _look(self) -> RunState:
        return self._server.look_up(self._path, summary=True, config=True, counts=True) or RunState()

    def _open(self, writer: str | None) -> SharedRun:
        run: Any = open_run(self._ticket(writer), self._args)
        if not isinstance(run, SharedRun):
            raise BackendRefused("wandb is not online; set monitor_args.mode to online")
        return run

    def _ticket(self, writer: str | None) -> RunTicket:
        return RunTicket(
            project="rolecall-check",
            name=f"check {self._id}",
            group=None,
            run_id=self._id,
            backend_run_id=None,
            shared=True,
            primary=writer is None,
            writer=writer,
            role=writer,
            config={"by": "rolecall-wandb"},
            directory=self._directory,
            pid=0,
        )


def _row(writer: str, seq: int) -> Row:
    metrics = {f"{writer}/loss": 1 / seq, f"{writer}/step": seq}
    return Row(writer=writer, session=1, seq=seq, step=seq, time=time.time(), metrics=metrics)


if __name__ == "__main__":
    sys.exit(main())
