"""Stores tables as artifacts, in the JSON that `mlflow.log_table` writes and MLflow's UI draws."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from rolecall import Cell, Media, Row, TableData
from rolecall_mlflow.artifacts.files import Artifact, artifact_folder, moment, tracking_uri, upload
from rolecall_mlflow.sdk import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

__all__ = ["json_number", "store_table", "table_path"]

_LISTED = "mlflow.loggedArtifacts"
_MAX_TAG = 5000  # characters, in MLflow 2; version 3 accepts 8,000


def table_path(row: Row, table: TableData) -> str:
    """The path of a row's table: `tables/explorer/0/samples/00000012-1-345.json`."""
    # A file of its own for each row: `MlflowClient.log_table` reads a file, appends to it and writes it again, so two
    # roles would lose rows and a repeated delivery would double them. It also needs pandas.
    return f"{artifact_folder('tables', row, table.name)}/{moment(row)}.json"


def store_table(store: Store, run_id: str, row: Row, table: TableData) -> None:
    """Write the table and its images, and add it to the tag where MLflow's UI looks for tables."""
    path, folder = table_path(row, table), f"{artifact_folder('table_images', row, table.name)}/{moment(row)}"
    images: list[Artifact] = []
    data = [
        [_cell(cell, f"{folder}/{number}-{column}", images) for column, cell in enumerate(cells)]
        for number, cells in enumerate(table.rows)
    ]
    text = json.dumps({"columns": list(table.columns), "data": data}, allow_nan=False)
    with tracking_uri(store.uri):
        # The images first: whoever sees the table finds them.
        for artifact in (*images, Artifact(path, text)):
            upload(store, run_id, artifact)
    _list_table(store.client, run_id, path)


def _cell(cell: Cell, path: str, images: list[Artifact]) -> Any:
    """The cell as MLflow's UI reads it; of an image, where it is."""
    if not isinstance(cell, Media):
        return json_number(cell) if isinstance(cell, float) else cell
    if cell.path is None:
        return None
    images.append(Artifact(f"{path}{cell.path.suffix}", cell.path))
    # As `MlflowClient.log_table` has it (3.17.2). It also makes a smaller file, for which it needs Pillow.
    return {"type": "image", "filepath": images[-1].path, "compressed_filepath": images[-1].path}


def json_number(number: float) -> float | str | None:
    """The number as JSON, and so the UI, can have it: without NaN and infinities."""
    if math.isfinite(number):
        return number
    return None if math.isnan(number) else str(number)


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
