"""Opens runs with the SDK's settings and its account on a server."""

import threading
import time
from typing import Any, Final

import requests
from pydantic import ValidationError
from swanlab.exceptions import AuthenticationError
from swanlab.sdk.cmd.init import _init as start
from swanlab.sdk.internal.settings import create_settings

from rolecall import BackendRefused, RunGone, RunTicket, Unavailable
from rolecall_swanlab.args import SwanlabArgs

__all__ = ["open_context"]

# The SDK logs in for the whole process, and `rolecall deliver` opens several runs at once.
_LOCK: Final = threading.Lock()


def open_context(ticket: RunTicket, args: SwanlabArgs) -> Any:
    """Open, join or resume a run: the SDK's context of it, and its path on the server. Errors as in `open_run`."""
    settings: Any = None
    try:
        settings = _settings(ticket, args)
        with _LOCK:
            return start(settings, None)
    except (ValidationError, AssertionError) as error:  # it asserts that there is an API key
        raise BackendRefused(f"swanlab: {error}") from error
    except AuthenticationError as error:
        raise (BackendRefused if _is_refused(settings) else Unavailable)(f"swanlab: {error}") from error
    except (RuntimeError, OSError) as error:
        # with `resume: must`
        raise (RunGone if "does not exist in project" in str(error) else Unavailable)(f"swanlab: {error}") from error


def _settings(ticket: RunTicket, args: SwanlabArgs) -> Any:
    """The SDK's settings; it finds others in the environment and in its files."""
    given = {
        **args.model_dump(include={"mode", "api_host"}, exclude_none=True),
        "api_key": args.api_key and args.api_key.get_secret_value(),
        "log_dir": ticket.directory,
        "core": {"record_interval": 0.2, "skip_store": False},
        "project": {"name": ticket.project, "workspace": args.workspace},
        "experiment": {"name": ticket.name, "group": ticket.group, "tags": list(ticket.tags)},
        "run": {
            "id": ticket.backend_run_id or ticket.run_id,
            "resume": "must" if ticket.backend_run_id else "allow",
            "parallel": "shared" if ticket.shared else "none",
            # The SDK's own names end with the second, and it would wait for the next one.
            "dir": f"run-{time.time_ns()}-{ticket.run_id}"[:255],
        },
    }
    settings = create_settings()
    settings.merge_settings(given)
    return settings


def _is_refused(settings: Any) -> bool:
    """Whether the server does not take the API key: the SDK raises the same error if it does not answer."""
    url, headers = f"{settings.api_host}/api/login/api_key", {"authorization": settings.api_key}
    try:
        return requests.post(url, headers=headers, timeout=10.0).status_code in {400, 401, 403}
    except requests.RequestException:
        return False
