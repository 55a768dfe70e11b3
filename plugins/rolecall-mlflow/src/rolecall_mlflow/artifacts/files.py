"""Where artifacts are in a run, and how they get there."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rolecall import Row
from rolecall_mlflow.keys import valid_key
from rolecall_mlflow.sdk import Store, mlflow_version

__all__ = ["Artifact", "artifact_folder", "moment", "tracking_uri", "upload"]

# MLflow 2.16 to 3.5 find a server's artifacts by the global tracking URI, whatever URI the client was given; 3.9 does
# not (measured).
_ARTIFACTS_WITHOUT_GLOBAL_URI: Final = (3, 9)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file to be, and what is in it: a text, or what another file holds."""

    path: str
    content: str | Path


def artifact_folder(kind: str, row: Row, key: str) -> str:
    """The folder of all that a writer logs under a key: `tables/explorer/0/samples`."""
    # In a shared run the key begins with the writer as it is.
    name = key.removeprefix(f"{row.writer}/")
    return valid_key(f"{kind}/{row.writer}/{name}").replace(":", "_")


def moment(row: Row) -> str:
    """What tells the row from all others of its writer: step, session and number."""
    return f"{row.step:08d}-{row.session}-{row.seq}"


def upload(store: Store, run_id: str, artifact: Artifact) -> None:
    """Store a file in the run; needs `tracking_uri`."""
    folder, name = posixpath.split(artifact.path)
    if isinstance(artifact.content, str):
        store.client.log_text(run_id, artifact.content, artifact.path)
        return
    # `log_artifact` gives the artifact the name of the file.
    with TemporaryDirectory(prefix="rolecall-") as directory:
        named = Path(directory, name)
        named.symlink_to(artifact.content.absolute())
        store.client.log_artifact(run_id, str(named), folder)


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
