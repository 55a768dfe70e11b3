"""What standard output can show, and what it takes to write there."""

import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterable, Sequence
from types import FrameType, TracebackType
from typing import Any, Final, NoReturn, Self

from rolecall.cli.view.lines import Line, Look

UNBOUNDED: Final = 10_000
"""The width of a file or a pipe, in which nothing has to be folded."""
_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[2J"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"  # drawn at once by terminals that know this, ignored by others


def look_at_output(*, ascii_only: bool = False) -> Look:
    """What standard output shows.

    Colours as in Python itself (3.13): not with `NO_COLOR`, always with `FORCE_COLOR`, else on a terminal that is not
    `dumb`.
    """
    is_terminal = sys.stdout.isatty()
    has_size = is_terminal or "COLUMNS" in os.environ
    columns, rows = shutil.get_terminal_size()
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "").replace("_", "")
    return Look(
        width=max(1, columns) if has_size else UNBOUNDED,
        height=rows if is_terminal else None,
        has_colour=_has_colour(is_terminal),
        has_unicode=not ascii_only and encoding == "utf8",
    )


def write(lines: Iterable[Line], look: Look) -> None:
    """Print lines."""
    for line in lines:
        print(look.paint(line))


def is_dumb() -> bool:
    """Whether the terminal cannot move its cursor."""
    return os.environ.get("TERM", "dumb") in ("", "dumb")


def _has_colour(is_terminal: bool) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return is_terminal and not is_dumb()


class LiveTerminal:
    """The alternate screen of the terminal; whatever happens, the terminal is then as it was before."""

    def __init__(self) -> None:
        self._out = sys.stdout
        self._keys = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else -1
        self._mode: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self._wake, self._woken = os.pipe()
        self._shown: list[tuple[str, int]] = []
        self._is_resized = self._is_stopped = False

    def __enter__(self) -> Self:
        for descriptor in (self._wake, self._woken):
            os.set_blocking(descriptor, False)
        # `select` returns at once when a signal comes, be it just before the call.
        self._old_wakeup = signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        for number, handler in self._wanted().items():
            self._handlers[number] = signal.signal(number, handler)
        self._enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A second signal must not leave the terminal half restored.
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)
        self._leave()
        signal.set_wakeup_fd(self._old_wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for descriptor in (self._wake, self._woken):
            os.close(descriptor)

    def size(self) -> tuple[int, int]:
        """Columns and rows, as they are now; not as the environment says."""
        found = os.get_terminal_size(self._out.fileno())
        return max(1, found.columns), max(2, found.lines)

    def show(self, lines: Sequence[Line], look: Look) -> None:
        """Write the lines that are not on the screen yet."""
        # A command is longer than the screen is wide: the terminal folds it, so that it can be copied.
        rows = [(look.paint(line), part) for line in lines for part in range(line.rows(look.width))][: look.height]
        before = self._shown if len(self._shown) == len(rows) else []
        changed = [at for at, row in enumerate(rows) if not before or before[at] != row]
        if changed:
            # From below: a row is cleared before the text above it is folded into it.
            found = ((at + 1, "" if rows[at][1] else rows[at][0]) for at in reversed(changed))
            text = "".join(f"\x1b[{row};1H\x1b[K{painted}" for row, painted in found)
            self._write(_BEGIN + ("" if before else "\x1b[2J") + text + _END)
        self._shown = rows

    def wait(self, seconds: float) -> str:
        """Until a key is pressed, the screen changes its size, or the time is over; the key, if there is one."""
        ready, _, _ = select.select([self._wake, *([self._keys] if self._keys >= 0 else [])], [], [], seconds)
        if self._wake in ready:
            os.read(self._wake, 1024)
        if self._is_stopped:
            self._stop()
        if self._keys in ready:
            return os.read(self._keys, 1024)[:1].decode("ascii", "replace")
        return ""

    def take_resized(self) -> bool:
        """Whether all has to be drawn again, since the last call."""
        is_resized, self._is_resized = self._is_resized, False
        if is_resized:
            self._shown = []
        return is_resized

    def _wanted(self) -> dict[int, Callable[[int, FrameType | None], None]]:
        return {
            signal.SIGTERM: _exit,
            signal.SIGHUP: _exit,
            signal.SIGWINCH: lambda *_: setattr(self, "_is_resized", True),
            signal.SIGTSTP: lambda *_: setattr(self, "_is_stopped", True),
        }

    def _stop(self) -> None:
        """Ctrl-Z: give the terminal back to the shell until `fg`."""
        self._is_stopped = False
        self._leave()
        handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, handler)
        self._enter()
        self._is_resized = True

    def _enter(self) -> None:
        if self._keys >= 0:
            self._mode = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys)
        self._write(_ENTER)

    def _leave(self) -> None:
        try:
            self._write(_LEAVE)
        except OSError:  # the terminal is gone, and so is what there was to restore
            return
        if self._mode:
            termios.tcsetattr(self._keys, termios.TCSANOW, self._mode)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def _exit(number: int, _: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
