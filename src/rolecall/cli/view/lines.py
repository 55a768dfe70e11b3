"""Lines of a terminal: text with styles, cut and padded by the cells that it takes on the screen."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from rolecall.cli.view.text import visible

_SGR: Final = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
"""The sixteen colours of the terminal's own theme: they can be read on a light and on a dark one."""
SERIES: Final = ("cyan", "yellow", "magenta", "green", "blue", "red")
"""The styles of lines in one chart."""
_RESET: Final = "\x1b[0m"


class Span(NamedTuple):
    """A piece of text, with styles such as `"bold red"`."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One line.

    Attributes:
        spans: its pieces.
        is_whole: it holds a command or a path, and is never cut, so that it can be copied.
    """

    spans: tuple[Span, ...] = ()
    is_whole: bool = False

    @property
    def width(self) -> int:
        """How many cells of the screen it takes."""
        return sum(cells(span.text) for span in self.spans)

    def rows(self, width: int) -> int:
        """How many rows of a screen of this width it takes."""
        return max(1, -(-self.width // width)) if self.is_whole else 1

    def cut(self, width: int) -> "Line":
        """The same, in at most this many cells, unless it is whole."""
        if self.is_whole or self.width <= width:
            return self
        kept: list[Span] = []
        for span in self.spans:
            text = cut(span.text, width)
            kept.append(Span(text, span.style))
            if text != span.text:
                break
            width -= cells(text)
        return Line(tuple(kept))

    def fitting(self, width: int) -> "Line":
        """The same without the spans at its end for which there is no room; if there is none for the first, cut."""
        room = [sum(cells(span.text) for span in self.spans[: at + 1]) <= width for at in range(len(self.spans))]
        return Line(self.spans[: room.index(False)] or self.cut(width).spans) if False in room else self

    def padded(self, width: int) -> "Line":
        """The same, in exactly this many cells."""
        fitted = self.cut(width)
        return Line((*fitted.spans, Span(" " * (width - fitted.width))))

    def __add__(self, other: "Line") -> "Line":
        return Line(self.spans + other.spans, self.is_whole or other.is_whole)


@dataclass(frozen=True, slots=True)
class Look:
    """What the terminal, or the file that is written to, can show.

    Attributes:
        width: in cells.
        height: in rows; `None` where nothing has to fit.
        has_colour: whether it shows colours.
        has_unicode: whether it shows more than ASCII.
    """

    width: int
    height: int | None = None
    has_colour: bool = False
    has_unicode: bool = True

    def text(self, text: str) -> str:
        """The text as it can be shown: with nothing that a terminal would act on, and in its character set."""
        shown = visible(text)
        return shown if self.has_unicode else shown.encode("ascii", "backslashreplace").decode()

    def line(self, *pieces: str | tuple[str, str], is_whole: bool = False) -> Line:
        """A line of pieces of text, each alone or with its style."""
        spans = ((piece, "") if isinstance(piece, str) else piece for piece in pieces)
        return Line(tuple(Span(self.text(text), style) for text, style in spans), is_whole)

    def shorten(self, text: str, width: int) -> str:
        """The text without its middle where it is too long: names differ at both ends."""
        text = self.text(text)
        if cells(text) <= width:
            return text
        dots = "…" if self.has_unicode else "..."
        room = max(0, width - len(dots))
        return cut(text, room - room // 2) + dots + cut(text[::-1], room // 2)[::-1]

    def paint(self, line: Line) -> str:
        """The line as it is written."""
        if not self.has_colour:
            return "".join(span.text for span in line.spans).rstrip()
        return "".join(_styled(span) for span in line.spans)


def cells(text: str) -> int:
    """How many cells of the screen a text takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def cut(text: str, width: int) -> str:
    """The beginning of a text that takes at most this many cells."""
    if cells(text) <= width:
        return text
    if text.isascii():
        return text[: max(0, width)]
    used = 0
    for at, char in enumerate(text):
        used += _cells(char)
        if used > width:
            return text[:at]
    return text


def grid(blocks: Iterable[list[Line]], width: int, gap: int) -> list[Line]:
    """Blocks of lines beside each other, each padded to `width`."""
    columns = list(blocks)
    height = max((len(column) for column in columns), default=0)
    lines = []
    for row in range(height):
        parts = [column[row] if row < len(column) else Line() for column in columns]
        spaced = [*(part.padded(width + gap) for part in parts[:-1]), parts[-1].cut(width)]
        lines.append(Line(tuple(span for part in spaced for span in part.spans)))
    return lines


def _cells(char: str) -> int:
    if "\u2500" <= char <= "\u259f" or "\u2800" <= char <= "\u28ff":
        return 1  # frames and Braille: most of what is drawn, and quick
    if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def _styled(span: Span) -> str:
    if not span.style or not span.text:
        return span.text
    return f"\x1b[{';'.join(_SGR[word] for word in span.style.split())}m{span.text}{_RESET}"
