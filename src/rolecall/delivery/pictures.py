"""The PNG and GIF files that backends get instead of bare pixels, and the pages that some get instead of Markdown."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rolecall.backends.markup import html_of
from rolecall.errors import Rejected
from rolecall.rows import Cell, Media, MediaKind, Row
from rolecall.store.pictures import FRAMES, NETPBM, gif_of, png_of


class Pictures:
    """Draws the images of rows, and keeps the files until they are cleared."""

    def __init__(self) -> None:
        self._folder: TemporaryDirectory[str] | None = None

    def drawn(self, row: Row, in_cells: frozenset[MediaKind] = frozenset()) -> Row:
        """The row, with PNG files of its pixels.

        Args:
            row: a table, or media.
            in_cells: the kinds that a cell of a table may be; for another one, it is the path of the file.

        Raises:
            Rejected: a file does not hold what it says.
        """
        try:
            if row.table is not None and any(isinstance(cell, Media) for cells in row.table.rows for cell in cells):
                cells = tuple(tuple(self._cell(cell, in_cells) for cell in cells) for cells in row.table.rows)
                return replace(row, table=replace(row.table, rows=cells))
            if any(media.mime.startswith(NETPBM) for media in row.media):
                return replace(row, media=tuple(map(self._drawn, row.media)))
        except ValueError as error:
            raise Rejected([row], str(error)) from error
        return row

    def page(self, row: Row) -> Row:
        """A row of Markdown as one of HTML."""
        return replace(row, media=tuple(map(self._page, row.media)))

    def _page(self, media: Media) -> Media:
        if media.path is None:
            return media
        path = self._made() / f"{media.path.stem}.html"
        if not path.exists():
            path.write_text(html_of(media.path.read_text("utf-8", "replace")), "utf-8")
        return replace(media, kind="html", path=path, mime="text/html")

    def _cell(self, cell: Cell, kinds: frozenset[MediaKind]) -> Cell:
        if not isinstance(cell, Media):
            return cell
        return self._drawn(cell) if cell.kind in kinds else str(cell.path or "")

    def _drawn(self, media: Media) -> Media:
        if not media.mime.startswith(NETPBM) or media.path is None:
            return media
        is_video = media.mime.startswith(FRAMES)
        path = self._made() / f"{media.path.stem}{'.gif' if is_video else '.png'}"
        if not path.exists():
            fps = float(media.mime.removeprefix(FRAMES)) if is_video else 0.0
            path.write_bytes(gif_of(media.path, fps) if is_video else png_of(media.path))
        return replace(media, path=path, mime="image/gif" if is_video else "image/png")

    def _made(self) -> Path:
        """Where the files are."""
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="rolecall-", ignore_cleanup_errors=True)
        return Path(self._folder.name)

    def clear(self) -> None:
        """Remove the files: nobody needs them any more."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
