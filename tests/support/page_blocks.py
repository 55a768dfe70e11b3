"""The pages of this repository, and the fenced blocks in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sybil import Document, Sybil
from sybil.parsers.markdown.lexers import RawFencedCodeBlockLexer
from sybil.region import Region

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "plugins").glob("*/README.md"))]

INFO = re.compile(r"(?P<language>[^\s`]*)[ \t]*(?P<options>[^\n]*)\n")
TITLE = re.compile(r'title="([^"]*)"')


@dataclass(frozen=True)
class Block:
    """One fenced block, and the line that it begins behind."""

    language: str
    title: str
    text: str
    path: Path
    line: int


def blocks(path: Path) -> list[Block]:
    """A page's fenced blocks, in order."""

    def parse(document: Document) -> Iterator[Region]:
        for region in RawFencedCodeBlockLexer(INFO)(document):
            yield Region(region.start, region.end, region.lexemes, lambda _: None)

    examples = Sybil(parsers=[parse]).parse(path).examples()
    return [_block(path, example.line, example.parsed) for example in examples]


def _block(path: Path, line: int, parsed: Mapping[str, str]) -> Block:
    title = TITLE.search(parsed["options"])
    return Block(parsed["language"], title[1] if title else "", str(parsed["source"]), path, line)
