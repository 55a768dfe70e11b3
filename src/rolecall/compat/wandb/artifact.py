"""`wandb.Artifact`: files that are logged together."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NoReturn, Self

from rolecall.compat.wandb.absent import UnsupportedError, explain_absent


class Artifact:
    """Files under a name, as `wandb.Artifact`. `run.log_artifact` copies them.

    Args:
        name: what it is called.
        type: what it is, such as `model`.
        description: what it is, in words.
        metadata: what else is known of it.
        options: tune how wandb uploads it, and are ignored.
    """

    def __init__(
        self,
        name: str,
        type: str,  # noqa: A002 - wandb's own
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.name = name
        self.type = type
        self.description = description
        self.metadata = dict(metadata or {})
        self.files: dict[str, Path] = {}
        self._made: tempfile.TemporaryDirectory[str] | None = None

    def __getattr__(self, name: str) -> NoReturn:
        explain_absent("an Artifact of rolecall.compat.wandb", name)

    def add_file(self, local_path: str | os.PathLike[str], name: str | None = None, **options: Any) -> None:
        """Add a file.

        Args:
            local_path: the file.
            name: what it is called in the artifact.
            options: tune how wandb uploads it, and are ignored.

        Raises:
            ValueError: it is none.
        """
        path = Path(local_path)
        if not path.is_file():
            raise ValueError(f"{path} is not a file")
        self.files[name or path.name] = path

    def add_dir(self, local_path: str | os.PathLike[str], name: str | None = None, **options: Any) -> None:
        """Add all files of a directory, and of those in it; see `add_file`."""
        folder = Path(local_path)
        if not folder.is_dir():
            raise ValueError(f"{folder} is not a directory")
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            self.files[str(Path(name or "", path.relative_to(folder)))] = path

    @contextmanager
    def new_file(self, name: str, mode: str = "x", encoding: str | None = None) -> Iterator[IO[Any]]:
        """Write a file that is in the artifact when the block ends."""
        if self._made is None:
            self._made = tempfile.TemporaryDirectory(prefix="rolecall-artifact-")
        path = Path(self._made.name, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open(mode, encoding=encoding) as file:
            yield file
        self.files[name] = path

    def add_reference(self, uri: str, **options: Any) -> NoReturn:
        """Unsupported."""
        raise UnsupportedError(f"Artifact.add_reference({uri!r}): keep it in the config: run.config['data'] = {uri!r}")

    def wait(self, timeout: int | None = None) -> Self:
        """The artifact: it is copied when `log_artifact` has returned."""
        return self


def artifact_of(given: Artifact | str | os.PathLike[str], name: str | None, kind: str | None) -> Artifact:
    """An artifact, or one of the file or directory that was given."""
    if isinstance(given, Artifact):
        return given
    path = Path(given)
    artifact = Artifact(name or path.name, kind or "unspecified")
    if path.is_dir():
        artifact.add_dir(path)
    else:
        artifact.add_file(path)
    return artifact
