"""Classifies the errors of MLflow's client.

Measured with MLflow 2.16.0 and 3.17.2, client and server. The client raises `MlflowException` for almost everything:
with an error code of the server, or with `INTERNAL_ERROR` around what `requests` raised.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from enum import Enum, auto
from textwrap import shorten

from rolecall import BackendRefused, Unavailable
from rolecall_mlflow.args import DEFAULT_URI

__all__ = ["Fault", "describe", "fault_of", "opening_error"]


class Fault(Enum):
    """What to do about an error."""

    LATER = auto()
    """The store cannot answer at the moment."""
    DENIED = auto()
    """The credentials are wrong or do not allow it; the user can fix that."""
    ABSENT = auto()
    """What was requested does not exist."""
    FOREIGN = auto()
    """The answer did not come from an MLflow server."""
    INVALID = auto()
    """The store will never accept what was sent."""
    TOO_LARGE = auto()
    """The request is too large for the server, or for a proxy in front of it."""
    HELD = auto()
    """The store already holds at least one of the metrics that were sent."""


_CODES = {
    "UNAUTHENTICATED": Fault.DENIED,
    "PERMISSION_DENIED": Fault.DENIED,
    "CUSTOMER_UNAUTHORIZED": Fault.DENIED,
    "RESOURCE_DOES_NOT_EXIST": Fault.ABSENT,
    "ENDPOINT_NOT_FOUND": Fault.FOREIGN,
    "INVALID_PARAMETER_VALUE": Fault.INVALID,
}
_STATUS = {
    401: Fault.DENIED,
    403: Fault.DENIED,
    404: Fault.FOREIGN,
    408: Fault.LATER,
    413: Fault.TOO_LARGE,
    429: Fault.LATER,
}
_CLIENT_ERRORS = range(400, 500)
_FAILED = re.compile(r"failed with error code (\d{3})")
_DUPLICATE = re.compile(r"unique constraint|duplicate (entry|key)", re.IGNORECASE)
_OTHER_SCHEMA = re.compile(r"database schema|locate revision")
_SYSTEM = re.compile(r"\[Errno -?\d+\] ([A-Z][\w ]+)")
_MANY_CHARACTERS = 300

# The file store makes a file of each name, which fails for `a` beside `a/b` and for long names.
_UNWRITABLE_NAMES = {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}


def fault_of(error: BaseException) -> Fault:
    """Classify an error. An unknown one is `LATER`, so that no row is set aside because of it."""
    text = str(error)
    # The table `latest_metrics` has the newest value of each key. A duplicate there says nothing about what was sent.
    if _DUPLICATE.search(text) and "latest_metrics" not in text:
        return Fault.HELD
    if (status := _status(error) or 0) in _CLIENT_ERRORS:
        return _STATUS.get(status, Fault.INVALID)
    if "not in a valid JSON format" in text:
        return Fault.FOREIGN
    if _OTHER_SCHEMA.search(text):
        return Fault.INVALID
    return _CODES.get(getattr(error, "error_code", "")) or _fault_of_causes(error)


def _fault_of_causes(error: BaseException) -> Fault:
    from requests import RequestException

    for cause in _chain(error):
        if isinstance(cause, RequestException):
            return Fault.LATER
        if isinstance(cause, OSError):
            return Fault.INVALID if cause.errno in _UNWRITABLE_NAMES else Fault.LATER
        if isinstance(cause, ImportError):  # the client of an artifact store, such as boto3
            return Fault.INVALID
    return Fault.INVALID if "DataError" in str(error) else Fault.LATER


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    """The HTTP status from a proxy or an artifact store; the tracking server sends an error code instead."""
    response = getattr(error, "response", None)
    if response is not None:
        return int(response.status_code)
    found = _FAILED.search(str(error))
    return int(found[1]) if found else None


def describe(error: BaseException) -> str:
    """The error in one line of limited length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return shorten(text, _MANY_CHARACTERS, placeholder=" ...")


def opening_error(error: Exception, uri: str) -> BackendRefused | Unavailable:
    """The error that `prepare` and `open_run` raise for an error of the client."""
    detail = describe(error)
    match fault_of(error):
        case Fault.LATER | Fault.HELD | Fault.TOO_LARGE:
            # Of a connection that fails, the system's words say enough; urllib3 wraps them in those of three classes.
            reason = found[1] if (found := _SYSTEM.search(str(error))) else detail
            hint = ". This is the default; name your server or store in monitor_args.uri" if uri == DEFAULT_URI else ""
            return Unavailable(f"MLflow at {uri} cannot be reached: {reason}{hint}")
        case Fault.DENIED:
            return BackendRefused(
                f"MLflow at {uri} refuses these credentials: {detail}. Set monitor_args.username and "
                "monitor_args.password, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
            )
        case Fault.FOREIGN:
            return BackendRefused(f"{uri} is not an MLflow server; correct monitor_args.uri. It answered: {detail}")
        case Fault.ABSENT | Fault.INVALID:
            return BackendRefused(f"MLflow at {uri} refuses the request: {detail}")
