"""Makes docs/images anew, as the project, its demo and the trackers' web UIs are now. Run by `nox -s pictures`.

`make_pictures.py demo` makes one group alone: `demo`, `media` or `terminal`.
"""

from __future__ import annotations

import sys

import demo_pictures
import media_pictures
import terminal_pictures

GROUPS = {"demo": demo_pictures.take_all, "media": media_pictures.take_all, "terminal": terminal_pictures.take_all}


def main() -> None:
    """Make the groups that the arguments name, or else all."""
    for name in sys.argv[1:] or GROUPS:
        GROUPS[name]()


if __name__ == "__main__":
    main()
