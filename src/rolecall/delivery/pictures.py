"""The PNG files that backends get instead of bare pixels."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rolecall.errors import Rejected
from rolecall.rows import Media, Row
from rolecall.store.pictures import NETPBM, png_of


class Pictures:
    """Draws the images of rows, and keeps the files until they are cleared."""

    def __init__(self) -> None:
        self._folder: TemporaryDirectory[str] | None = None

    def drawn(self, row: Row) -> Row:
        """The row, with PNG files of its pixels.

        Raises:
            Rejected: a file does not hold what it says.
        """
        if not any(media.mime == NETPBM for media in row.media):
            return row
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="rolecall-", ignore_cleanup_errors=True)
        try:
            return replace(row, media=tuple(_drawn(media, Path(self._folder.name)) for media in row.media))
        except ValueError as error:
            raise Rejected([row], str(error)) from error

    def clear(self) -> None:
        """Remove the files: nobody needs them any more."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None


def _drawn(media: Media, folder: Path) -> Media:
    if media.mime != NETPBM or media.path is None:
        return media
    path = folder / f"{media.path.stem}.png"
    if not path.exists():
        path.write_bytes(png_of(media.path))
    return replace(media, path=path, mime="image/png")
