"""The pages of this repository, and the fenced blocks in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
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


def run_page(path: Path, folder: Path) -> str:
    """Write a page's files into a folder, and run its commands, but those that install; returns what they print."""
    found = blocks(path)
    for block in found:
        if block.title.endswith(".py"):
            (folder / block.title).write_text(block.text)
    commands = [block.text for block in found if block.language == "shell" and not block.text.startswith("pip ")]
    script = ["bash", "-euo", "pipefail", "-c", "\n".join(commands)]
    environment = {**os.environ, "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))}
    ran = subprocess.run(script, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout + ran.stderr


def _block(path: Path, line: int, parsed: Mapping[str, str]) -> Block:
    title = TITLE.search(parsed["options"])
    return Block(parsed["language"], title[1] if title else "", str(parsed["source"]), path, line)
