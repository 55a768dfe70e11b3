"""A progress bar for what takes longer than a moment."""

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from rolecall import timings
from rolecall.config.environment import prints_lines

_WIDTH: Final = 20
_ERASE: Final = "\r\x1b[K"
"""Back to the start of the line, and clear it (ECMA-48)."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far something is.

    Attributes:
        what: in words.
        done: of how many there are; not known where `total` is 0.
        total: how many there are.
    """

    what: str
    done: int = 0
    total: int = 0

    def draw(self, seconds: float) -> str:
        """The bar, or the seconds where nobody knows how far it is."""
        if not self.total:
            return f"{self.what} ({seconds:.0f} s)"
        full = _WIDTH * min(self.done, self.total) // self.total
        return f"{self.what} {'━' * full}{'╌' * (_WIDTH - full)} {self.done}/{self.total}"


@contextmanager
def bar(look: Callable[[], Progress]) -> Iterator[None]:
    """Draw a bar on standard error while the block runs, if it is a terminal, from 2 s on; erase it at the end.

    Args:
        look: says how far it is, on a thread of the bar's own: it may block, and then nothing is drawn.
    """
    if not _is_terminal() or not prints_lines():
        yield
        return
    drawn = _Drawing(look)
    thread = threading.Thread(target=drawn.run, name="rolecall-bar", daemon=True)
    with suppress(RuntimeError):  # in a function of `atexit`: see `rolecall.job.status`
        thread.start()
    try:
        yield
    finally:
        drawn.end()


def _is_terminal() -> bool:
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # the program has closed it
        return False


class _Drawing:
    def __init__(self, look: Callable[[], Progress]) -> None:
        self._look = look
        self._over = threading.Event()
        self._turn = threading.Lock()
        self._began = time.monotonic()
        self._is_drawn = False

    def run(self) -> None:
        is_over = self._over.wait(timings.NOTICE)
        while not is_over:
            with suppress(OSError, ValueError):  # the directory does not answer; the terminal is gone
                self._draw(self._look())
            is_over = self._over.wait(timings.DRAW_INTERVAL)

    def end(self) -> None:
        self._over.set()
        with suppress(OSError, ValueError), self._turn:
            if self._is_drawn:
                _write(_ERASE)

    def _draw(self, progress: Progress) -> None:
        text = f"rolecall: {progress.draw(time.monotonic() - self._began)}"
        with self._turn:
            # The look may have taken long: behind the end, a bar would stay on the terminal.
            if not self._over.is_set():
                self._is_drawn = True
                _write(_ERASE + text[: shutil.get_terminal_size().columns - 1])


def _write(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
