"""What a run was told beside its rows: told again to each SDK that goes on with it, and at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import wandb

__all__ = ["Told"]


class Told:
    """The config, summary and tags of a run that change while it is open.

    Args:
        tags: the tags that it has beside.
    """

    def __init__(self, tags: Sequence[str] = ()) -> None:
        self._others = tuple(tags)
        self.config: dict[str, Any] = {}
        self.summary: Mapping[str, float | str] = {}
        self.tags: Sequence[str] | None = None

    def tell(self, run: wandb.Run) -> None:
        """Tell everything. Whatever the SDK raises passes through."""
        if self.config:
            self.tell_config(run, self.config)
        self.tell_summary(run)
        if self.tags is not None:
            self.set_tags(run, self.tags)

    def tell_config(self, run: wandb.Run, config: Mapping[str, Any]) -> None:
        """Merge a config by top-level key."""
        self.config.update(config)
        run.config.update(dict(config), allow_val_change=True)  # type: ignore[no-untyped-call]

    def merge_summary(self, run: wandb.Run, summary: Mapping[str, float | str]) -> None:
        """Set the values, and remove those that were there before."""
        gone, self.summary = self.summary.keys() - summary.keys(), dict(summary)
        self.tell_summary(run)
        for key in gone:
            with suppress(KeyError):
                del run.summary[key]  # type: ignore[no-untyped-call]

    def tell_summary(self, run: wandb.Run) -> None:
        """Set the values again: those of rows under the same keys take their places, as in wandb itself."""
        if self.summary:
            run.summary.update(dict(self.summary))

    def set_tags(self, run: wandb.Run, tags: Sequence[str]) -> None:
        """Give the run these tags, beside those that it has from elsewhere."""
        self.tags = tags
        run.tags = tuple(dict.fromkeys([*self._others, *tags]))
