"""The launcher's place in a `monitor_dir`: which job is there, and whether it goes on or is set aside."""

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from rolecall import timings
from rolecall.config.model import MonitorConfig
from rolecall.config.plain import public_args
from rolecall.config.plan import Plan
from rolecall.config.spec import HandOver
from rolecall.errors import ConfigError, DirectoryError, WriterConflict
from rolecall.states import State
from rolecall.store.acks import leases
from rolecall.store.codec import folder_below, make_folder
from rolecall.store.layout import LAUNCH, Layout, RunRecord, read_record, usable, write_record
from rolecall.store.lease import Session, claim, end, held_now, newest, proves_alive, this_process

# What backends wrote goes with the job, or a new one's curves would run on from the old one's. The record goes last:
# while it is there, a launcher that dies half-way is followed by one that goes on with this.
_OURS: Final = ("journal", "axes", "delivery", "courier", "backends", "hub", "run.json")


@contextmanager
def launchers_place(config: MonitorConfig, plan: Plan, hub: str | None = None) -> Iterator[MonitorConfig]:
    """Keep other launchers out until it is clear which job goes on, and the block holds the launcher's session.

    Args:
        config: checked.
        plan: what will happen.
        hub: over Ray, where the job's hub will be.

    Yields:
        The config with the run's id and the plan, as it is in the record.

    Raises:
        WriterConflict: a launcher is alive, or an earlier job is still at work.
        ConfigError, DirectoryError: the job in the directory cannot go on with this config.
    """
    layout = Layout(config.monitor_dir)
    with usable(layout), _launching(layout):
        launcher = newest(layout.journal(LAUNCH))
        if launcher is not None and proves_alive(launcher, "the launcher's place"):
            raise WriterConflict(_alive(layout, launcher))
        before = read_record(layout)
        goes_on = _goes_on(config, before, is_finished=launcher is not None and launcher.status() == State.FINISHED)
        if before is not None and not goes_on:
            _set_aside(layout, before)
        run_id = before.run_id if before is not None and goes_on else config.run_id or uuid.uuid4().hex[:12]
        hand_over = HandOver(run_id=run_id, nonce=uuid.uuid4().hex, plan=plan, hub=hub)
        write_record(layout, _record(config, hand_over))
        yield config.handed(hand_over)


@contextmanager
def _launching(layout: Layout) -> Iterator[None]:
    launching = claim(layout.launching, {}, "the launcher's place")
    try:
        yield
    finally:
        end(launching, "finished")


def _record(config: MonitorConfig, hand_over: HandOver) -> RunRecord:
    return RunRecord(
        run_id=hand_over.run_id,
        nonce=hand_over.nonce,
        project=config.project,
        name=config.name,
        group=config.group,
        created=time.time(),
        spool_dir=str(config.spool_dir) if config.spool_dir else None,
        plan=hand_over.plan,
        args={name: public_args(model) for name, model in config.monitor_args.items()},
    )


def _alive(layout: Layout, launcher: Session) -> str:
    """That a launcher is alive, and what to do."""
    owner = launcher.owner()
    if owner == this_process():  # the cell of a notebook that was run again
        return (
            f"monitor_dir {layout.root}: this process has launched a job there and not closed it. Close that first "
            "(`close` of the job, or `finish` of what rolecall.init returned), or use another monitor_dir"
        )
    return (
        f"monitor_dir {layout.root}: a launcher is alive there ({owner or 'another process'}). Stop it, or use another "
        "monitor_dir"
    )


def _goes_on(config: MonitorConfig, before: RunRecord | None, *, is_finished: bool) -> bool:
    """Whether the job that was in the directory before goes on."""
    if config.resume == "must" and (before is None or is_finished):
        what = "the job there is finished" if before else "no job is there"
        raise DirectoryError(f"resume: must: {what} ({config.monitor_dir}); use resume: auto to start a new one")
    if before is None or config.resume == "never" or (config.resume == "auto" and is_finished):
        return False
    for setting in ("project", "run_id"):
        value, there = getattr(config, setting), getattr(before, setting)
        if value not in (None, there):
            what = f"monitor_dir {config.monitor_dir} holds a job with {setting} {there!r}, not {value!r}"
            advice = "to go on with it, or another monitor_dir (or resume: never) to start a new one"
            raise ConfigError(f"{setting}: {what}. Use {setting} {there!r} {advice}")
    return True


def _set_aside(layout: Layout, before: RunRecord) -> None:
    """Move what is ours below `previous/`, where it stays a monitor_dir of its own."""
    # A courier that still drains would go on below the new job: give it a moment to end.
    deadline = time.monotonic() + timings.QUIET_TIMEOUT
    at_work = leases(layout, [plan.backend for plan in before.plan.backends])
    at_work[layout.hub] = "the hub"
    while busy := held_now(at_work):
        if time.monotonic() >= deadline:
            who = f"{next(iter(busy.values()))} of the earlier job {before.run_id}"
            what = f"monitor_dir {layout.root}: {who} is still at work"
            raise WriterConflict(f"{what}. Wait for it to end, stop it, or use another monitor_dir")
        time.sleep(timings.POLL_INTERVAL)
    make_folder(layout.previous(before.run_id).parent)
    # By descriptors: somebody may put a symlink in the place of a directory after the looks above.
    with folder_below(layout.root) as root, folder_below(layout.root, "previous") as previous:
        target = _make_free(before.run_id, previous)
        with folder_below(layout.root, "previous", target) as place:
            for name in _OURS:
                with suppress(FileNotFoundError):
                    os.rename(name, name, src_dir_fd=root, dst_dir_fd=place)


def _make_free(name: str, parent: int) -> str:
    """Make a directory of this name, or with a number behind it if there is one."""
    free, number = name, 1
    while True:
        try:
            os.mkdir(free, dir_fd=parent)
        except FileExistsError:
            number += 1
            free = f"{name}-{number}"
        else:
            return free
