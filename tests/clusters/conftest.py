"""A Slurm cluster for all tests, and the files of a page as a reader has them."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slurm_cluster
from page_blocks import ROOT, blocks
from slurm_cluster import Slurm


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """Skips where Slurm is not installed."""
    if missing := slurm_cluster.missing():
        pytest.skip(f"no {', '.join(missing)} on this machine: `apt-get install slurm-wlm munge`")
    # sockets are in it, whose paths are short
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, slurm_cluster.cluster(Path(folder)) as made:
        yield made


@pytest.fixture
def write_blocks() -> Callable[..., None]:
    """Write the files of docs/multi-node.md that it is asked for."""

    def write(folder: Path, *titles: str) -> None:
        found = {block.title: block.text for block in blocks(ROOT / "docs" / "multi-node.md")}
        for title in titles:
            (folder / title).write_text(found[title])

    return write


@pytest.fixture
def environment() -> dict[str, str]:
    """Where `python` and `rolecall` are those of the tests."""
    return {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}
