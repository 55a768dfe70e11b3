"""The agent of a node: `python -m rolecall.delivery.node.agent`.

There is one for each node and job: the process that has the agent's place there, a lock on a file. A role takes it and
starts the agent, and another role does so if that dies. Its lease is the journal of the writer `node/{host}`, where it
logs what it measures. For roles without a courier it does what couriers do beside delivering: it copies what they
spooled, and shows other nodes that they are alive. It ends once no role lives on the node.
"""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rolecall import timings
from rolecall.config.model import MonitorConfig
from rolecall.config.plan import BackendPlan
from rolecall.config.spec import JobSpec
from rolecall.delivery.events import CourierEvent
from rolecall.delivery.group import Assignment, CourierGroup
from rolecall.delivery.node.local import LocalRoles, agent_names
from rolecall.delivery.node.sampler import Sampler
from rolecall.delivery.process import print_to
from rolecall.errors import WriterConflict
from rolecall.store.details import earlier_steps
from rolecall.store.journal import JournalWriter
from rolecall.store.layout import Layout
from rolecall.store.lease import Session, claim, newest
from rolecall.store.spool import is_spooled, open_spool, succeed_in

logger = logging.getLogger("rolecall.agent")


def main() -> None:
    """Read which job it is from standard input, and work until no role of it lives here."""
    # Ctrl-C in a terminal is for the roles; they end, and so does this.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    task = json.loads(sys.stdin.buffer.readline())
    os.set_inheritable(task["place"], False)  # nothing that this process starts is to keep it
    spec = MonitorConfig.from_env(task["env"]).spec()
    print_to(Path(task["log"]))
    agent = Agent(spec, task["without"], task["place"])
    signal.signal(signal.SIGTERM, lambda *_: agent.hurry())
    if not agent.run():
        # As in `rolecall.delivery.process`: a backend's call hangs on its thread.
        os._exit(1)


class Agent:
    """What the process does.

    Args:
        spec: the job.
        without: the job's backends that no other process than a role's finds: they get nothing of what is measured.
        place: of `take_agents_place`.
    """

    def __init__(self, spec: JobSpec, without: Sequence[str], place: int) -> None:
        self._spec = spec
        self._place = place
        self._plans = spec.plan.backends
        self._without = without
        self._layout = Layout(spec.monitor_dir)
        self._roles = LocalRoles(spec, _note)
        self._over = threading.Event()
        self._couriers: CourierGroup | None = None
        self._is_whole = True

    def run(self) -> bool:
        """Work until no role lives on this node; `False` if a backend hung and was left behind."""
        self._roles.recover()
        if not self._roles.tend() or (name := self._claim()) is None:
            return True
        self._couriers = self._couriers_of(name)
        # A thread each: the directory may not answer for minutes, and backends for longer.
        sampling, delivering = (threading.Thread(target=each, daemon=True) for each in (self._sample, self._deliver))
        sampling.start()
        delivering.start()
        while self._roles.tend():
            time.sleep(timings.AGENT_INTERVAL)
        self._over.set()
        sampling.join()
        self._end_journal()
        os.close(self._place)  # a role that comes now has an agent of its own, while this one may deliver for minutes
        while delivering.is_alive() and self._is_there(name):
            delivering.join(timings.AGENT_INTERVAL)
        self._roles.stop()
        return self._is_whole and not delivering.is_alive()

    def hurry(self) -> None:
        """The node is about to be taken away: leave the couriers little time."""
        if self._couriers is not None:
            self._couriers.hurry(timings.PREEMPTION_TIMEOUT)

    def _claim(self) -> str | None:
        """The name under which this is the agent of the node; `None` if there is one."""
        for name in agent_names():
            journal = self._layout.journal(name)
            header = {
                "writer": name,
                "opened": time.time(),
                "steps": earlier_steps(journal),
                "without": [*self._without, *(each.backend for each in self._plans if not self._is_for(each))],
                **({"spool": self._spec.nonce} if is_spooled(self._spec) else {}),
            }
            try:
                session = claim(journal, header, f"the name {name!r}")
            except WriterConflict:
                holder = newest(journal)
                owner = holder.owner() if holder is not None else None
                if owner is None or owner.is_here():
                    return None
                continue  # it is a machine or a container of the same name
            self._open(name, session, header)
            return name
        return None

    def _open(self, name: str, session: Session, header: Mapping[str, Any]) -> None:
        place = open_spool(self._spec, name, session) if is_spooled(self._spec) else session
        succeed = partial(succeed_in, self._spec, name, header)
        self._journal = JournalWriter(place, header["steps"], succeed)
        self._roles.add_own(name)

    def _is_there(self, name: str) -> bool:
        """Whether the job was not deleted: its couriers would wait for the end of a journal that nobody can read."""
        try:
            return newest(self._layout.journal(name)) is not None
        except OSError:
            return True

    def _end_journal(self) -> None:
        try:
            self._journal.end("finished")
        except OSError as error:  # a full disk, for one: the lease is free once this process has ended
            logger.warning("the end of the journal could not be written: %s", error)

    def _is_for(self, plan: BackendPlan) -> bool:
        """Whether a backend gets what is measured."""
        if not self._spec.plan.system_metrics or plan.measures:
            return False
        # The console is the role's own, unless a relay prints for all.
        return plan.relayed or self._spec.registry.load(plan.backend).portable

    def _sample(self) -> None:
        if not self._spec.plan.system_metrics:
            return
        sampler = Sampler(self._journal.session.path.parent)
        wait = timings.FIRST_SAMPLE
        while not self._over.wait(wait):
            pids = {f"process/{writer}": pid for writer, pid in self._roles.pids.items()}
            try:
                self._journal.append(sampler.sample(pids))
            except OSError as error:
                logger.warning("a sample could not be written: %s", error)
            wait = timings.SAMPLE_INTERVAL

    def _couriers_of(self, name: str) -> CourierGroup | None:
        assignments = [Assignment(name, each) for each in self._spec.plan.of(launcher=False) if self._is_for(each)]
        # There are four rows a minute.
        return CourierGroup(self._spec, [name], assignments, _note, timings.AGENT_INTERVAL) if assignments else None

    def _deliver(self) -> None:
        if self._couriers is not None:
            self._is_whole = self._couriers.run()


def _note(event: CourierEvent) -> None:
    """What happens goes to the log: a backend that is away is reported by the roles' own couriers."""
    if event.kind != "progress":
        logger.info("%s: %s %s", event.backend, event.kind, event.message)


if __name__ == "__main__":
    main()
