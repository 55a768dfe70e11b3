"""Reads the server of the `lines` backend, and makes it fail."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class LinesServer:
    """The directory that the `lines` backend takes for its server."""

    path: Path

    def fail(self, fault: str, content: str = "") -> None:
        (self.path / fault).write_text(content)

    def fix(self, fault: str) -> None:
        (self.path / fault).unlink()

    def runs(self) -> list[str]:
        return sorted(path.stem for path in self.path.glob("*.jsonl"))

    def lines(self, run: str | None = None) -> list[dict[str, Any]]:
        """Every line of one run, by default of all; but not the half of one that is being written."""
        names = [run] if run else self.runs()
        texts = [(self.path / f"{name}.jsonl").read_text() for name in names]
        return [json.loads(line) for text in texts for line in text.split("\n")[:-1]]

    def points(self, run: str, writer: str, key: str) -> list[tuple[int, float]]:
        rows = [line for line in self.lines(run) if line.get("writer") == writer]
        return sorted((line["step"], line["metrics"][key]) for line in rows if key in line["metrics"])

    def seqs(self, writer: str) -> list[tuple[int, int]]:
        """Session and seq of every row of a writer, in the order of arrival."""
        return [(line["session"], line["seq"]) for line in self.lines() if line.get("writer") == writer]
