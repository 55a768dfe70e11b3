"""What a backend implements.

A backend is a module or an object registered under the entry-point group `rolecall.backends`; the entry
point's name is its `monitor_type`. Importing it must not import its SDK: listing and checking backends
happens in processes that never log to them. Each function below is called for one backend alone.
"""

from collections.abc import Mapping

import pluggy
from pydantic import BaseModel

from rolecall.protocol import Run, RunTicket, SharedRunSupport, SupportsReadback

PROJECT = "rolecall"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

HOOKS_VERSION = 2
"""The version of these hooks. A backend says for which it was written: `ROLECALL_HOOKS = 2`; without it, for 1.

Version 2 adds `open_readback`, and `held` returns ranges. A backend of version 1 works as it is.
"""
READBACK_SINCE = 2
"""The version that added `open_readback`."""
REQUIRED = ("backend_args", "supports_shared_run", "open_run")
"""Hooks that a backend cannot do without."""


@hookspec(firstresult=True)
def backend_args() -> type[BaseModel] | None:
    """The pydantic model of `monitor_args`.

    Defaults belong here; a secret is a `pydantic.SecretStr`. Refuse unknown fields (`extra="forbid"`), so that
    a misspelled argument is an error at launch.
    """


@hookspec(firstresult=True)
def supports_shared_run(args: BaseModel) -> SharedRunSupport | None:
    """Whether several processes may write one run with these arguments on this machine.

    Called in the launcher and again in each role. Must be quick, must not open a connection and must not
    import the SDK (`importlib.metadata` knows its version). A reason says what to change.
    """


@hookspec(firstresult=True)
def prepare(ticket: RunTicket, args: BaseModel) -> None:
    """Create what must exist before any role opens a run of its own, and check the credentials.

    Optional. Called once for a backend whose runs are not shared: by the launcher, or where one process writes the
    only run, as with `rolecall.init` and in a relay, by that one before `open_run`. A shared run's primary does the
    same in `open_run`.

    Raises:
        Unavailable: the backend cannot be reached; the job starts all the same.
        BackendRefused: it answered, and said no: the launch fails.
    """


@hookspec(firstresult=True)
def open_run(ticket: RunTicket, args: BaseModel) -> Run | None:
    """Open, join or resume the run that the ticket asks for.

    Raises:
        Unavailable: the backend cannot be reached now, or the primary has not opened the run yet.
        BackendRefused: it answered, and said no for good: wrong credentials, a run that is not there.
    """


@hookspec(firstresult=True)
def declare_axes(run: Run, axes: Mapping[str, str]) -> None:
    """Bind metric keys to their step axis, `{"explorer/reward": "explorer/step"}`.

    Optional: a backend whose metrics carry their own step does not implement it. Where it is implemented and the run is
    shared, each row also carries its axis as a metric. So does each row of a writer's own run from the first call on,
    which comes once the writer logs on a second axis: steps then repeat and decrease from one axis to the other. A key
    is bound before its first row comes. It is passed once, but again if another writer's binding of it counts instead.
    """


@hookspec(firstresult=True)
def open_readback(ticket: RunTicket, args: BaseModel) -> SupportsReadback | None:
    """Read what a run holds, so that `rolecall verify` can compare it with the journal.

    Optional. The ticket is of a run that was opened before: `backend_run_id` is set. Opening it must change nothing: it
    creates no run, resumes none, and leaves its status and its times as they are.

    Raises:
        Unavailable: the backend cannot be reached now.
        RunGone: it answered that there is no such run any more.
        BackendRefused: it answered, and said no for another reason, and for good.
    """
