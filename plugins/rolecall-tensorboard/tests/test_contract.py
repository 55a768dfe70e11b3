"""The contract that every backend must pass, read with TensorBoard's own reader."""

from __future__ import annotations

import html
import math
import re
import struct
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import pytest

from rolecall.testing import BackendContract, HeldRun, HeldTable, Points

KINDS = ("image", "histogram", "html", "markdown", "audio", "video", "figure")


@pytest.mark.processes
class TestContract(BackendContract):
    monitor_type = "tensorboard"
    tolerance = 1e-6
    preload: ClassVar[tuple[str, ...]] = ("tensorboardX", "tensorboard.backend.event_processing.event_accumulator")
    can = frozenset({"times", "text", "tables", "config", "summary", "tags", "progress", "readback"}) | {
        f"media:{kind}" for kind in KINDS
    }
    cannot: ClassVar[Mapping[str, str]] = {
        "shared": "TensorBoard cannot read a directory that several processes write to",
        "axes": "each tag has its own steps",
        "table_media": "its images are shown under tags of their own, which test_media reads",
        "media:file": "TensorBoard has no place for files",
        "status": "event files have no place for it",
        "end_time": "event files have no place for it",
    }

    def expected_value(self, value: float) -> float:
        """In 32 bits."""
        try:
            (held,) = struct.unpack("<f", struct.pack("<f", value))
        except OverflowError:
            return math.copysign(math.inf, value)
        return float(held)

    def points(self, run: HeldRun) -> Points:
        return {tag: [(event.step, event.value) for event in events] for tag, events in scalars(run)}

    def times(self, run: HeldRun) -> Points:
        return {tag: [(event.step, event.wall_time) for event in events] for tag, events in scalars(run)}

    def text(self, run: HeldRun) -> Mapping[str, list[tuple[int, str]]]:
        return {
            tag.removesuffix("/text_summary"): [(event.step, string(event)) for event in events]
            for tag, plugin, events in tensors(run)
            if plugin == "text"
        }

    def tables(self, run: HeldRun) -> Mapping[str, list[HeldTable]]:
        """Of the Markdown that shows them."""
        texts = self.text(run).items()
        return {tag: [table(step, text) for step, text in found if text.startswith("|")] for tag, found in texts}

    def media(self, run: HeldRun) -> Mapping[str, list[tuple[int, Any]]]:
        found: dict[str, list[tuple[int, Any]]] = {}
        for tag, plugin, events in tensors(run):
            for event in events:
                # A list of sounds has a tag for each.
                key = re.sub(r"/text_summary$|(?<=audio)/\d$", "", tag)
                found.setdefault(key, []).extend((event.step, each) for each in media_of(plugin, event))
        return found

    def config(self, run: HeldRun) -> Mapping[str, Any]:
        import json

        found: dict[str, Any] = json.loads(self.text(run)["run_config"][-1][1])
        return found

    def summary(self, run: HeldRun) -> Mapping[str, float | str]:
        last = table(*self.text(run)["run_summary"][-1])
        return {key: number(value) for key, value in last.rows}

    def tags(self, run: HeldRun) -> list[str]:
        last = table(*self.text(run)["run_tags"][-1])
        return [tag for (tag,) in last.rows]


def accumulated(run: HeldRun) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(run.id, size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def scalars(run: HeldRun) -> Iterator[tuple[str, Any]]:
    found = accumulated(run)
    return ((tag, found.Scalars(tag)) for tag in found.Tags()["scalars"])


def tensors(run: HeldRun) -> Iterator[tuple[str, str, Any]]:
    """Each tag with the name of the plugin that shows it."""
    found = accumulated(run)
    for tag in found.Tags()["tensors"]:
        yield tag, found.SummaryMetadata(tag).plugin_data.plugin_name, found.Tensors(tag)


def string(event: Any) -> str:
    return str(event.tensor_proto.string_val[0].decode())


def media_of(plugin: str, event: Any) -> list[Any]:
    from tensorboard.util.tensor_util import make_ndarray

    if plugin == "histograms":
        lefts, rights, counts = zip(*make_ndarray(event.tensor_proto).tolist(), strict=True)
        return [{"counts": counts, "edges": [*lefts, rights[-1]]}]
    if plugin == "text":  # the source of a page, as a block of code
        return [textwrap.dedent(string(event)).encode()]
    strings = list(event.tensor_proto.string_val)
    return strings[2:] if plugin == "images" else strings  # after their width and height


def table(step: int, text: str) -> HeldTable:
    columns, _, *rows = ([html.unescape(cell).strip() for cell in line.split("|")[1:-1]] for line in text.splitlines())
    return HeldTable(step, columns, [list(cells) for cells in rows])


def number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
