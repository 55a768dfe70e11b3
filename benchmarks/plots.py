"""Draws what `run_all.py` kept.

python benchmarks/plots.py RESULTS PLOTS
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

OURS, THEIRS = "#3f51b5", "#9e9e9e"
_NUMBER = re.compile(r"-?[0-9.]+")
Rows = Sequence[Mapping[str, Any]]


def main() -> None:
    """Draw each plot whose results are there."""
    results, plots = Path(sys.argv[1]), Path(sys.argv[2])
    plots.mkdir(parents=True, exist_ok=True)
    mpl.rcParams.update({"svg.hashsalt": "rolecall", "font.size": 9, "axes.spines.right": False})
    mpl.rcParams.update({"axes.spines.top": False, "svg.fonttype": "none"})
    for name, draw in {"call": _call, "training": _training, "stream": _stream, "scale": _scale}.items():
        path = results / f"{name}.json"
        if path.exists():
            figure = draw(json.loads(path.read_text(encoding="utf-8"))["found"])
            figure.savefig(plots / f"{name}.svg", bbox_inches="tight", metadata={"Date": None})


def _call(found: Rows) -> Any:
    """A dot for the median, a line to the 99th percentile."""
    rows = [row for row in found if row["floats"] == 10 and row["pace"] > 0]
    figure, axes = plt.subplots(figsize=(7, 0.3 * len(rows) + 0.8))
    for at, row in enumerate(reversed(rows)):
        colour = _colour(row["peer"])
        axes.plot([row["p50"], row["p99"]], [at, at], color=colour)
        axes.plot(row["p50"], at, "o", color=colour)
    axes.set_yticks(range(len(rows)), [row["peer"] for row in reversed(rows)])
    axes.set(xscale="log", xlabel="log of 10 floats, µs: median, and line to the 99th percentile")
    return figure


def _training(found: Rows) -> Any:
    """CPU for each row, the median of pairs with its interval."""
    step = min(row["step, ms"] for row in found)
    rows = [row for row in found if row["step, ms"] == step and row["work"] == "matrices"]
    figure, axes = plt.subplots(figsize=(7, 0.3 * len(rows) + 0.8))
    for at, row in enumerate(reversed(rows)):
        median, low, high = (max(0.1, float(one)) for one in _NUMBER.findall(row["CPU a row, µs"]))
        axes.errorbar(
            median, at, xerr=[[median - low], [high - median]], fmt="o", color=_colour(row["peer"]), capsize=2
        )
    axes.set_yticks(range(len(rows)), [row["peer"] for row in reversed(rows)])
    axes.set(xscale="log", xlabel=f"CPU of the training process for a row of 10 metrics, µs (steps of {step} ms)")
    return figure


def _stream(found: Rows) -> Any:
    """The courier's bar beside that of the backend's own bulk call."""
    backends = list(dict.fromkeys(row["backend"] for row in found))
    rates = {(row["backend"], row["by"]): row["rows/s"] for row in found}
    figure, axes = plt.subplots(figsize=(7, 2.4))
    for shift, (by, colour) in enumerate({"bulk": THEIRS, "courier": OURS}.items()):
        places = [at + 0.4 * shift for at in range(len(backends))]
        axes.bar(places, [rates[one, by] for one in backends], width=0.38, color=colour, label=by)
    axes.set_xticks([at + 0.2 for at in range(len(backends))], backends)
    axes.set(ylabel="rows of 10 metrics a second", yscale="log")
    axes.legend(frameon=False)
    return figure


def _scale(found: Rows) -> Any:
    """What is to be flat."""
    shown = (
        ("writers", "writers", "flush, ms CPU"),
        ("keys", "keys", "flush, ms CPU"),
        ("keys", "keys", "log, µs"),
        ("journal", "rows", "log, µs"),
        ("journal", "rows", "open_monitor, ms"),
        ("journal", "rows", "a courier begins, ms"),
    )
    figure, panels = plt.subplots(2, 3, figsize=(9, 4.4), layout="constrained")
    for axes, (what, x, y) in zip(panels.flat, shown, strict=True):
        rows = [row for row in found if row["what"] == what]
        axes.plot([row[x] for row in rows], [row[y] for row in rows], "o-", color=OURS)
        axes.set(xscale="log", xlabel=f"{x} ({what})" if x != what else x, ylabel=y, ylim=(0, None))
    return figure


def _colour(peer: str) -> str:
    return OURS if peer.startswith("rolecall") else THEIRS


if __name__ == "__main__":
    main()
