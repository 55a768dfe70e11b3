"""docs/performance.md and docs/relay.md show what was measured: plots and tables are those of benchmarks/results."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PHONE = 390 - 2 * 16
"""Pixels between the margins of a page."""
SVG = "{http://www.w3.org/2000/svg}"
PLOTS = ["call", "training", "stream"]


def test_plots_and_table_match_the_results(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text((DOCS / "performance.md").read_text())
    subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/plots.py"), "--page", str(page), "--plots", str(tmp_path)], check=True
    )
    drawn = {path.name: path.read_text() for path in tmp_path.iterdir()}
    kept = [DOCS / "performance.md", *(DOCS / "plots").iterdir()]
    assert drawn == {path.name: path.read_text() for path in kept}


def test_tables_of_the_relay_match_the_results() -> None:
    command = [sys.executable, "benchmarks/relay.py", "--tables", "benchmarks/results/relay.json"]
    made = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    page = (DOCS / "relay.md").read_text()
    assert [table for table in made.split("\n\n") if table not in page] == []


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_fits_a_phone(name: str) -> None:
    """At most eight bars, text of 12 pixels or more, and labels that are not cut off."""
    plot = ET.parse(DOCS / "plots" / f"{name}.svg").getroot()
    assert 1 < len(plot.findall(f"{SVG}rect")) <= 8
    style = plot.findtext(f"{SVG}style", "")
    smallest = min(map(int, re.findall(r"(\d+)px", style)))
    assert smallest * PHONE / float(plot.attrib["width"]) >= 12
    labels = [text.text or "" for text in plot.findall(f"{SVG}text") if text.get("text-anchor") == "end"]
    assert max(map(len, labels)) <= 20
    assert f"](plots/{name}.svg)" in (DOCS / "performance.md").read_text()
