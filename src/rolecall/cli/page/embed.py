"""Puts media, tables and texts into a page, as far as there is room for them. What is not embedded is named by path."""

import base64
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic_core import to_json

from rolecall.backends.markup import html_of
from rolecall.cli.page.contents import Contents, TableSample
from rolecall.cli.page.sampled import by_importance
from rolecall.cli.view.text import visible
from rolecall.rows import Media
from rolecall.store.pictures import NETPBM, png_of

Item = dict[str, Any]

_EMBEDDED: Final = frozenset(
    {
        *("image/png", "image/jpeg", "image/gif", "image/webp"),
        *("audio/wav", "audio/mpeg", "audio/ogg", "audio/flac"),
        *("video/mp4", "video/webm", "video/ogg"),
    }
)
"""Media types that a page may hold as data: a journal may name any, and a stranger may have written it."""
_LARGEST_PIXELS: Final = 1 << 26
"""Of bare pixels, in bytes: whether a PNG of them has room is known only when it is made."""
_LONGEST_HTML: Final = 1 << 20


class Room:
    """How many bytes a page has left."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, size: int) -> bool:
        """Use so many, if there are as many."""
        if size > self.left:
            return False
        self.left -= size
        return True


@dataclass(frozen=True, slots=True)
class Card:
    """What one writer logged under one key, at some of the steps.

    Attributes:
        about: what the page says of it.
        makers: what makes the item of each step; `None` from one that has no room.
    """

    about: Item
    makers: Sequence[Callable[[Room], Item | None]]


def embed(cards: Sequence[Card], room: Room) -> list[Item]:
    """The cards with their items: by turns one of each card, so that all have some, spread over the steps.

    A card is left out if there is no room for its name.
    """
    cards = [card for card in cards if room.take(len(as_json(card.about)))]
    found: list[dict[int, Item]] = [{} for _ in cards]
    turns = [by_importance(len(card.makers)) for card in cards]
    waiting = list(range(len(cards)))
    while waiting:
        waiting = [at for at in waiting if _embed_next(cards[at], turns[at], found[at], room)]
    return [
        {**card.about, "items": [items[at] for at in sorted(items)]} for card, items in zip(cards, found, strict=True)
    ]


def _embed_next(card: Card, turn: Iterator[int], items: dict[int, Item], room: Room) -> bool:
    """Embed one more item of a card; whether to go on with it. One that has no room is followed by others like it."""
    at = next(turn, None)
    item = None if at is None else card.makers[at](room)
    if at is None or item is None:
        return False
    is_whole = not any("left_out" in each for each in item.get("media", ()))
    # A step of which only the path is known is of use if there is no other.
    if is_whole or not items:
        items[at] = item
    return is_whole


# --------------------------------------------------------------------- cards


def media_cards(contents: Contents, job: int) -> Iterator[Card]:
    """Of images, sounds, histograms and other media."""
    for (writer, key), sampled in contents.media.items():
        found = sampled.items()
        about = _about(job, writer, key, sampled.count)
        about["kind"] = found[-1][1][0].kind
        yield Card(about, [_MediaMaker(step, media) for step, media in found])


def table_cards(contents: Contents, job: int) -> Iterator[Card]:
    """Of tables."""
    for (writer, key), sampled in contents.tables.items():
        makers = [_TableMaker(step, table) for step, table in sampled.items()]
        yield Card(_about(job, writer, key, sampled.count), makers)


def text_cards(contents: Contents, job: int) -> Iterator[Card]:
    """Of strings."""
    for (writer, key), sampled in contents.texts.items():
        makers = [_ValueMaker({"step": step, "text": text}) for step, text in sampled.items()]
        yield Card(_about(job, writer, key, sampled.count), makers)


def _about(job: int, writer: str, key: str, count: int) -> Item:
    return {"job": job, "writer": writer, "role": writer.partition("/")[0], "key": key, "count": count}


@dataclass(frozen=True, slots=True)
class _ValueMaker:
    """Makes an item of what is ready for JSON."""

    value: Item

    def __call__(self, room: Room) -> Item | None:
        return self.value if room.take(len(as_json(self.value))) else None


@dataclass(frozen=True, slots=True)
class _MediaMaker:
    """Makes the item of one step of a key with media."""

    step: int
    media: Sequence[Media]

    def __call__(self, room: Room) -> Item | None:
        found = [_medium(media, room) for media in self.media]
        return {"step": self.step, "media": found} if room.take(len(as_json([*map(_named, found)]))) else None


@dataclass(frozen=True, slots=True)
class _TableMaker:
    """Makes the item of one step of a table; its cells may be images."""

    step: int
    table: TableSample

    def __call__(self, room: Room) -> Item | None:
        item: Item = {"step": self.step, "columns": self.table.columns, "count": self.table.count}
        item["rows"], own = [], room
        for row in self.table.rows:
            cells = [_medium(cell, own) if isinstance(cell, Media) else cell for cell in row]
            if any(isinstance(cell, dict) and "left_out" in cell for cell in cells):
                own = Room(0)  # those that follow are as large, and are not looked at
            item["rows"].append(cells)
        size = len(
            as_json([[_named(cell) if isinstance(cell, dict) else cell for cell in row] for row in item["rows"]])
        )
        return item if room.take(size + 100) else None


def _named(item: Item) -> Item:
    """What is said of a file, without its content, for which there is room already."""
    return {name: value for name, value in item.items() if name not in ("src", "html")}


def _medium(media: Media, room: Room) -> Item:
    """One image, sound, histogram or other object."""
    item: Item = {"caption": media.caption, "mime": media.mime, "kind": media.kind}
    if media.kind == "histogram":
        return item | {name: [_short(each) for each in getattr(media, name)] for name in ("counts", "edges")}
    if media.path is None:
        return item
    item["path"] = visible(str(media.path))
    try:
        item["size"] = media.path.stat().st_size
        item.update(_content(media, media.path, item["size"], room))
    except (OSError, ValueError) as error:
        item["problem"] = visible(str(error))
    return item


def _content(media: Media, path: Path, size: int, room: Room) -> Item:
    """What the page holds of a file: nothing if it has no room, or if a browser cannot show it."""
    if media.kind in ("html", "markdown"):
        html = path.read_text("utf-8", "replace") if size <= min(room.left, _LONGEST_HTML) else None
        html = html_of(html) if html is not None and media.kind == "markdown" else html
        return {"html": html} if html is not None and room.take(len(as_json(html))) else {"left_out": True}
    mime = media.mime
    if mime == NETPBM:
        data, mime = png_of(path) if room.left and size <= _LARGEST_PIXELS else b"", "image/png"
    elif mime in _EMBEDDED:
        # A third of a file comes on top of it as base64.
        data = path.read_bytes() if size * 4 // 3 <= room.left else b""
    else:
        return {}
    if not data or not room.take(len(data) * 4 // 3 + 64):
        return {"left_out": True}
    return {"src": f"data:{mime};base64,{base64.b64encode(data).decode()}"}


def _short(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def as_json(value: Any) -> bytes:
    """JSON for a script in a page, with `<` escaped, which would start markup there."""
    return to_json(value, inf_nan_mode="strings").replace(b"<", rb"\u003c")
