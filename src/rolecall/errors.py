"""Every error that rolecall raises.

Backends raise two of them, and the courier acts on them: `Unavailable` (try again later) and `Rejected` (never again).
rolecall itself raises the others, at launch, for what you can fix.
"""

from collections.abc import Iterable, Sequence

from rolecall.rows import Row


class RolecallError(Exception):
    """Base of every error that rolecall raises."""


class ConfigError(RolecallError, ValueError):
    """The configuration cannot be used; the message lists each fault with its dotted path."""


class BackendError(RolecallError):
    """A backend cannot be loaded or breaks the hook contract; the message names plugin and hook."""


class UnknownBackend(BackendError):
    """No backend of that name is installed; the message names the nearest one and how to install it."""


class BackendRefused(RolecallError):
    """A backend answered, and said no for good: wrong credentials, wrong arguments, a run that is not there."""


class RunGone(BackendRefused):
    """A backend answered that it holds the run no more: somebody deleted it."""


class DirectoryError(RolecallError):
    """`monitor_dir` or `spool_dir` cannot be used: unwritable, not shared with the launcher, not rolecall's."""


class WriterConflict(RolecallError):
    """Another live process holds what was asked for: the launcher's place or a writer's name."""


class Undelivered(RolecallError):
    """Rows are still in the journal after `close`; the message says how many, and the command that sends them."""


class Unavailable(RolecallError):
    """Raised by a backend that cannot take rows, or open a run, *now*. The courier tries again later."""


class Rejected(RolecallError):
    """Raised by `Run.log` for rows that the backend will never take.

    The courier sets these rows aside, reports them, and goes on with the next. The backend must have taken all other
    rows of the same call.
    """

    def __init__(self, rows: Iterable[Row], reason: str = "") -> None:
        self.rows = tuple(rows)
        self.reason = reason
        super().__init__(f"{len(self.rows)} rows rejected" + (f": {reason}" if reason else ""))


def describe_os_error(error: OSError) -> str:
    """Which file, and what is wrong with it."""
    return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)


def raise_together(message: str, errors: Sequence[Exception]) -> None:
    """One error as it is, several as a group, none not at all."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup(message, errors)
