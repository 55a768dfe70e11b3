"""Roles as Ray tasks and actors, on nodes that have nothing in common but Ray.

Two kinds of actors carry what roles wrote to files of their nodes. The `Hub` is on the launcher's node and writes below
`monitor_dir`. On each node with a role there is a `Forwarder`, which sends the node's journals to the hub. Both start
on demand, take no CPU of the cluster's, are detached, so that they outlive the driver, and are started again if they
die. They are in the namespace `rolecall` under the names `RUN_ID/hub` and `RUN_ID/NODE_ID`, so that jobs and other
users of a cluster are not in each other's way.

Whoever needs one of them and finds none makes it: a role the forwarder of its node, a forwarder the hub, and the hub
the forwarder of a node with a live session from which it hears nothing.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rolecall import timings
from rolecall.config.spec import JobSpec
from rolecall.delivery.relay.forward import Batch, Outbox, Reply, begin_on_node, on_node
from rolecall.delivery.relay.hub import Answer, Inbox, Opened, Opening
from rolecall.errors import ConfigError, DirectoryError, RolecallError, WriterConflict
from rolecall.store.layout import LAUNCH, Layout
from rolecall.store.lease import Owner, Session, claim, end, is_held, this_process
from rolecall.store.spool import make_node_folder, node_folder

logger = logging.getLogger("rolecall")

NAMESPACE: Final = "rolecall"
_THREADS: Final = 32
"""Calls that the hub serves at once. Some of them wait: for a role that is dying, or for a node."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a job's hub is, and what it takes to start it.

    Attributes:
        run_id: the job.
        node: Ray's id of the launcher's node.
        root: the job's `monitor_dir` there.
        spool: the directory in which each node keeps its journals; `None` for one in its temporary directory.
    """

    run_id: str
    node: str
    root: str
    spool: str | None


def this_node() -> str:
    """Ray's id of the node of this process.

    Raises:
        ConfigError: this process is no part of a Ray cluster, or is connected from outside of it.
    """
    if not ray.is_initialized():
        raise ConfigError("transport: ray: Ray is not initialised in this process; call ray.init() before")
    if ray.util.client.ray.is_connected():
        what = "this process is connected to the cluster from outside (ray://), and so is on none of its nodes"
        raise ConfigError(f"transport: ray: {what}; launch in a task or an actor, or submit the job to the cluster")
    return str(ray.get_runtime_context().get_node_id())


def start_hub(spec: JobSpec) -> None:
    """Start the hub of a job on this node, or go on with the one that an earlier launcher left.

    Raises:
        ConfigError: another job of this cluster has the same run id.
        DirectoryError: the hub cannot be started.
    """
    address = _address(spec)
    try:
        deadline = time.monotonic() + max(timings.HUB_TIMEOUT, spec.open_timeout)
        root, node = _ask(partial(_hub, address), "place", deadline=deadline)
        if root == address.root and node != address.node:
            # The launcher has moved to another node: what the forwarders sent is in the same directory.
            ray.kill(_hub(address))
            root, _ = _ask(partial(_hub, address), "place", deadline=deadline)
    except (RayError, TimeoutError) as error:
        raise DirectoryError(f"transport: ray: the hub of {address.root} cannot be started: {error}") from error
    if root != address.root:
        what = f"run_id {address.run_id!r}: another job of this Ray cluster has it, in monitor_dir {root}"
        raise ConfigError(f"{what}. Use another run_id, or none")


def settle(spec: JobSpec, timeout: float) -> None:
    """Have all nodes send what they have, and end the sessions of roles that are gone."""
    if not ray.is_initialized():  # asking would start a cluster of one's own
        logger.warning("Ray was shut down before the job was closed: what was still on its nodes is not here")
        return
    with suppress(RayError, TimeoutError):
        _ask(partial(_hub, _address(spec)), "settle", timeout, deadline=time.monotonic() + timeout)


@dataclass(frozen=True, slots=True)
class RoleSession:
    """A session that the hub has opened for a role of this node.

    Attributes:
        layout: where the roles of this node write.
        session: the journal there.
        opened: what the hub said.
        owner: who has the session.
    """

    layout: Layout
    session: Session
    opened: Opened
    owner: Owner


def open_session(
    spec: JobSpec, writer: str, header: Mapping[str, Any], tags: Sequence[str], timeout: float
) -> RoleSession:
    """Claim a writer's name at the hub, and begin its journal on this node.

    Raises:
        WriterConflict: another live process has this name.
        ConfigError: this process is no part of a Ray cluster.
        DirectoryError: the hub or this node's forwarder does not answer, or the journal cannot be written here.
    """
    address, node = _address(spec), this_node()
    deadline = time.monotonic() + timeout + timings.STALE  # in which an earlier process may show whether it lives
    token, owner = uuid.uuid4().hex, this_process()
    opening = Opening(writer=writer, node=node, token=token, owner=owner, header=header, tags=tuple(tags))
    _forwarder(address, node)  # it starts meanwhile
    try:
        opened = _ask(partial(_hub, address), "open", opening, deadline=deadline)
        layout = Layout(Path(_ask(partial(_forwarder, address, node), "begin", deadline=deadline)))
    except (RayError, TimeoutError) as error:
        what = f"no answer from the job's hub on Ray's node {address.node}, or from the forwarder of this one"
        raise DirectoryError(f"transport: ray: {what}: {error or 'it takes too long'}") from error
    try:
        session = begin_on_node(layout, writer, opened.number, opened.line)
    except OSError as error:
        _hub(address).give_up.remote(writer, opened.number)
        raise DirectoryError(f"spool_dir {layout.root}: cannot be written: {error.strerror}") from error
    if opened.warning:
        logger.warning("%s", opened.warning)
    return RoleSession(layout, session, opened, on_node(owner, node))


class Hub:
    """Writes what forwarders send to the job's `monitor_dir`."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._layout = Layout(Path(address.root))
        self._lease = _claim_place(self._layout)
        self._inbox = Inbox(self._layout, self._lease.number)
        self._me = ray.get_runtime_context().current_actor
        threading.Thread(target=self._tend, name="rolecall-hub", daemon=True).start()

    def place(self) -> tuple[str, str]:
        """The `monitor_dir`, and Ray's id of this node."""
        return self._address.root, self._address.node

    def greet(self, node: str, files: Iterable[str]) -> tuple[int, dict[str, int]]:
        """As `Inbox.greet`."""
        return self._inbox.greet(node, files)

    def take(self, node: str, batch: Batch) -> Reply:
        """As `Inbox.take`."""
        return self._inbox.take(node, batch)

    def open(self, opening: Opening) -> Opened:
        """As `Inbox.open`."""
        return self._inbox.open(opening, self._ask)

    def give_up(self, writer: str, number: int) -> None:
        """As `Inbox.give_up`."""
        self._inbox.give_up(writer, number)

    def settle(self, timeout: float) -> None:
        """Have all nodes send what they have, within some seconds."""
        deadline = time.monotonic() + timeout
        while True:
            self._lose_nodes(-1.0)
            asked = [_forwarder(self._address, node).settle.remote() for node in self._inbox.silent(-1.0)]
            if asked:
                ray.wait(asked, num_returns=len(asked), timeout=max(0.0, deadline - time.monotonic()))
            # A forwarder may have died just now.
            if all(map(_is_done, asked)) or time.monotonic() >= deadline:
                return
            time.sleep(timings.RETRY.initial)

    def _ask(self, node: str, session: Session) -> Answer:
        """How the process of a session does."""
        if node not in _live_nodes():
            return "lost"
        try:
            asked = _forwarder(self._address, node).outlives.remote(session.owner())
            return "alive" if ray.get(asked, timeout=timings.OPEN_TIMEOUT) else "dead"
        except (RayError, TimeoutError):
            return "unknown" if node in _live_nodes() else "lost"

    def _tend(self) -> None:
        """Look after the nodes, and end when there is nothing more to do."""
        alone_since: float | None = None
        while True:
            time.sleep(timings.HUB_INTERVAL)
            try:
                self._lose_nodes(timings.HEARTBEAT + timings.HUB_INTERVAL)
                is_launched = is_held(self._layout.journal(LAUNCH))
                alone_since = None if is_launched else alone_since or time.monotonic()
                if alone_since is None:
                    continue
                alone = time.monotonic() - alone_since
                if alone > timings.HUB_ALONE or (alone > timings.HUB_INTERVAL and self._inbox.is_done()):
                    break
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look may be better
                logger.warning("the hub of %s: %s", self._address.root, error)
        with suppress(OSError, RayError):
            for node in self._inbox.silent(-1.0):
                ray.kill(_forwarder(self._address, node))
        with suppress(OSError):
            end(self._lease, "finished")
        ray.kill(self._me)

    def _lose_nodes(self, silence: float) -> None:
        """See to the nodes that were silent for so long: start their forwarder again, or end their sessions."""
        silent = self._inbox.silent(silence)
        alive = _live_nodes() if silent else set()
        for node in silent:
            if node in alive:
                _forwarder(self._address, node)
            elif lost := self._inbox.lose(node):
                who = ", ".join(sorted(lost))
                what = "rows that they logged in the last %.0f s before that may be lost"
                logger.warning(f"Ray's node %s was lost with %s: {what}", node, who, max(lost.values()))  # noqa: G004


class Forwarder:
    """Sends the journals of one node to the hub."""

    def __init__(self, address: Address, node: str) -> None:
        self._address = address
        self._node = node
        self._spool = Path(address.spool) if address.spool else None
        self._outbox = Outbox(Layout(node_folder(self._spool, address.run_id, node)), node)
        self._me = ray.get_runtime_context().current_actor
        self._hub: Any = None
        self._generation = 0
        self._said: object = None
        self._spoken = self._answered = self._busy = time.monotonic()
        self._rounds = 0
        self._change = threading.Condition()
        self._is_asked = False
        threading.Thread(target=self._run, name="rolecall-forwarder", daemon=True).start()

    def begin(self) -> str:
        """Where a role of this node may begin a journal.

        Raises:
            DirectoryError: it cannot be used.
        """
        self._busy = time.monotonic()
        return str(make_node_folder(self._spool, self._address.run_id, self._node))

    def settle(self) -> None:
        """Send everything that there is now, and that it is all of the sessions that are over."""
        with self._change:
            # The round that is under way may have begun earlier. The next one sends what is left of a session that is
            # over, and the one after that says so.
            until, self._is_asked = self._rounds + 3, True
            self._change.notify_all()
            self._change.wait_for(lambda: self._rounds >= until, timings.OPEN_TIMEOUT)
            if self._rounds < until:
                raise TimeoutError

    def outlives(self, owner: Owner) -> bool:
        """Whether a process is still there after the moment that a dying one takes; else all that it wrote is sent."""
        deadline = time.monotonic() + timings.DYING
        while owner.is_running():
            if time.monotonic() >= deadline:
                return True
            time.sleep(timings.POLL_INTERVAL)
        self.settle()
        return False

    def _run(self) -> None:
        wait = timings.RETRY.initial
        while True:
            try:
                has_more = self._forward()
                wait = timings.RETRY.initial
            except Exception as error:  # noqa: BLE001 - whatever it is, the rows are here, and nobody else sends them
                logger.debug("the hub does not answer: %s", error)
                self._hub, self._generation = None, 0
                if time.monotonic() - self._answered > timings.HUB_ALONE:
                    break
                time.sleep(wait)
                wait = min(2 * wait, timings.HEARTBEAT)
                continue
            if has_more:
                self._busy = time.monotonic()
                continue
            if self._rest():
                break
        ray.kill(self._me)

    def _forward(self) -> bool:
        """Send one batch, if there is anything to say; whether there may be more."""
        if self._hub is None:
            self._hub = _hub(self._address)
        if not self._generation:
            greeting = self._hub.greet.remote(self._node, self._outbox.files())
            self._generation, held = ray.get(greeting, timeout=timings.EXPORT_TIMEOUT)
            self._outbox.greet(held)
        batch = self._outbox.batch(self._generation)
        said = (tuple(batch.live), tuple(batch.over))
        now = time.monotonic()
        if batch.pieces or said != self._said or now - self._spoken >= timings.HEARTBEAT:
            # One at a time: what waits is on the disk, and not in memory.
            reply = ray.get(self._hub.take.remote(self._node, batch), timeout=timings.EXPORT_TIMEOUT)
            if reply.is_refused:
                self._generation = 0
                return True
            self._outbox.take(reply)
            self._said, self._spoken = said, now
        self._answered = now
        if batch.is_all:
            with self._change:
                self._rounds += 1
                self._change.notify_all()
        # What was sent just now may be all of a session that has ended: then it can be said that it is over.
        return bool(batch.pieces)

    def _rest(self) -> bool:
        """Wait a moment after a round that found nothing more; whether there is nothing left to wait for."""
        with self._change:
            self._change.wait_for(lambda: self._is_asked, timings.FORWARD_INTERVAL)
            self._is_asked = False
        if not self._outbox.is_empty():
            self._busy = time.monotonic()
        return time.monotonic() - self._busy > timings.FORWARDER_IDLE


def _claim_place(layout: Layout) -> Session:
    """The hub's lease; one that was killed may take a moment to die."""
    deadline = time.monotonic() + timings.DYING
    while True:
        try:
            return claim(layout.hub, {}, "the hub's place")
        except WriterConflict:
            if time.monotonic() >= deadline:
                raise
            time.sleep(timings.POLL_INTERVAL)


def _address(spec: JobSpec) -> Address:
    if spec.hub is None:
        raise ConfigError("transport: ray: the job was launched without Ray; call ray.init() before rolecall.launch")
    return Address(spec.run_id, spec.hub, str(spec.monitor_dir), str(spec.spool_dir) if spec.spool_dir else None)


def _hub(address: Address) -> Any:
    """The job's hub, which is started if there is none."""
    return _actor(Hub, f"{address.run_id}/hub", address.node, _THREADS).remote(address)


def _forwarder(address: Address, node: str) -> Any:
    """The forwarder of a node, which is started if there is none."""
    return _actor(Forwarder, f"{address.run_id}/{node}", node, _THREADS // 4).remote(address, node)


def _actor(made: type, name: str, node: str, threads: int) -> Any:
    return ray.remote(made).options(
        name=name,
        namespace=NAMESPACE,
        get_if_exists=True,
        lifetime="detached",
        num_cpus=0,
        max_restarts=-1,
        max_concurrency=threads,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
    )


def _live_nodes() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _ask(find: Callable[[], Any], method: str, *arguments: object, deadline: float) -> Any:
    """What a call of an actor returns, which is found, and asked, again if it dies."""
    while True:
        try:
            return _result(getattr(find(), method).remote(*arguments), max(1.0, deadline - time.monotonic()))
        except (ActorDiedError, ActorUnavailableError):
            if time.monotonic() >= deadline:
                raise
            time.sleep(timings.RETRY.initial)


def _is_done(reference: Any) -> bool:
    """Whether a call has returned."""
    try:
        ray.get(reference, timeout=0.0)
    except (RayError, TimeoutError):
        return False
    return True


def _result(reference: Any, timeout: float) -> Any:
    """What a call returned; an error of rolecall's as it was raised.

    Not by `ray.get`, which warns in an async actor.
    """
    try:
        return reference.future().result(timeout)
    except RayTaskError as error:
        if isinstance(error.cause, RolecallError):
            raise error.cause from None
        raise
