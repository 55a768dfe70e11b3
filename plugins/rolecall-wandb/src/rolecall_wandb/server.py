"""The requests that the plugin itself sends to a wandb server: who has this key, what a run holds, and files of a run.

The SDK cannot tell whether the server has a row: its `finish()` returns without an error although the server refused
rows of its file stream (0.31.0, measured). The requested fields are those of the SDK's own public API
(`wandb/apis/public/runs.py`, 0.19.10 and 0.31.0).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import requests

from rolecall import RunTicket, Unavailable
from rolecall_wandb.args import WandbArgs
from rolecall_wandb.situation import api_key, base_url

__all__ = ["Denied", "NotStored", "RunPath", "RunState", "Server", "path_of", "server_of", "step_of"]

TIMEOUT: Final = 10.0
STORE_TIMEOUT: Final = 60.0
"""Seconds in which a store of files answers, after it has the whole file."""
_MAX_CHARACTERS: Final = 300

_VIEWER: Final = "query Viewer { viewer { id entity } }"
_RUN: Final = """query RolecallRun($entity: String, $project: String!, $run: String!) {
  project(name: $project, entityName: $entity) { run(name: $run) { id state %s } }
}"""
# As the SDK's public API stores a summary (`wandb/apis/public/summary.py`).
_SUMMARY: Final = """mutation UpsertBucket($id: String, $summaryMetrics: JSONString) {
  upsertBucket(input: {id: $id, summaryMetrics: $summaryMetrics}) { bucket { id } }
}"""
_PAGE: Final = """query HistoryPage($entity: String, $project: String!, $run: String!, $minStep: Int64!, $maxStep: Int64!, $pageSize: Int!) {
  project(name: $project, entityName: $entity) {
    run(name: $run) { history(minStep: $minStep, maxStep: $maxStep, samples: $pageSize) }
  }
}"""  # noqa: E501
_FILES: Final = """mutation CreateRunFiles($entity: String!, $project: String!, $run: String!, $files: [String!]!) {
  createRunFiles(input: {entityName: $entity, projectName: $project, runName: $run, files: $files}) {
    runID uploadHeaders files { name uploadUrl }
  }
}"""
_PASSING: Final = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
PAGE_STEPS: Final = 1_000
PAGE_LINES: Final = 4 * PAGE_STEPS
"""Lines of a page. A server may give the lines of several writers one step; it shows a sample if there are more."""


class Denied(Unavailable):
    """The server, or what answers in its place, says no. At launch that is final; while a job runs it may pass."""


class Refused(Denied):
    """The server refuses the credentials."""


class NotStored(Exception):
    """The server answers, and does not take a file."""


class _Unreadable(Unavailable):
    """The server answers with something else than what it was asked for."""


class RunPath(NamedTuple):
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
        counts: how many lines have each key; `None` if the server does not say so, or was not asked.
        last_step: the step of the last line, as far as the server says so; below zero if there is none.
        key: the server's own id of the run.
        tags: its tags, if they were requested.
    """

    lines: int = 0
    summary: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    state: str = ""
    counts: Mapping[str, int] | None = None
    last_step: int = -1
    key: str = ""
    tags: tuple[str, ...] = ()


class Server:
    """A wandb server, and the credentials for it."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url
        self._auth = requests.auth.HTTPBasicAuth("api", key) if key else None

    def require_key(self) -> None:
        """Check that the server knows the key.

        Raises:
            Denied: it does not, or it is not a wandb server.
            Unavailable: it does not answer.
        """
        if self._auth is not None:
            self.entity()

    def entity(self) -> str:
        """The default entity of the key; errors as in `require_key`."""
        try:
            viewer = self._ask(_VIEWER, {}).get("viewer")
        except Refused as error:
            raise Denied(self._unknown_key(str(error))) from error
        if not viewer:
            raise Denied(self._unknown_key("it belongs to no user"))
        if not isinstance(viewer, dict):
            raise self._unreadable(viewer)
        return str(viewer.get("entity") or "")

    def look_up(
        self, path: RunPath, *, summary: bool = False, config: bool = False, counts: bool = False, tags: bool = False
    ) -> RunState | None:
        """What the server holds of a run; `None` if there is no such run.

        Raises:
            Unavailable: it does not answer, or answers with an error.
        """
        more = {"summaryMetrics": summary, "config": config, "historyKeys": counts, "tags": tags}
        wanted = {"historyLineCount": True, **more}
        run = self._run(_RUN % " ".join(name for name, is_wanted in wanted.items() if is_wanted), path)
        if run is None:
            return None
        keys = _decode(run.get("historyKeys"))
        lines = _number(run.get("historyLineCount"))
        return RunState(
            lines,
            _decode(run.get("summaryMetrics")),
            _decode(run.get("config")),
            str(run.get("state") or ""),
            _counts(keys.get("keys")),
            max(_number(keys.get("lastStep"), -1), lines - 1),
            str(run.get("id") or ""),
            tuple(map(str, run.get("tags") or ())),
        )

    def set_summary(self, run: RunState, summary: Mapping[str, Any]) -> None:
        """Replace the summary of a run.

        Raises:
            Unavailable: the server does not answer, or answers with an error.
        """
        self._ask(_SUMMARY, {"id": run.key, "summaryMetrics": json.dumps(summary)})

    def upload(self, path: RunPath, files: Mapping[str, Path]) -> None:
        """Store files in a run that is open, by their names there; the server has them when this returns.

        Raises:
            Unavailable: the server, or the store that it names, does not answer.
            NotStored: it does not take a file.
        """
        # As the SDK's public API does (`Run.upload_file`, 0.19.10 and 0.31.0).
        variables = {**path._asdict(), "files": list(files)}
        try:
            made = self._ask(_FILES, variables)["createRunFiles"]
            headers = dict(header.split(":", 1) for header in made["uploadHeaders"])
            urls = {each["name"]: each["uploadUrl"] for each in made["files"]}
            for name, file in files.items():
                self._put(urls[name], file, headers)
        except (_Unreadable, KeyError, TypeError, ValueError) as error:
            raise NotStored(str(error) or type(error).__name__) from error
        # A server of one's own does not notice by itself that a file is there. The SDK tells it so while a run is open.
        where = "/".join(quote(each, safe="") for each in path)
        self._read_answer(self._send("POST", f"/files/{where}/file_stream", json={"uploaded": list(files)}))

    def _put(self, url: str, path: Path, headers: Mapping[str, str]) -> None:
        with path.open("rb") as file:
            # An empty file would be sent in chunks, which stores of objects refuse.
            content = file if path.stat().st_size else b""
            response = self._send("PUT", url, data=content, headers=headers, timeout=(TIMEOUT, STORE_TIMEOUT))
        self._read_answer(response)

    def _read_answer(self, response: requests.Response) -> None:
        status = response.status_code
        if status in _PASSING or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Unavailable(f"wandb at {self.url} does not take a file now ({status})")
        if not response.ok:
            raise NotStored(f"{status}: {response.text[:_MAX_CHARACTERS]}")

    def history(self, path: RunPath, first: int = 0) -> Iterator[Mapping[str, Any]]:
        """All lines of a run's history from a step on, by their `_step`, in pages; none if the run is not there.

        Raises:
            Unavailable: the server does not answer, or answers with an error.
        """
        end = 1 + (self.look_up(path, counts=True) or RunState()).last_step
        width = PAGE_STEPS
        while first < end:
            page = self.page(path, first, min(first + width, end))
            if len(page) >= PAGE_LINES and width > 1:
                width //= 2  # it may be a sample
                continue
            yield from page
            first += width
            # Steps may be millions apart, if they count tokens. The SDK's public API asks for each 1,000 of them.
            if len(page) < PAGE_STEPS // 2:
                width *= 2

    def page(self, path: RunPath, first: int, end: int) -> list[Mapping[str, Any]]:
        """The lines with a step from `first` up to `end`, by their steps; a sample if there are more than `PAGE_LINES`.

        Raises:
            Unavailable: the server does not answer, or answers with an error.
        """
        run = self._run(_PAGE, path, minStep=first, maxStep=end, pageSize=PAGE_LINES)
        found = (run or {}).get("history")
        if not isinstance(found, list):
            raise Unavailable(f"wandb at {self.url} does not show the history of run {path.run}")
        lines = [line for line in map(_decode, found) if first <= step_of(line, first) < end]
        return sorted(lines, key=lambda line: step_of(line, first))

    def _run(self, query: str, path: RunPath, **variables: Any) -> Mapping[str, Any] | None:
        where = {"entity": path.entity, "project": path.project, "run": path.run}
        found = self._ask(query, {**where, **variables}).get("project")
        if isinstance(found, dict):
            found = found.get("run")
        if not isinstance(found, dict | None):
            raise self._unreadable(found)
        return found

    def _ask(self, query: str, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._read(self._send("POST", "/graphql", json={"query": query, "variables": variables}))

    def _send(self, method: str, url: str, timeout: Any = TIMEOUT, **content: Any) -> requests.Response:
        """Send a request to a path of the server, or to an address that it named, which needs no credentials."""
        is_own = url.startswith("/")
        # Without `auth`, requests would look for credentials in `~/.netrc`, and a store refuses two kinds of them.
        url, auth = (self.url + url, self._auth) if is_own else (url, _no_credentials)
        try:
            return requests.request(method, url, auth=auth, timeout=timeout, **content)
        except requests.RequestException as error:
            raise Unavailable(f"wandb at {self.url} cannot be reached: {type(error).__name__}") from error

    def _read(self, response: requests.Response) -> Mapping[str, Any]:
        status = response.status_code
        if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise Refused(f"wandb at {self.url} refuses these credentials ({status})")
        if status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
            raise Denied(self._not_wandb())
        try:
            # Not `response.json()`: where simplejson is installed, requests takes that, which knows no NaN by default.
            answer = json.loads(response.content) if status == HTTPStatus.OK else {}
        except ValueError as error:
            raise Denied(self._not_wandb()) from error
        data, errors = (answer.get("data"), answer.get("errors")) if isinstance(answer, dict) else (None, None)
        # Where a part of the data could not be had, the rest is not the whole truth.
        if errors or not isinstance(data, dict):
            raise self._unreadable(errors or response.text, status)
        return data

    def _unreadable(self, answer: Any, status: int = HTTPStatus.OK) -> _Unreadable:
        return _Unreadable(f"wandb at {self.url} answers {status}: {str(answer)[:_MAX_CHARACTERS]}")

    def _not_wandb(self) -> str:
        return f"{self.url} is not a wandb server; correct monitor_args.base_url"

    def _unknown_key(self, detail: str) -> str:
        return (
            f"wandb at {self.url} does not know this API key ({detail}). Set WANDB_API_KEY or monitor_args.api_key, "
            f"or run `wandb login --relogin --host {self.url}`"
        )


def _no_credentials(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def server_of(args: WandbArgs) -> Server:
    """The server for these arguments, in this environment."""
    return Server(base_url(args), api_key(args))


def path_of(ticket: RunTicket, args: WandbArgs, server: Server) -> RunPath:
    """The path of the run that a ticket asks for; errors as in `Server.require_key`."""
    return RunPath(args.entity or server.entity(), ticket.project, ticket.run_id)


def _decode(text: Any) -> Mapping[str, Any]:
    """Parse a JSON string in a GraphQL answer; whatever is no mapping counts as an empty one."""
    try:
        value = json.loads(text) if isinstance(text, str) and text else text
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def step_of(line: Mapping[str, Any], otherwise: int = -1) -> int:
    """The number of a line of history, which is the step of its rows in a run that is not shared."""
    return _number(line.get("_step"), otherwise)


def _number(value: Any, otherwise: int = 0) -> int:
    return int(value) if isinstance(value, int | float) else otherwise


def _counts(keys: Any) -> Mapping[str, int] | None:
    """How many lines have each key, in values of any type; `None` if that cannot be read."""
    if not isinstance(keys, dict):
        return None
    try:
        return {key: sum(int(each["count"]) for each in found["typeCounts"]) for key, found in keys.items()}
    except (KeyError, TypeError, ValueError):
        return None
