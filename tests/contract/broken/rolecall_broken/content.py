"""Tables, media, config, summary, tags and status that are not what was logged."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rolecall_reference.files import FilesRun, as_ranges
from rolecall_reference.queued import QueueRun
from rolecall_reference.service import ServiceRun
from rolecall_reference.shared import SharedRun

from rolecall import Media, Row, RunTicket, Status, TableData
from rolecall_broken.catalogue import found_by

TABLE = r"trainer/samples.*: expected .*held"
MEDIA = r"trainer/some {}.*: expected .*held"


class _Tables(FilesRun):
    """Stores other tables than those that came."""

    def log_table(self, row: Row) -> None:
        assert row.table is not None
        super().log_table(replace(row, table=self.table(row.table)))

    def table(self, table: TableData) -> TableData:
        raise NotImplementedError


@found_by("test_keeps_tables", TABLE)
class SwapsColumns(_Tables):
    """Columns are sorted by name, their cells are not."""

    def table(self, table: TableData) -> TableData:
        return replace(table, columns=tuple(sorted(table.columns)))


@found_by("test_keeps_tables", TABLE)
class LosesLastRowOfTables(_Tables):
    """The last row of a table is lost."""

    def table(self, table: TableData) -> TableData:
        return replace(table, rows=table.rows[:-1])


def _cut(cell: Any) -> Any:
    return cell.partition("|")[0] if isinstance(cell, str) else cell


@found_by("test_keeps_tables", TABLE)
class TablesOfText(_Tables):
    """Cells are cut at the first bar, which the format uses between cells."""

    def table(self, table: TableData) -> TableData:
        return replace(table, rows=tuple(tuple(map(_cut, row)) for row in table.rows))


@found_by("test_keeps_tables", TABLE)
class LastTableOnly(FilesRun):
    """A table replaces the one of an earlier step."""

    def log_table(self, row: Row) -> None:
        lines = [line for line in self.lines() if "table" not in line]
        os.ftruncate(self._file, 0)
        self.write(*lines)
        super().log_table(row)


@found_by("test_keeps_growing_tables", r"trainer/growing: expected .* held")
class AppendOverwrites(FilesRun):
    """New rows of a growing table replace those that it had."""

    def log_table(self, row: Row) -> None:
        if row.table is not None and row.table.append:
            lines = [line for line in self.lines() if line.get("table") != row.table.name]
            os.ftruncate(self._file, 0)
            self.write(*lines)
        super().log_table(row)


@found_by("test_keeps_tables", TABLE)
class TablesAtStepOfCall(_Tables):
    """A table has the step of the row after it."""

    def log_table(self, row: Row) -> None:
        super().log_table(replace(row, step=row.step + 1))

    def table(self, table: TableData) -> TableData:
        return table


@found_by("test_keeps_tables", r"trainer/samples: expected tables at the steps \[3, 4\], held \[3, 3, 4, 4\]")
class TablesTwice(FilesRun):
    """`held` knows nothing of tables: they are there twice if they come again."""

    def held(self, writer: str, session: int) -> list[tuple[int, int]]:
        lines = (line for line in self.lines() if line.get("writer") == writer and "table" not in line)
        return as_ranges({line["seq"] for line in lines if line["session"] == session})


def _path(cell: Any) -> Any:
    return str(cell.path) if isinstance(cell, Media) else cell


@found_by("test_keeps_images_in_tables", r"trainer/drawn: expected the image of a cell, held")
class PathsForImages(FilesRun):
    """A cell with an image has the path of its file, which goes."""

    def log_table(self, row: Row) -> None:
        assert row.table is not None
        rows = tuple(
            tuple(str(cell) if isinstance(cell, Media) else cell for cell in cells) for cells in row.table.rows
        )
        super().log_table(replace(row, table=replace(row.table, rows=rows)))


class _Media(FilesRun):
    """Stores other media than those that came."""

    def log_media(self, row: Row) -> None:
        super().log_media(replace(row, media=tuple(self.changed(media) for media in row.media)))

    def changed(self, media: Media) -> Media:
        raise NotImplementedError


@found_by("test_keeps_media[image]", MEDIA.format("image"))
class WrongMime(_Media):
    """Images are all called JPEG."""

    def changed(self, media: Media) -> Media:
        return replace(media, mime="image/jpeg")


@found_by("test_keeps_media[image]", MEDIA.format("image"))
class LosesCaptions(_Media):
    """Captions are lost."""

    def changed(self, media: Media) -> Media:
        return replace(media, caption="")


@found_by("test_keeps_media[histogram]", MEDIA.format("histogram"))
class SwapsCountsAndEdges(_Media):
    """The counts of a histogram are its edges."""

    def changed(self, media: Media) -> Media:
        return replace(media, counts=media.edges, edges=media.counts)


@found_by("test_keeps_media[histogram]", MEDIA.format("histogram"))
class NormalisesCounts(_Media):
    """The counts of a histogram are shares."""

    def changed(self, media: Media) -> Media:
        return replace(media, counts=tuple(count / sum(media.counts) for count in media.counts))


@found_by("test_keeps_media[image]", MEDIA.format("image"))
class FirstOfSeveral(FilesRun):
    """Of a list of images, the first one is kept."""

    def log_media(self, row: Row) -> None:
        super().log_media(replace(row, media=row.media[:1]))


@found_by("test_keeps_media[file]", MEDIA.format("file"))
class FilesAsText(FilesRun):
    """Files are read as text, and what is none in them is replaced."""

    def log_media(self, row: Row) -> None:
        super().log_media(row)
        for path in self._media.glob("*.bin"):
            path.write_text(path.read_text(errors="replace"))


@found_by("test_keeps_media[audio]", MEDIA.format("audio"))
class LinksToFiles(FilesRun):
    """A file of media is linked to, though it goes once the row is acknowledged; its content is not there."""

    def log_media(self, row: Row) -> None:
        super().log_media(row)
        for path in self._media.glob("*.wav"):
            path.write_bytes(b"")


@found_by("test_keeps_media[image]", MEDIA.format("image"))
class OneFileForAll(FilesRun):
    """Each image is stored under the name of its key, so that a later one replaces it."""

    def log_media(self, row: Row) -> None:
        super().log_media(row)
        newest = max(self._media.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        for path in self._media.iterdir():
            path.write_bytes(newest.read_bytes())


@found_by("test_abilities_are_declared", r"`can` names what the backend does not have: media:")
class ClaimsNoMedia(FilesRun):
    """It holds images alone, and its author says that it holds all media."""

    media_kinds = frozenset({"image"})


@found_by("test_opened_run_is_whole", r"media_kinds: expected some of .*held \['images'\]")
class UnknownMedia(FilesRun):
    """A kind of media that there is not."""

    media_kinds = frozenset({"images"})  # type: ignore[arg-type]


@found_by("test_keeps_config", r"expected the config .*lr.* held")
class ConfigOfTicketOnly(FilesRun):
    """What is merged later is ignored."""

    def merge_config(self, config: Mapping[str, Any]) -> None:
        """Ignore it."""


@found_by("test_keeps_config", r"expected the config .*'lr': 0.5.* held \{'trainer.layers'")
class ConfigReplaced(ServiceRun):
    """What is merged replaces what was there."""

    def merge_config(self, config: Mapping[str, Any]) -> None:
        self.send("status", {"config": dict(config)})


@found_by("test_keeps_config_of_all_writers", r"expected the config .*trainer.* held")
class ConfigOfFirstWriter(SharedRun):
    """Once there is a config of a writer, that of others is ignored."""

    def merge_config(self, config: Mapping[str, Any]) -> None:
        if not any("config" in line and "name" not in line for line in self.lines()):
            super().merge_config(config)


@found_by("test_keeps_config", r"expected the config .*optimizer.* held")
class ConfigIsFlat(FilesRun):
    """What is nested in the config is left out."""

    def write(self, *lines: Mapping[str, Any]) -> None:
        def flat(line: Mapping[str, Any]) -> Mapping[str, Any]:
            config = {key: value for key, value in line.get("config", {}).items() if not isinstance(value, dict)}
            return {**line, "config": config} if "config" in line else line

        super().write(*map(flat, lines))


@found_by("test_keeps_summary", r"trainer/note: expected 'good', held \{\}")
class SummaryIsLost(FilesRun):
    """The summary is computed from the rows, and what was set is ignored."""

    def merge_summary(self, summary: Mapping[str, float | str]) -> None:
        """Ignore it."""


@found_by("test_keeps_summary", r"trainer/note: expected 'good', held .*'note': 'good'")
class SummaryWithoutPrefix(SharedRun):
    """Keys of the summary lose the writer's prefix."""

    def merge_summary(self, summary: Mapping[str, float | str]) -> None:
        super().merge_summary({key.rpartition("/")[2]: value for key, value in summary.items()})


@found_by("test_keeps_summary", r"trainer/note: expected 'good', held")
class FirstSummaryOnly(FilesRun):
    """The summary is set once."""

    def merge_summary(self, summary: Mapping[str, float | str]) -> None:
        if not any("summary" in line for line in self.lines()):
            super().merge_summary(summary)


@found_by("test_keeps_summary", r"trainer/note: expected 'good', held")
class SummaryOfNumbers(FilesRun):
    """Strings are no summary."""

    def merge_summary(self, summary: Mapping[str, float | str]) -> None:
        super().merge_summary({key: value for key, value in summary.items() if not isinstance(value, str)})


@found_by("test_keeps_summary", r"trainer/gone: expected to be removed, held")
class SummaryNeverForgets(FilesRun):
    """What was removed from the summary stays there."""

    def merge_summary(self, summary: Mapping[str, float | str]) -> None:
        known = [line["summary"] for line in self.lines() if "summary" in line]
        super().merge_summary({**(known[-1] if known else {}), **summary})


@found_by("test_keeps_summary_of_all_writers", r"expected the summary .*explorer/0/best.* held")
class SummaryOfLastWriter(SharedRun):
    """The summary is that of whoever set it last."""

    def merge_summary(self, summary: Mapping[str, float | str]) -> None:
        self._writer = None
        super().merge_summary(summary)


@found_by("test_keeps_tags", r"expected the tags .*held")
class TagsAreLost(FilesRun):
    """Tags are those of the ticket."""

    def set_tags(self, tags: Sequence[str]) -> None:
        """Ignore them."""


@found_by("test_keeps_tags", r"expected the tags .*held")
class TagsPileUp(FilesRun):
    """A tag that was removed stays there."""

    def set_tags(self, tags: Sequence[str]) -> None:
        known = [line["tags"] for line in self.lines() if "tags" in line]
        super().set_tags(sorted({*tags, *(tag for some in known for tag in some)}))


@found_by("test_keeps_text", r"trainer/answer: expected .*held")
class TextIsOneLine(FilesRun):
    """Of a string, the first line is kept."""

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            super().log([replace(row, text={key: text.partition("\n")[0] for key, text in row.text.items()})])


@found_by("test_keeps_text", r"trainer/answer: expected .*held")
class RepeatedTextIsLost(FilesRun):
    """A string that was there before is not stored again."""

    def log(self, rows: Sequence[Row]) -> None:
        known = {text for line in self.lines() for text in line.get("text", {}).values()}
        fresh = []
        for row in rows:
            fresh.append(replace(row, text={key: text for key, text in row.text.items() if text not in known}))
            known.update(row.text.values())
        super().log(fresh)


@found_by("test_keeps_status[failed]", r"expected the status 'failed', held 'finished'")
class AlwaysFinished(FilesRun):
    """A run ends as finished, whatever became of it."""

    def close(self, status: Status) -> None:
        super().close("finished")


@found_by("test_keeps_status[killed]", r"expected the status 'killed', held 'failed'")
class KilledIsFailed(ServiceRun):
    """A run that was killed has failed."""

    def close(self, status: Status) -> None:
        super().close("failed" if status == "killed" else status)


@found_by("test_keeps_status[finished]", r"expected a run that has not ended, held 'finished'")
class FinishedAtOnce(FilesRun):
    """A run is finished from its first row on."""

    def log(self, rows: Sequence[Row]) -> None:
        super().log(rows)
        self.write({"status": "finished"})


@found_by("test_keeps_status[finished]", r"expected the status 'finished', held 'running'")
class NeverEnds(QueueRun):
    """A run stays as it is when it is closed."""

    def close(self, status: Status) -> None:
        self._primary = False
        super().close(status)


@found_by("test_a_role_does_not_end_a_shared_run", r"expected a run that has not ended, held 'finished'")
class RoleEndsRun(SharedRun):
    """Whoever closes ends the run."""

    def close(self, status: Status) -> None:
        self._primary = True
        super().close(status)


@found_by("test_a_role_does_not_end_a_shared_run", r"expected the status 'failed', held 'running'")
class PrimaryEndsNothing(SharedRun):
    """A shared run is ended by nobody."""

    def __init__(self, ticket: RunTicket, folder: Path) -> None:
        super().__init__(ticket, folder)
        self._primary = self._primary and not ticket.shared


@found_by("test_keeps_end_time", r"expected the end .* held")
class EndsWhenClosed(FilesRun):
    """A run ends when it is closed."""

    def end_at(self, time: float) -> None:
        super().end_at(time + 60)
