"""Passes the config, the summary and the tags of writers on to a run, the whole of them after each change."""

from collections.abc import Callable, Iterator
from typing import Any, Final

from rolecall.errors import BackendError, BackendRefused, Unavailable
from rolecall.protocol import Run, SupportsConfig, SupportsSummary, SupportsTags
from rolecall.rows import DETAILS, Details

_LACKING: Final = {
    "config": "it takes no config after its run was opened; what update_config changed is in the job's directory",
    "summary": "it holds no summary, which stays in the job's directory",
    "tags": "it takes no tags after its run was opened; these stay in the job's directory",
}


class Told:
    """What a run was told so far."""

    def __init__(self) -> None:
        self._last: dict[str, Any] = {kind: getattr(Details(), kind) for kind in DETAILS}

    def tell(self, run: Run, now: Details) -> Iterator[str]:
        """Tell the run what differs from what it was told last; yields, in words, what it does not take.

        Raises:
            Unavailable: not now; the next call tells it again.
        """
        methods: dict[str, Callable[[Any], None] | None] = {
            "config": run.merge_config if isinstance(run, SupportsConfig) else None,
            "summary": run.merge_summary if isinstance(run, SupportsSummary) else None,
            "tags": run.set_tags if isinstance(run, SupportsTags) else None,
        }
        for kind, method in methods.items():
            if (value := getattr(now, kind)) == self._last[kind]:
                continue
            try:
                if method is None:
                    yield _LACKING[kind]
                else:
                    method(value)
            except (Unavailable, BackendRefused, BackendError):
                raise
            except Exception as error:  # noqa: BLE001 - rows must not wait for what would fail again
                reason = f"{type(error).__name__}: {error}"
                yield f"it does not take the {kind}, which stays in the job's directory ({reason})"
            self._last[kind] = value
