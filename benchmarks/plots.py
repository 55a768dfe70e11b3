"""Draws the plots of docs/performance.md, and writes its table, from what `run_all.py` measured.

    python benchmarks/plots.py [--results FOLDER] [--page FILE] [--plots FOLDER]

A plot is an SVG of at most eight bars, 420 units wide with text of 15, so that it is readable on a phone. Its colours
follow the page's light or dark scheme. Only results that are in the folder are drawn.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import escape

HERE: Final = Path(__file__).parent
NAMES: Final = {
    "limit": "the limit",
    "rolecall local": "rolecall",
    "rolecall, mlflow": "rolecall, to MLflow",
    "trackio": "trackio",
    "tensorboardX": "tensorboardX",
    "wandb offline": "wandb, offline",
    "wandb online": "wandb, online",
    "mlflow sqlite": "MLflow, sqlite",
}
"""The peers that are shown."""
BEGIN, END = "<!-- figures: written by benchmarks/plots.py -->", "<!-- end of the figures -->"
WIDTH, LABELS, BARS, ROW, TOP = 420, 150, 185, 30, 8
"""Of a plot: its width, where bars begin, the longest bar, the height of a row, the space above."""
STYLE: Final = """
    text { font: 15px system-ui, sans-serif; fill: #333 }
    .note { fill: #666 }
    .ours { fill: #4051b5; stroke: #4051b5 }
    .theirs { fill: #9a9a9a; stroke: #9a9a9a }
    .mark { stroke: #666; stroke-dasharray: 3 3 }
    @media (prefers-color-scheme: dark) {
      text { fill: #e2e4e9 }
      .note { fill: #b4b8c2 }
      .ours { fill: #8c9eff; stroke: #8c9eff }
      .theirs { fill: #7d828e; stroke: #7d828e }
      .mark { stroke: #b4b8c2 }
    }"""
_NUMBER: Final = re.compile(r"-?[0-9.]+")
Rows = Sequence[Mapping[str, Any]]
Length = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: what it shows, how long it is, up to where a thin line continues, and whether it is rolecall's."""

    label: str
    value: float
    shown: str
    upto: float | None = None
    ours: bool = False


def main() -> None:
    """Draw each plot whose results are there, and write the table."""
    options = _options()
    options.plots.mkdir(parents=True, exist_ok=True)
    results = {}
    for name, draw in {"call": _call, "training": _training, "stream": _stream}.items():
        if kept := _kept(options.results / f"{name}.json"):
            results[name] = kept
            (options.plots / f"{name}.svg").write_text(draw(kept["found"]), encoding="utf-8")
    if "call" in results:
        page = options.page.read_text(encoding="utf-8")
        before, _, rest = page.partition(BEGIN)
        after = rest.partition(END)[2]
        figures = f"{_table(results['call']['found'])}\n\n{_machine([kept['on'] for kept in results.values()])}"
        options.page.write_text(f"{before}{BEGIN}\n\n{figures}\n\n{END}{after}", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "performance.md")
    parser.add_argument("--plots", type=Path, default=HERE.parent / "docs" / "plots")
    return parser.parse_args()


def _kept(path: Path) -> Mapping[str, Any]:
    """What a benchmark measured, and on what; nothing if there is no file."""
    kept: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return kept


def _calls(found: Rows, floats: int) -> Mapping[str, Mapping[str, Any]]:
    """Each peer that is shown, at the pace of a training loop, fastest first."""
    pace = max(row["pace"] for row in found)
    rows = [row for row in found if (row["floats"], row["pace"]) == (floats, pace) and row["peer"] in NAMES]
    return {row["peer"]: row for row in sorted(rows, key=lambda row: float(row["p50"]))}


def _table(found: Rows) -> str:
    ten, hundred = _calls(found, 10), _calls(found, 100)
    lines = [
        "| one call of `log` | 10 floats | 99th percentile | times the limit | 100 floats |",
        "|---|--:|--:|--:|--:|",
    ]
    for peer, row in ten.items():
        name = f"**{NAMES[peer]}**" if _ours(peer) else NAMES[peer]
        cells = [name, _time(row["p50"]), _time(row["p99"]), _ratio(row["x limit"]), _time(hundred[peer]["p50"])]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _machine(runs: Sequence[Mapping[str, Any]]) -> str:
    """What was measured with what; the first run's versions, and how busy the machine was in each."""
    on = runs[0]
    peers = ", ".join(f"{name} {on[name]}" for name in ("wandb", "mlflow", "tensorboardX", "trackio") if name in on)
    lowest, highest = min(each["load"] for each in runs), max(each["load"] for each in runs)
    load = f"a load average of {lowest}" + (f" to {highest}" if highest > lowest else "")
    busy = ": other programs were running" if highest > on["cores"] else ""
    said = f"Table and plots were measured with Python {on['python']}, {peers}, on {on['cores']} cores with {load}"
    return textwrap.fill(f"{said}{busy}.", 120)


def _call(found: Rows) -> str:
    rows = _calls(found, 10)
    bars = [Bar(NAMES[peer], row["p50"], _time(row["p50"]), row["p99"], _ours(peer)) for peer, row in rows.items()]
    notes = ("bar: median; line: to the 99th percentile", "logarithmic scale")
    return _svg("Time of one call of log with 10 floats", bars, _logarithmic(bars), notes)


def _training(found: Rows) -> str:
    step = min(row["step, ms"] for row in found)
    bars = []
    for row in found:
        if row["peer"] in NAMES and (row["step, ms"], row["work"]) == (step, "matrices"):
            median, _, high = (float(number) for number in _NUMBER.findall(row["CPU a row, µs"]))
            bars.append(Bar(NAMES[row["peer"]], median, _time(median), high, _ours(row["peer"])))
    bars.sort(key=lambda bar: bar.value)
    notes = ("bar: median; line: to the end of its 95 % interval", "logarithmic scale")
    return _svg("CPU time that logging a row takes from a training loop", bars, _logarithmic(bars), notes)


def _stream(found: Rows) -> str:
    rows = [row for row in found if row["by"] == "courier"]
    bars = [
        Bar(row["backend"], row["of bulk, %"], f"{row['of bulk, %']} %, {row['rows/s']:,}/s", ours=True) for row in rows
    ]
    scale = BARS * 0.66 / 100  # the numbers beside these bars are long
    notes = ("dashed line: the tracker's own bulk interface", "right: rows a second")
    return _svg("Rows a second of a courier", bars, lambda value: scale * value, notes, mark=100)


def _ours(peer: str) -> bool:
    return peer.startswith("rolecall")


def _logarithmic(bars: Sequence[Bar]) -> Length:
    """From 1 µs to the longest line."""
    longest = math.log(max(max(bar.value, bar.upto or 0) for bar in bars))
    return lambda value: BARS * math.log(max(value, 1.01)) / longest


def _svg(title: str, bars: Sequence[Bar], length: Length, notes: Sequence[str], mark: float | None = None) -> str:
    bottom = TOP + ROW * len(bars)
    height = bottom + 20 * len(notes) + 8
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}\n</style>",
    ]
    x = LABELS + length(mark) if mark is not None else 0
    for at, bar in enumerate(bars):
        lines += _drawn(bar, TOP + ROW * at, length, x)
    if mark is not None:
        lines.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
    for at, note in enumerate(notes):
        lines.append(f'<text class="note" x="0" y="{bottom + 20 * at + 18}">{escape(note)}</text>')
    return "\n".join([*lines, "</svg>\n"])


def _drawn(bar: Bar, top: float, length: Length, mark: float) -> Iterator[str]:
    """Its label, the bar, the thin line, and the number, which is right of the mark too."""
    kind = "ours" if bar.ours else "theirs"
    end = LABELS + length(bar.value)
    yield f'<text x="{LABELS - 8}" y="{top + 19}" text-anchor="end">{escape(bar.label)}</text>'
    yield f'<rect class="{kind}" x="{LABELS}" y="{top + 5}" width="{end - LABELS:.1f}" height="18" stroke="none"/>'
    if bar.upto is not None and (far := LABELS + length(bar.upto)) > end:
        yield f'<line class="{kind}" x1="{end:.1f}" x2="{far:.1f}" y1="{top + 14}" y2="{top + 14}" stroke-width="2"/>'
        end = far
    yield f'<text x="{max(end, mark) + 7:.1f}" y="{top + 19}">{escape(bar.shown)}</text>'


def _ratio(number: float) -> str:
    return f"{number:.1f}" if number < 10 else f"{number:.0f}"


def _time(microseconds: float) -> str:
    """With two or three digits, in the unit that fits."""
    number, unit = (microseconds, "µs") if microseconds < 999.5 else (microseconds / 1000, "ms")
    return f"{number:.1f}\N{NO-BREAK SPACE}{unit}" if number < 10 else f"{number:.0f}\N{NO-BREAK SPACE}{unit}"


if __name__ == "__main__":
    main()
