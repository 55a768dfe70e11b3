"""Answers to the SDK's queries, recognised by the fields that they ask for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from wandb_emulator.stored import ARTIFACTS, State, StoredRun

__all__ = ["answer", "is_upsert"]

Variables = Mapping[str, Any]
Answer = dict[str, Any]

_IGNORED = {"OrganizationCoreWeaveOrganizationID", "RunStoppedStatus"}


def is_upsert(query: str) -> bool:
    """Whether it creates or changes a run."""
    return "upsertBucket" in query


def answer(state: State, query: str, variables: Variables, client: str | None, url: str) -> Answer:
    """The `data` of the answer; what is not known is noted and answered with nothing."""
    if is_upsert(query):
        return _upsert(state, variables, client)
    for field, make in _FIELDS:
        if field in query:
            return make(state, query, variables, url)
    operation = re.search(r"(?:query|mutation)\s+(\w+)", query)
    if operation is None or operation[1] not in _IGNORED:
        state.unknown.append(" ".join(query.split())[:300])
    return {}


def _upsert(state: State, variables: Variables, client: str | None) -> Answer:
    if not variables.get("name"):  # the public API, which changes a run that is there
        run = state.runs[variables["id"].removeprefix("id-")]
        run.summary = json.loads(variables["summaryMetrics"])
        return {"upsertBucket": {"bucket": _bucket(run), "inserted": False}}
    is_new = variables["name"] not in state.runs
    run = state.run(variables["name"], variables.get("project") or "", variables.get("entity") or "")
    run.is_shared = run.is_shared or client is not None
    run.upsert(client, variables, state.policy)
    return {"upsertBucket": {"bucket": _bucket(run), "inserted": is_new}}


def _bucket(run: StoredRun) -> Answer:
    return {
        "id": f"id-{run.id}",
        "name": run.id,
        "displayName": run.named.get("name") or run.id,
        "description": "",
        "config": json.dumps(run.config),
        "sweepName": None,
        "historyLineCount": len(run.history),
        "project": {"id": "project", "name": run.project, "entity": {"id": "entity", "name": run.entity}},
    }


def _resume(state: State, query: str, variables: Variables, url: str) -> Answer:
    run = state.runs.get(variables.get("name") or "")
    if run is None:
        return {"model": {"id": "project", "name": "", "entity": {"id": "e", "name": state.entity}, "bucket": None}}
    last = {**run.history[-1].line, "_step": run.history[-1].step} if run.history else {}
    bucket = _bucket(run) | {
        "summaryMetrics": json.dumps(run.summary),
        "logLineCount": sum(map(len, run.console.values())),
        "eventsLineCount": len(run.events),
        "historyTail": json.dumps([json.dumps(last)] if last else []),
        "eventsTail": json.dumps([]),
        "tags": run.named.get("tags") or [],
        "notes": run.named.get("notes"),
        "wandbConfig": json.dumps({"t": 1}),
    }
    return {
        "model": {"id": "project", "name": run.project, "entity": {"id": "e", "name": run.entity}, "bucket": bucket}
    }


def _run(state: State, query: str, variables: Variables, url: str) -> Answer:
    run = state.runs.get(variables.get("run") or variables.get("name") or "")
    if run is None:
        return {"project": {"run": None, "internalId": "p"}}
    return {"project": {"internalId": "p", "id": "p", "run": _fields(run.as_shown(state.late), query, variables)}}


def _fields(run: StoredRun, query: str, variables: Variables) -> Answer:
    named = run.named
    answer: Answer = _bucket(run) | {
        "state": run.state,
        "group": named.get("group"),
        "jobType": named.get("job_type"),
        "tags": named.get("tags") or [],
        "notes": named.get("notes"),
        "commit": named.get("commit"),
        "readOnly": False,
        "createdAt": "2026-01-01T00:00:00",
        "heartbeatAt": "2026-01-01T00:00:00",
        "systemMetrics": "{}",
        "summaryMetrics": json.dumps(run.summary),
        "user": {"name": "user", "username": "user"},
        "projectId": "p",
        "internalId": "r",
    }
    if "historyKeys" in query:
        answer["historyKeys"] = run.keys()
    if "history(" in query:
        end, most = (variables.get(name) for name in ("maxStep", "pageSize"))
        answer["history"] = run.page(variables.get("minStep") or 0, end or 1 << 63, most or 500)
    return answer


def _viewer(state: State, query: str, variables: Variables, url: str) -> Answer:
    viewer = {
        "id": "user",
        "entity": state.entity,
        "username": "user",
        "email": "",
        "flags": "{}",
        "teams": {"edges": [{"node": {"name": state.entity}}]},
        "accounts": [],
        "apiKeys": {"edges": []},
    }
    return {"viewer": viewer} | (_server_info(state, query, variables, url) if "serverInfo" in query else {})


def _server_info(state: State, query: str, variables: Variables, url: str) -> Answer:
    info: Answer = {
        "features": [],
        "cliVersionInfo": {"max_cli_version": "99.0.0", "min_cli_version": "0.0.1"},
        "latestLocalVersionInfo": None,
        "exposesExplicitApiKeyFormat": False,
    }
    return {"serverInfo": info}


def _create_files(state: State, query: str, variables: Variables, url: str) -> Answer:
    run = variables.get("run") or variables.get("runName") or ""
    files = [{"name": name, "uploadUrl": f"{url}/upload/{run}/{name}"} for name in variables.get("files") or []]
    return {"createRunFiles": {"runID": f"id-{run}", "uploadHeaders": [], "files": files}}


def _create_artifact(state: State, query: str, variables: Variables, url: str) -> Answer:
    sequence = {"id": "sequence", "latestArtifact": None}
    made = {"id": variables.get("clientID") or "artifact", "state": "PENDING", "artifactSequence": sequence}
    return {"createArtifact": {"artifact": made}}


def _artifact_manifest(state: State, query: str, variables: Variables, url: str) -> Answer:
    id_ = variables.get("artifactID") or variables.get("artifactId") or "artifact"
    where = {"uploadUrl": f"{url}/upload/{ARTIFACTS}/{id_}", "uploadHeaders": []}
    file = {"id": "f", "name": "manifest", "displayName": "manifest", **where}
    made = {"artifactManifest": {"id": f"manifest-{id_}", "file": file}}
    return {"createArtifactManifest": made, "updateArtifactManifest": made}


def _artifact_files(state: State, query: str, variables: Variables, url: str) -> Answer:
    given = variables.get("input") or variables  # 0.31.0 has all in one
    specs = given.get("artifactFiles") or []
    nodes = [
        {
            "node": {
                "id": "f",
                "name": spec["name"],
                "displayName": spec["name"],
                "uploadUrl": f"{url}/upload/{ARTIFACTS}/{spec['name']}",
                "uploadHeaders": [],
                "storagePath": f"artifact/{spec['name']}",
                "artifact": {"id": "artifact"},
                "uploadMultipartUrls": None,
            }
        }
        for spec in specs
    ]
    return {"createArtifactFiles": {"files": {"edges": nodes}}}


def _commit_artifact(state: State, query: str, variables: Variables, url: str) -> Answer:
    return {"commitArtifact": {"artifact": {"id": "artifact", "digest": "digest"}}}


def _introspection(state: State, query: str, variables: Variables, url: str) -> Answer:
    """The SDK of 0.19 asks which fields there are before it uses the newer ones."""
    names = [
        "name",
        "tags",
        "historyKeys",
        "clientID",
        "sequenceClientID",
        "distributedID",
        "ttlDurationSeconds",
        "config",
        "summaryMetrics",
        "storagePathFormat",
        "createRunFiles",
    ]
    fields = [{"name": name, "args": []} for name in names]
    any_type = {"name": "any", "fields": fields, "inputFields": fields}
    return dict.fromkeys(
        (
            "TypeInfo",
            "QueryType",
            "MutationType",
            "ServerInfoType",
            "__type",
            "CreateArtifactInputType",
            "ArtifactInputType",
        ),
        any_type,
    )


def _artifact(state: State, query: str, variables: Variables, url: str) -> Answer:
    project = {"name": "project", "entityName": state.entity, "entity": {"name": state.entity}}
    sequence = {"__typename": "ArtifactSequence", "id": "s", "name": "run-table", "project": project}
    return {
        "artifact": {
            "__typename": "Artifact",
            "id": variables.get("id"),
            "versionIndex": 0,
            "artifactSequence": sequence,
            "artifactType": {"name": "run_table"},
            "description": None,
            "metadata": "{}",
            "ttlDurationSeconds": -2,
            "ttlIsInherited": False,
            "aliases": [{"__typename": "ArtifactAlias", "id": "a", "alias": "latest", "artifactCollection": sequence}],
            "tags": [],
            "historyStep": 0,
            "state": "COMMITTED",
            "size": 0,
            "digest": "digest",
            "commitHash": "hash",
            "fileCount": 1,
            "createdAt": "2026-01-01T00:00:00",
            "updatedAt": "2026-01-01T00:00:00",
            "currentManifest": {"file": {"directUrl": f"{url}/upload/artifacts/{variables.get('id')}"}},
        }
    }


_FIELDS: list[tuple[str, Callable[[State, str, Variables, str], Answer]]] = [
    ("bucket(name:", _resume),
    ("createRunFiles", _create_files),
    ("createArtifactFiles", _artifact_files),
    ("createArtifactManifest", _artifact_manifest),
    ("updateArtifactManifest", _artifact_manifest),
    ("commitArtifact", _commit_artifact),
    ("createArtifact", _create_artifact),
    ("artifact(id:", _artifact),
    ("currentManifest", _artifact),
    ("artifact(name:", lambda *_: {"project": {"artifact": None}}),
    ("artifactType", lambda *_: {"project": {"artifactType": None, "artifact": None}}),
    ("__type", _introspection),
    ("stopped", lambda *_: {"project": {"run": {"stopped": False}}}),
    ("run(name:", _run),
    ("viewer", _viewer),
    ("serverInfo", _server_info),
]
