"""Our wheels hold only Python, so one of each fits every platform and every Python."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.install, pytest.mark.timeout(600)]


def test_every_wheel_is_for_any_platform(our_wheels: list[Path]) -> None:
    assert len(our_wheels) == 4
    assert all(wheel.name.endswith("-py3-none-any.whl") for wheel in our_wheels)


def test_wheel_holds_python_marker_and_metadata(our_wheels: list[Path]) -> None:
    for wheel in our_wheels:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if ".dist-info/" not in name]
        assert names
        assert [name for name in names if not name.endswith((".py", "/py.typed"))] == []
