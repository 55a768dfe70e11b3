"""What an error of MLflow's client means.

Measured with MLflow 2.16.0 and 3.17.2, client and server. The client says almost everything with one class,
`MlflowException`: an error code of the server, or `INTERNAL_ERROR` around whatever `requests` raised.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from enum import Enum, auto

from rolecall import BackendRefused, Unavailable

__all__ = ["Fault", "describe", "fault_of", "opening_error"]


class Fault(Enum):
    """What to do about an error."""

    LATER = auto()
    """The store cannot answer now."""
    DENIED = auto()
    """The credentials are wrong, or do not allow it; a person can mend that."""
    ABSENT = auto()
    """What was asked for is not there."""
    FOREIGN = auto()
    """Something answered that is not an MLflow server."""
    INVALID = auto()
    """The store will never take what was sent."""
    TOO_LARGE = auto()
    """The request has too many bytes for the server, or for a proxy before it."""
    HELD = auto()
    """The store holds at least one of the metrics that were sent."""


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
_MANY_CHARACTERS = 300

# A name that the file store cannot make a file of: `a` where `a/b` is, or the other way round.
_UNWRITABLE_NAMES = {errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}


def fault_of(error: BaseException) -> Fault:
    """Tell what `error` means; what nobody knows is `LATER`, as no row may be thrown away for it."""
    text = str(error)
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
        if isinstance(cause, ImportError):  # the client of an artifact store, boto3 for one
            return Fault.INVALID
    return Fault.INVALID if "DataError" in str(error) else Fault.LATER


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    """The HTTP status, of a proxy or of an artifact; the tracking server says an error code instead."""
    response = getattr(error, "response", None)
    if response is not None:
        return int(response.status_code)
    found = _FAILED.search(str(error))
    return int(found[1]) if found else None


def describe(error: BaseException) -> str:
    """The error in one line of bounded length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MANY_CHARACTERS else text[:_MANY_CHARACTERS] + "..."


def opening_error(error: Exception, uri: str) -> BackendRefused | Unavailable:
    """What `prepare` and `open_run` raise for an error of the client."""
    said = describe(error)
    match fault_of(error):
        case Fault.LATER | Fault.HELD | Fault.TOO_LARGE:
            return Unavailable(f"MLflow at {uri} cannot be reached: {said}")
        case Fault.DENIED:
            return BackendRefused(
                f"MLflow at {uri} refuses these credentials: {said}. Set monitor_args.username and "
                "monitor_args.password, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
            )
        case Fault.FOREIGN:
            return BackendRefused(
                f"What answers at {uri} is no MLflow server; mend monitor_args.uri. It said: {said}"
            )
        case Fault.ABSENT | Fault.INVALID:
            return BackendRefused(f"MLflow at {uri} refuses: {said}")
