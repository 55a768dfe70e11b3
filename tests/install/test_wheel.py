"""Our wheels hold only Python and what a page is made of, so one of each fits every platform and every Python."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

ASSETS = "rolecall/cli/page/assets"
TEMPLATE = "rolecall/cli/template/"  # what `rolecall new-backend` writes

pytestmark = [pytest.mark.install, pytest.mark.timeout(600)]


def test_every_wheel_is_for_any_platform(our_wheels: list[Path]) -> None:
    assert len(our_wheels) == 6
    assert all(wheel.name.endswith("-py3-none-any.whl") for wheel in our_wheels)


def test_wheel_holds_python_marker_and_metadata(our_wheels: list[Path]) -> None:
    for wheel in our_wheels:
        names = [
            name for name in names_in(wheel) if ".dist-info/" not in name and not name.startswith((ASSETS, TEMPLATE))
        ]
        assert names
        assert [name for name in names if not name.endswith((".py", "/py.typed"))] == []


def test_wheel_holds_the_page_and_licence_of_its_library(our_wheels: list[Path]) -> None:
    (core,) = (wheel for wheel in our_wheels if wheel.name.startswith("rolecall-"))
    source = Path(__file__).parents[2] / "src"
    held = {name for name in names_in(core) if name.startswith(ASSETS)}
    assert held == {str(path.relative_to(source)) for path in (source / ASSETS).rglob("*") if path.is_file()}
    assert f"{ASSETS}/uplot/LICENSE" in held
    assert any(name.endswith(f".dist-info/licenses/src/{ASSETS}/uplot/LICENSE") for name in names_in(core))


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()
