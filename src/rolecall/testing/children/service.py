"""What the processes of a test do: hold one run of a backend, as a courier does, or read with the author's reader."""

import base64
import faulthandler
import gc
import importlib
import importlib.util
import json
import os
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from pydantic import BaseModel, TypeAdapter

from rolecall import protocol
from rolecall.backends.registry import Backend, Registry
from rolecall.backends.validation import OPTIONAL
from rolecall.config.model import MonitorConfig
from rolecall.delivery.check.compare import compare
from rolecall.delivery.check.points import PointTable
from rolecall.delivery.check.verify import targets
from rolecall.errors import Rejected
from rolecall.job.launch import Job, launch, open_monitor
from rolecall.protocol import Run, RunTicket
from rolecall.rows import Row
from rolecall.store.acks import read_reference, undelivered
from rolecall.store.layout import LAUNCH, Layout
from rolecall.testing.builders import HeldRun
from rolecall.testing.children.footprint import Footprint, hooks_cost, strange_modules

FORK, REAP = b"+", b"-"
"""What a `Nursery` asks for."""
TICKET = TypeAdapter(RunTicket)
ROWS = TypeAdapter(list[Row])
HELD = TypeAdapter(HeldRun)


def raise_children(descriptor: int, preload: Sequence[str]) -> None:
    """Fork a process for each `FORK` that comes, and reply with its number; end them with the connection."""
    # rolecall imports it when it loads a backend
    for module in ("packaging.requirements", *preload):
        importlib.import_module(module)
    gc.freeze()  # a collection in a child would write to every object, and so copy all memory of this process
    children: set[int] = set()
    connection = socket.socket(fileno=descriptor)
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
        except ConnectionResetError:  # the tests ended with an answer unread
            break
        if not data:
            break
        if data == REAP:
            _reap(children)
            continue
        if (pid := os.fork()) == 0:
            connection.close()
            _serve(socket.socket(fileno=descriptors[0]))
        os.close(descriptors[0])
        children.add(pid)
        connection.sendall(pid.to_bytes(8, "big"))
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _reap(children: set[int]) -> None:
    """Let go of those that have ended. Up to here, nobody else's process can have the number of one."""
    with suppress(ChildProcessError):  # there is none
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            children.discard(pid)


def _serve(connection: socket.socket) -> NoReturn:
    """Do what is asked for, until nobody asks any more."""
    os.setsid()
    service, file = Service(), connection.makefile("rb")
    for line in file:
        request = json.loads(line)
        try:
            reply = {"result": getattr(service, request["call"])(**request["given"])}
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything, and `sys.exit` is no end here
            reply = _raised(error)
        connection.sendall(json.dumps(reply, default=_plain).encode() + b"\n")
    os._exit(0)


def _raised(error: BaseException) -> dict[str, Any]:
    kinds = [kind.__name__ for kind in type(error).__mro__]
    where = "".join(traceback.format_exception(error, limit=-4))
    reply: dict[str, Any] = {"raised": f"{kinds[0]}: {error}\n\n{where}", "kinds": kinds}
    if isinstance(error, Rejected):
        reply |= {"rows": [(row.writer, row.session, row.seq) for row in error.rows], "reason": error.reason}
    return reply


class Service:
    """The functions that `Child.call` calls by name."""

    def __init__(self) -> None:
        self._run: Run | None = None
        self._footprint = Footprint()

    def settle(self, environ: Mapping[str, str], folder: str, path: Sequence[str], log: str) -> None:
        """Be where a test wants it."""
        os.environ.clear()
        os.environ.update(environ)
        sys.path[:] = path
        os.chdir(folder)
        tempfile.tempdir = None  # what it found before
        sys.dont_write_bytecode = True
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for standard in (1, 2):
            os.dup2(descriptor, standard)
        os.close(descriptor)
        faulthandler.register(signal.SIGUSR1, file=sys.stderr, all_threads=False)
        self._footprint.begin()

    # -------------------------------------------------------------- the hooks

    def names(self) -> list[str]:
        """Every backend that can be chosen."""
        return Registry().names()

    def remark(self, name: str, args: Mapping[str, Any]) -> str:
        """What the backend's authors should correct, though it works."""
        return _load(name).remark

    def hooks(self, name: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """What the hooks take, import and connect to that are called outside of couriers."""
        return hooks_cost(name, args)

    def strange_modules(self, name: str, args: Mapping[str, Any]) -> list[str]:
        """What these hooks import that is neither Python's, nor rolecall's, nor the plugin's."""
        return strange_modules(name, args)

    def arguments(self, name: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of the model, whether each is a secret, and what the model says of arguments."""
        model = _load(name).args_model()
        model.model_validate(dict(args))
        fields = {field: "Secret" in str(info.annotation) for field, info in model.model_fields.items()}
        return {"fields": fields, "takes_unknown": _takes(model, {**args, "no_such_argument_": 1})}

    def supports_shared_run(self, name: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """What the hook returns."""
        backend = _load(name)
        support = backend.supports_shared_run(_args(backend, args))
        return {"supported": support.supported, "reason": support.reason}

    # ---------------------------------------------------------------- the run

    def open_run(self, name: str, args: Mapping[str, Any], ticket: Mapping[str, Any]) -> dict[str, Any]:
        """Open a run, and say what it is."""
        self._backend = backend = _load(name)
        self._run = run = backend.open_run(_ticket(backend, ticket), _args(backend, args))
        return {
            "id": run.id,
            "url": run.url,
            "declares_axes": backend.declares_axes,
            "reads_back": backend.reads_back,
            "protocols": _protocols(run),
            "holds_text": getattr(run, "holds_text", True),
            "media_kinds": sorted(run.media_kinds) if isinstance(run, protocol.SupportsMedia) else [],
        }

    def log(self, rows: Sequence[Any]) -> None:
        """Hand over rows."""
        self._held().log(ROWS.validate_python(rows))

    def flush(self, timeout: float) -> None:
        """See `Run.flush`."""
        self._held().flush(timeout)

    def close(self, status: Any) -> None:
        """See `Run.close`."""
        self._held().close(status)

    def declare_axes(self, axes: Mapping[str, str]) -> None:
        """See the hook."""
        self._backend.declare_axes(self._held(), axes)

    def optional(self, method: str, arguments: Sequence[Any], rows: Sequence[Any] = ()) -> Any:
        """A method of the run that not every run has, of rows or of anything else."""
        return getattr(self._held(), method)(*arguments, *ROWS.validate_python(rows))

    def footprint(self) -> list[str]:
        """The files that were written, as far as Python sees it."""
        return self._footprint.written()

    def _held(self) -> Run:
        if self._run is None:
            raise RuntimeError("no run is open")
        return self._run

    # ------------------------------------------------------------ what is held

    def read(self, test: Mapping[str, str], reader: str, run: Mapping[str, Any]) -> Any:
        """What the author's reader returns."""
        made = _author(**test)()
        return getattr(made, reader)(HELD.validate_python(run))

    def readback(
        self, name: str, args: Mapping[str, Any], ticket: Mapping[str, Any], rows: Sequence[Any]
    ) -> dict[str, Any]:
        """What `open_readback` says that the run holds, and what of these rows it must hold."""
        backend = _load(name)
        with closing(backend.open_readback(_ticket(backend, ticket), _args(backend, args))) as readback:
            expected = [readback.expected(row) for row in ROWS.validate_python(rows)]
            scan = getattr(readback, "scan", None)
            return {
                "points": {key: list(readback.points(key)) for key in list(readback.keys())},
                "expected": [(key, row.step, value) for row in expected for key, value in row.metrics.items()],
                "scanned": None if scan is None else list(scan()),
            }

    def job(
        self, name: str, args: Mapping[str, Any], folder: str, shared: bool, steps: int, patience: float
    ) -> dict[str, Any]:
        """Run a job of two roles as a user does; what is not delivered, what `verify` finds, and the runs."""
        config = MonitorConfig(
            project="contract",
            name="job",
            monitor_type=name,
            monitor_args={name: dict(args)},
            shared_run=shared,
            monitor_dir=Path(folder),
            courier="thread",
        )
        with launch(config, run_config={"seed": 1}) as job:
            monitors = [open_monitor(job.config, role, run_config={"lr": 0.1}) for role in ("explorer", "trainer")]
            for step in range(1, steps + 1):
                for monitor in monitors:
                    monitor.log({"reward/mean": step / 8, "loss": 1 / step}, step=step)
            for monitor in monitors:
                monitor.close(timeout=patience)
        return _finished(job, name)


def _finished(job: Job, name: str) -> dict[str, Any]:
    layout = Layout(job.config.monitor_dir)
    is_shared = job.plan.shared(name)
    owners = {writer: LAUNCH if is_shared else writer for writer in layout.writers()}
    references = {writer: read_reference(layout, name, owner) for writer, owner in owners.items()}
    problems = []
    if _load(name).reads_back:
        with PointTable() as table:
            reports = [compare(target, table) for target in targets(job.config.spec())]
        problems = [
            f"{report.state}: {report.problem or report.examples}" for report in reports if report.state != "equal"
        ]
    return {
        "left": {writer: undelivered(layout, name, writer) for writer in layout.writers()},
        "runs": {writer: found and found.id for writer, found in references.items()},
        "directory": layout.backend(name),
        "problems": problems,
    }


def _protocols(run: object) -> list[str]:
    return [kind.__name__ for kind in OPTIONAL if isinstance(run, kind)]


@cache
def _registry() -> Registry:
    return Registry()


def _load(name: str) -> Backend:
    return _registry().load(name)


def _args(backend: Backend, args: Mapping[str, Any]) -> BaseModel:
    return backend.args_model().model_validate(dict(args))


def _ticket(backend: Backend, given: Mapping[str, Any]) -> RunTicket:
    ticket = TICKET.validate_python(given)
    # Of many writers, each has an axis of its own.
    return replace(ticket, has_axes=backend.declares_axes and ticket.writers == "many")


def _takes(model: type[BaseModel], args: Mapping[str, Any]) -> bool:
    try:
        model.model_validate(dict(args))
    except ValueError:
        return False
    return True


def _author(module: str, file: str, name: str) -> Callable[[], Any]:
    """An author's class, from the file that pytest has it from."""
    found: Any = _module(module, file)
    for part in name.split("."):
        found = getattr(found, part)
    kind: Callable[[], Any] = found
    return kind


def _module(name: str, file: str) -> ModuleType:
    try:
        found = importlib.import_module(name)
        if Path(found.__file__ or "").samefile(file):
            return found
    except (ImportError, OSError):
        pass
    # With `--import-mode=importlib` a module of tests has a name that nobody can import.
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported")
    made = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def _plain(value: Any) -> Any:
    """A value that JSON lacks: bytes, what numpy has, and containers of other kinds."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, Mapping):
        return dict(value)
    if callable(item := getattr(value, "item", None)):
        return item()
    return list(value) if isinstance(value, Iterable) else str(value)
