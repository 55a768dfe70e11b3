"""Draws what is on a terminal, with its colours, as SVG: sharp at any size, and a few kilobytes."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import groupby

from rich.ansi import AnsiDecoder
from rich.console import Console
from rich.style import Style

__all__ = ["draw_terminal"]

WIDTH, HEIGHT, FONT, MARGIN = 8.4, 17, 14, 12
"""Of a cell, in pixels; of a letter, which is as wide as a cell then; and around all of them."""
PAPER, INK = "#1f2430", "#d8dee9"
COLOURS = ("#3b4252", "#ff6b6b", "#8ccf7e", "#e5c76b", "#7aa2f7", "#c792ea", "#6cbfd8", "#e5e9f0")
"""Black, red, green, yellow, blue, magenta, cyan and white, as a terminal with a dark theme has them."""
DIM = 0.6
BRAILLE, BLOCKS = range(0x2800, 0x2900), range(0x2581, 0x2589)
DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
"""Column and row of each bit of a character of braille."""
DOT = 2.2


def draw_terminal(screen: str, columns: int) -> str:
    """The picture of a screen.

    Args:
        screen: its lines, with the escape sequences of colours.
        columns: how wide the terminal is.
    """
    lines = list(AnsiDecoder().decode(screen.rstrip("\n")))
    width, height = columns * WIDTH + 2 * MARGIN, len(lines) * HEIGHT + 2 * MARGIN
    console = Console(width=columns, color_system="standard")
    parts: list[str] = []
    for row, line in enumerate(lines):
        at = 0
        for segment in line.render(console):
            parts += _segment(segment.text, segment.style or Style(), at, row)
            at += len(segment.text)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" width="{width:g}" height="{height}">'
        f'<rect width="100%" height="100%" rx="8" fill="{PAPER}"/>'
        f'<g fill="{INK}" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="{FONT}" '
        f'transform="translate({MARGIN} {MARGIN})">\n' + "\n".join(parts) + "\n</g></svg>\n"
    )


def _segment(text: str, style: Style, at: int, row: int) -> Iterator[str]:
    """Words as text, each as wide as its cells whatever the font; what charts are made of as shapes."""
    colour = None if style.color is None else style.color.number
    look = "" if colour is None else f' fill="{COLOURS[colour % 8]}"'
    look += f' opacity="{DIM}"' if style.dim else ""
    for is_shape, group in groupby(text, _is_shape):
        part = "".join(group)
        if is_shape:
            path = "".join(_shape(char, (at + n) * WIDTH, row * HEIGHT) for n, char in enumerate(part))
            yield f'<path{look} d="{path}"/>'
        elif part.strip():
            bold = ' font-weight="bold"' if style.bold else ""
            yield from _words(part, f"{look}{bold}", at, row)
        at += len(part)


def _words(text: str, look: str, at: int, row: int) -> Iterator[str]:
    for is_space, group in groupby(text, str.isspace):
        word = "".join(group)
        if not is_space:
            place = f'x="{at * WIDTH:.1f}" y="{(row + 0.76) * HEIGHT:.1f}"'
            yield f'<text {place}{look} textLength="{len(word) * WIDTH:.1f}">{escape(word)}</text>'
        at += len(word)


def _is_shape(char: str) -> bool:
    return ord(char) in BRAILLE or ord(char) in BLOCKS or char in "│┤"


def _shape(char: str, x: float, y: float) -> str:
    """The outline of a character: fonts differ in these, or do not have them."""
    code = ord(char)
    if code in BLOCKS:
        high = (code - BLOCKS.start + 1) * HEIGHT / 8
        return _box(x, y + HEIGHT - high, WIDTH, high)
    if code in BRAILLE:
        found = [dot for bit, dot in enumerate(DOTS) if code >> bit & 1]
        places = [(x + (column + 0.5) * WIDTH / 2, y + (row + 0.5) * HEIGHT / 4) for column, row in found]
        return "".join(_box(left - DOT / 2, top - DOT / 2, DOT, DOT) for left, top in places)
    bar = _box(x + WIDTH / 2 - 0.5, y, 1, HEIGHT)
    return bar + (_box(x, y + HEIGHT / 2 - 0.5, WIDTH / 2, 1) if char == "┤" else "")


def _box(x: float, y: float, width: float, height: float) -> str:
    return f"M{x:.1f} {y:.1f}h{width:.1f}v{height:.1f}h-{width:.1f}z"
