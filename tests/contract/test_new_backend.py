"""What `rolecall new-backend` writes passes the contract as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rolecall.__main__ import main


@pytest.mark.servers
@pytest.mark.processes
@pytest.mark.timeout(600)
def test_new_backend_passes(tmp_path: Path) -> None:
    assert main(["new-backend", "acme", "--into", str(tmp_path)]) == 0
    sources = tmp_path / "rolecall-acme" / "src"
    info = sources / "rolecall_acme-0.1.0.dist-info"  # as pip leaves it
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rolecall-acme\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[rolecall.backends]\nacme = rolecall_acme\n")
    found = os.pathsep.join([str(sources), *filter(None, [os.environ.get("PYTHONPATH")])])
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "rolecall-acme/tests"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": found},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    assert " passed" in ran.stdout
