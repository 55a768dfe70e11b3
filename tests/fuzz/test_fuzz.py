"""Each input that a fuzzer learnt something from, and what hypothesis thinks of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fuzz_targets import PLACES, TARGETS, rows
from hypothesis import given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent

CORPUS = sorted(path for target in TARGETS for path in (HERE / "corpus" / target).iterdir())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
# Each takes a third of a second; `nox -s fuzz` looks for longer.
FEW = settings(max_examples=30)
ROW = st.fixed_dictionaries(
    {},
    optional={
        "seq": JSON | st.integers(),
        "step": JSON | st.integers(),
        "time": JSON | st.floats(),
        "data": JSON | st.dictionaries(st.text(), JSON),
        "commit": JSON,
        "axis": JSON,
        "steps": JSON,
        "end": JSON,
        "attached": JSON,
        "table": st.fixed_dictionaries({}, optional={"name": JSON, "columns": JSON, "rows": JSON}),
    },
)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}-{path.name[:12]}")
def test_the_corpus(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_every_target_has_a_corpus() -> None:
    assert {path.parent.name for path in CORPUS} == TARGETS.keys()


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.binary(max_size=300))
def test_any_bytes(target: str, data: bytes) -> None:
    TARGETS[target](data)


@FEW
@given(values=st.lists(ROW, max_size=4))
def test_any_row(values: list[object]) -> None:
    rows(b"\n".join(map(dumps, values)))


@FEW
@given(values=st.lists(st.lists(JSON, max_size=3), max_size=len(PLACES)))
def test_any_directory(values: list[list[object]]) -> None:
    TARGETS["directory"](b"\0".join(b"\n".join(map(dumps, lines)) for lines in values))


@given(value=JSON)
def test_any_config(value: object) -> None:
    TARGETS["environment"](dumps(value))


def dumps(value: object) -> bytes:
    return json.dumps(value).encode()
