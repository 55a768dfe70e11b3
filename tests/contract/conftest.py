"""The reference backends and the broken ones are found as installed ones are, and a broken one must fail its test."""

from __future__ import annotations

import re
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), *(str(HERE / name) for name in ("reference", "broken"))]


@pytest.fixture(scope="session", autouse=True)
def broken_distribution(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The metadata by which the broken backends are found."""
    from broken_contracts import entry_points

    site = tmp_path_factory.mktemp("site")
    info = site / "rolecall_broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rolecall-broken\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("rolecall_broken\nrolecall_reference\n")
    (info / "entry_points.txt").write_text(entry_points())
    sys.path.insert(0, str(site))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Thousands of tests take seconds to collect, and by default none of them is run."""
    is_left_out = collection_path.name == "test_broken_matrix.py" and "not matrix" in config.option.markexpr
    return is_left_out or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the test that must find a fault, run it with the parameter that is named."""
    others = [item for item in items if not _is_wanted(item)]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if _is_wanted(item)]


def _is_wanted(item: pytest.Item) -> bool:
    fault = getattr(getattr(item, "cls", None), "fault", None)
    return fault is None or item.get_closest_marker("matrix") is not None or item.name == fault.found_by


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """A test of a broken backend passes if it fails, for the right reason and at the first call that hangs."""
    fault: Any = getattr(pyfuncitem.cls, "fault", None)
    if fault is None:
        return (yield)
    said = None
    # Any other exception is an error of the contract, and not what it says of a backend.
    try:
        yield
    except (AssertionError, pytest.fail.Exception) as error:
        said = str(error)
    except pytest.skip.Exception as skipped:
        if pyfuncitem.get_closest_marker("matrix") is not None:
            raise
        pytest.fail(f"{fault.name}: the test that must find it is skipped: {skipped}", pytrace=False)
    if pyfuncitem.get_closest_marker("matrix") is None:
        _require_found(fault, said)
    # How long it took says more of the machine. A test waits its patience out once, however many calls would hang.
    stage: Any = pyfuncitem.funcargs["stage"]
    hung = sum(child.hung for child in stage.children)
    if hung > 1:
        pytest.fail(
            f"{fault.name}: {fault.what} The test went on after a call that hung, and met {hung}.", pytrace=False
        )
    return True


def _require_found(fault: Any, said: str | None) -> None:
    """Fail, unless the test has failed and said what is wrong."""
    if said is None:
        pytest.fail(f"{fault.name} passes {fault.found_by}: {fault.what}", pytrace=False)
    if re.search(fault.says, said, re.DOTALL) is None:
        expected = f"Expected a failure that says {fault.says!r}, not:\n{said}"
        pytest.fail(f"{fault.name}: {fault.what} {expected}", pytrace=False)
