"""The requests that the plugin itself sends to a wandb server: who has this key, and what a run holds.

The SDK cannot tell whether the server has a row: its `finish()` returns without an error although the server refused
rows of its file stream (0.31.0, measured). The requested fields are those of the SDK's own public API
(`wandb/apis/public/runs.py`, 0.19.10 and 0.31.0).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import requests

from rolecall import BackendRefused, Unavailable
from rolecall_wandb.args import WandbArgs
from rolecall_wandb.situation import api_key, base_url

__all__ = ["Denied", "RunPath", "RunState", "Server", "server_of"]

TIMEOUT: Final = 10.0
_MAX_CHARACTERS: Final = 300

_VIEWER: Final = "query Viewer { viewer { id entity } }"
_RUN: Final = """query RolecallRun($entity: String, $project: String!, $run: String!) {
  project(name: $project, entityName: $entity) { run(name: $run) { id state %s } }
}"""


class Denied(Unavailable):
    """The server refuses the credentials. While a job runs this can be temporary, so it is `Unavailable`."""


@dataclass(frozen=True, slots=True)
class RunPath:
    """The path of a run on a server."""

    entity: str
    project: str
    run: str


@dataclass(frozen=True, slots=True)
class RunState:
    """What the server holds of a run.

    Attributes:
        lines: the number of lines of history.
        summary: the last value of each key.
        config: as stored, `{"lr": {"value": 0.1}}`; empty if it was not requested.
        state: `running`, `finished`, `failed`, ...
    """

    lines: int = 0
    summary: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    state: str = ""


class Server:
    """A wandb server, and the credentials for it."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url
        self._auth = requests.auth.HTTPBasicAuth("api", key) if key else None

    def require_key(self) -> None:
        """Check that the server knows the key.

        Raises:
            BackendRefused: it does not, or it is not a wandb server.
            Unavailable: it does not answer.
        """
        if self._auth is None:
            return
        try:
            viewer = self._ask(_VIEWER, {}).get("viewer")
        except Denied as error:
            raise BackendRefused(self._unknown_key(str(error))) from error
        if not viewer:
            raise BackendRefused(self._unknown_key("it belongs to no user"))

    def look_up(self, path: RunPath, *, summary: bool = False, config: bool = False) -> RunState | None:
        """What the server holds of a run; `None` if there is no such run.

        Raises:
            Unavailable: it does not answer, or answers with an error.
        """
        wanted = {"historyLineCount": True, "summaryMetrics": summary, "config": config}
        query = _RUN % " ".join(name for name, is_wanted in wanted.items() if is_wanted)
        data = self._ask(query, {"entity": path.entity, "project": path.project, "run": path.run})
        run = (data.get("project") or {}).get("run")
        if not run:
            return None
        return RunState(
            run.get("historyLineCount") or 0,
            _decode(run.get("summaryMetrics")),
            _decode(run.get("config")),
            run.get("state") or "",
        )

    def _ask(self, query: str, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            response = requests.post(
                f"{self.url}/graphql",
                json={"query": query, "variables": variables},
                auth=self._auth,
                timeout=TIMEOUT,
            )
        except requests.RequestException as error:
            raise Unavailable(f"wandb at {self.url} cannot be reached: {type(error).__name__}") from error
        return self._read(response)

    def _read(self, response: requests.Response) -> Mapping[str, Any]:
        status = response.status_code
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise Denied(f"wandb at {self.url} refuses these credentials ({status})")
        if status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
            raise BackendRefused(self._not_wandb())
        try:
            answer = response.json() if status == HTTPStatus.OK else {}
        except requests.JSONDecodeError as error:
            raise BackendRefused(self._not_wandb()) from error
        if not isinstance(answer.get("data"), dict):
            detail = str(answer.get("errors") or response.text)[:_MAX_CHARACTERS]
            raise Unavailable(f"wandb at {self.url} answers {status}: {detail}")
        return dict(answer["data"])

    def _not_wandb(self) -> str:
        return f"{self.url} is not a wandb server; correct monitor_args.base_url"

    def _unknown_key(self, detail: str) -> str:
        return (
            f"wandb at {self.url} does not know this API key ({detail}). Set WANDB_API_KEY or monitor_args.api_key, "
            f"or run `wandb login --relogin --host {self.url}`"
        )


def server_of(args: WandbArgs) -> Server:
    """The server for these arguments, in this environment."""
    return Server(base_url(args), api_key(args))


def _decode(text: Any) -> Mapping[str, Any]:
    """Parse a JSON string in a GraphQL answer."""
    value = json.loads(text) if isinstance(text, str) and text else text
    return value if isinstance(value, dict) else {}
