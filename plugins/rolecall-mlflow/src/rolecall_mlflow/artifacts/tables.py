"""Stores tables as artifacts, in the JSON that `mlflow.log_table` writes and MLflow's UI draws."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rolecall import Cell, Row, TableData
from rolecall_mlflow.keys import valid_key
from rolecall_mlflow.sdk import Store, mlflow_version

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["artifact_folder", "json_cell", "store_table", "table_path", "tracking_uri"]

_LISTED = "mlflow.loggedArtifacts"
_MAX_TAG = 5000  # characters, in MLflow 2; version 3 accepts 8,000

# MLflow 2.16 to 3.5 find a server's artifacts by the global tracking URI, whatever URI the client was given; 3.9 does
# not (measured).
_ARTIFACTS_WITHOUT_GLOBAL_URI = (3, 9)


def table_path(row: Row, table: TableData) -> str:
    """The path of a row's table: `tables/explorer/0/samples/00000012-1-345.json`."""
    # A file of its own for each row: `MlflowClient.log_table` reads a file, appends to it and writes it again, so two
    # roles would lose rows and a repeated delivery would double them. It also needs pandas.
    return f"{artifact_folder('tables', row, table.name)}/{row.step:08d}-{row.session}-{row.seq}.json"


def artifact_folder(kind: str, row: Row, key: str) -> str:
    """The folder of all that a writer logs under a key: `tables/explorer/0/samples`."""
    # In a shared run the key begins with the writer as it is.
    name = key.removeprefix(f"{row.writer}/")
    return valid_key(f"{kind}/{row.writer}/{name}").replace(":", "_")


def store_table(store: Store, run_id: str, row: Row, table: TableData) -> None:
    """Write the table, and add it to the tag where MLflow's UI looks for tables."""
    path = table_path(row, table)
    data = [[json_cell(cell) for cell in cells] for cells in table.rows]
    text = json.dumps({"columns": list(table.columns), "data": data}, allow_nan=False)
    with tracking_uri(store.uri):
        store.client.log_text(run_id, text, path)
    _list_table(store.client, run_id, path)


def json_cell(cell: Cell) -> Cell:
    """The cell as JSON, and so the UI, can have it: without NaN and infinities."""
    if isinstance(cell, float) and not math.isfinite(cell):
        return None if math.isnan(cell) else str(cell)
    return cell


def _list_table(client: MlflowClient, run_id: str, path: str) -> None:
    # All roles write this tag, and MLflow cannot change it atomically: a role may drop another's entry. The table is
    # still there then, and the UI shows it as JSON.
    listed = _listed(client.get_run(run_id).data.tags.get(_LISTED))
    entry = {"path": path, "type": "table"}
    if entry in listed:
        return
    listed.append(entry)
    while len(json.dumps(listed)) > _MAX_TAG:
        listed.pop(0)
    client.set_tag(run_id, _LISTED, json.dumps(listed))


def _listed(tag: str | None) -> list[Any]:
    try:
        found = json.loads(tag or "[]")
    except ValueError:
        return []
    return found if isinstance(found, list) else []


@contextmanager
def tracking_uri(uri: str) -> Iterator[None]:
    """Make `uri` the global tracking URI while an old client uploads."""
    if (mlflow_version() or ()) >= _ARTIFACTS_WITHOUT_GLOBAL_URI:
        yield
        return
    import mlflow

    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)
