"""The messages that docs/troubleshooting.md explains are messages of the sources, word for word."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [*(ROOT / "src").rglob("*.py"), *(ROOT / "plugins").glob("*/src/**/*.py")]
EXPLAINED = re.findall(r"^### `(.+)`$", (ROOT / "docs/troubleshooting.md").read_text(), re.MULTILINE)
GAP = "\0"
"""In place of what a message fills in."""


def strings(tree: ast.AST) -> Iterator[str]:
    """Every string of a module, implicit concatenations joined."""
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else GAP for part in node.values]
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.fixture(scope="module")
def messages() -> str:
    return "\n".join(text for path in SOURCES for text in strings(ast.parse(path.read_text())))


@pytest.mark.parametrize("heading", EXPLAINED)
def test_the_message_is_in_the_sources(heading: str, messages: str) -> None:
    for words in filter(None, (part.strip(" .;:") for part in heading.split("..."))):
        assert words in messages
