"""Bindings of keys to axes: every writer comes to know all of them, and none is written twice."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.store.axes import AxisBook, axis_key
from rolecall.store.codec import encode
from rolecall.store.layout import Layout

WRITERS = ("explorer/0", "explorer/1", "trainer")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def on(writer: str, keys: Iterable[str]) -> dict[str, str]:
    """These keys, each bound to the writer's own axis."""
    return dict.fromkeys(keys, axis_key(f"{writer}/"))


def sizes(layout: Layout) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in layout.axes.iterdir()}


# ------------------------------------------------------------------ exchange


def test_writers_learn_every_binding(layout: Layout) -> None:
    books = {writer: AxisBook(layout, writer) for writer in WRITERS}
    for writer, book in books.items():
        book.publish(on(writer, ["loss", f"{writer}/reward", f"{writer}/step"]))
    expected = {f"{writer}/reward": f"{writer}/step" for writer in WRITERS} | {"loss": "explorer/0/step"}
    for writer, book in books.items():
        book.refresh()
        known = book.bindings()
        assert known == expected, "of a key that several writers bind, the first writer's binding counts"
        assert {key: book.axis(key) for key in known} == expected
        assert book.axes == set(expected.values()) | {axis_key(f"{writer}/")}
    assert sorted(os.listdir(layout.axes)) == ["explorer@0.jsonl", "explorer@1.jsonl", "trainer.jsonl"]


def test_late_writer_knows_earlier_bindings(layout: Layout) -> None:
    AxisBook(layout, "explorer/0").publish(on("explorer/0", ["explorer/0/reward"]))
    AxisBook(layout, "trainer").publish_config({"lr": 0.1})
    late = AxisBook(layout, "evaluator")
    assert late.bindings() == {"explorer/0/reward": "explorer/0/step"}
    assert late.configs == {"trainer": {"lr": 0.1}}


def test_bindings_since_a_number(layout: Layout) -> None:
    mine, other = AxisBook(layout, "trainer"), AxisBook(layout, "explorer/0")
    mine.publish(on("trainer", ["trainer/loss", "trainer/lr"]))
    assert list(mine.bindings()) == ["trainer/loss", "trainer/lr"]
    other.publish(on("explorer/0", ["explorer/0/reward"]))
    assert mine.bindings(2) == {}
    mine.refresh()
    assert mine.bindings(2) == {"explorer/0/reward": "explorer/0/step"}
    mine.refresh()
    assert mine.bindings(3) == {}


def test_known_keys_are_written_once(layout: Layout) -> None:
    keys = [f"trainer/key/{at}" for at in range(100)]
    book = AxisBook(layout, "trainer")
    book.publish(on("trainer", keys))
    book.publish_config({"lr": 0.1, "layers": [1, 2]})
    before = sizes(layout)
    for _ in range(3):
        book.publish(on("trainer", keys))
        book.publish_config({"lr": 0.1, "layers": [1, 2]})
        book.refresh()
    successor = AxisBook(layout, "trainer")
    successor.publish(on("trainer", keys))
    successor.publish_config({"lr": 0.1, "layers": [1, 2]})
    assert sizes(layout) == before
    successor.publish(on("trainer", [*keys, "trainer/new"]))
    new = encode({"axes": {"trainer/new": "trainer/step"}})
    assert sizes(layout) == {"trainer.jsonl": before["trainer.jsonl"] + len(new)}


def test_lines_are_read_once(layout: Layout) -> None:
    AxisBook(layout, "explorer/0").publish(on("explorer/0", ["explorer/0/a"]))
    book = AxisBook(layout, "trainer")
    path = layout.bindings("explorer/0")
    # Were it read again, it would be seen that it says something else now.
    path.write_bytes(path.read_bytes().replace(b"explorer", b"impostor"))
    book.refresh()
    assert list(book.bindings()) == ["explorer/0/a"]


def test_changed_config_is_published(layout: Layout) -> None:
    book = AxisBook(layout, "trainer")
    book.publish_config({"lr": 0.1})
    book.publish_config({"lr": 0.2})
    book.publish_config({})
    assert AxisBook(layout, "explorer/0").configs == {"trainer": {"lr": 0.2}}


def test_nothing_new_writes_nothing(layout: Layout) -> None:
    book = AxisBook(layout, "trainer")
    book.publish(on("trainer", []))
    book.publish(on("trainer", ["trainer/step"]))
    book.publish_config({})
    book.refresh()
    assert not layout.axes.exists()


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_torn_line_is_closed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    layout = Layout(tmp_path_factory.mktemp("monitor"))
    AxisBook(layout, "trainer").publish(on("trainer", ["trainer/a"]))
    torn = encode({"axes": {"trainer/b": "trainer/step"}})
    cut = data.draw(st.integers(1, len(torn) - 1))
    with layout.bindings("trainer").open("ab") as file:
        file.write(torn[:cut])
    watching = AxisBook(layout, "explorer/0")
    assert list(watching.bindings()) == ["trainer/a"]
    successor = AxisBook(layout, "trainer")
    successor.publish(on("trainer", ["trainer/b", "trainer/c"]))
    watching.refresh()
    # Both may be known from one line or from two.
    assert watching.bindings() == {f"trainer/{key}": "trainer/step" for key in "abc"}


def test_finished_line_is_read(layout: Layout) -> None:
    AxisBook(layout, "trainer").publish(on("trainer", ["trainer/a"]))
    line = encode({"axes": {"trainer/b": "trainer/step"}})
    watching = AxisBook(layout, "explorer/0")
    with layout.bindings("trainer").open("ab", buffering=0) as file:
        file.write(line[:20])
        watching.refresh()
        assert list(watching.bindings()) == ["trainer/a"]
        file.write(line[20:])
    watching.refresh()
    assert list(watching.bindings()) == ["trainer/a", "trainer/b"]


def test_damaged_lines_cost_themselves_alone(layout: Layout) -> None:
    crafted: list[dict[str, Any]] = [
        {"axes": ["a"]},
        {"axes": None},
        {"axes": {"odd": 5}},
        {"config": "x"},
        {"config": [1]},
        {},
    ]
    layout.axes.mkdir()
    layout.bindings("trainer").write_bytes(
        b"damaged\n" + b"".join(map(encode, crafted)) + encode({"axes": {"trainer/a": "trainer/step"}})
    )
    (layout.axes / "unrelated.txt").write_text("x")
    os.mkfifo(layout.axes / "pipe.jsonl")
    book = AxisBook(layout, "explorer/0")
    assert book.bindings() == {"odd": "5", "trainer/a": "trainer/step"}
    assert book.configs == {}


def test_readers_write_nothing(layout: Layout) -> None:
    AxisBook(layout, "trainer").publish(on("trainer", ["trainer/a"]))
    path = layout.bindings("trainer")
    with path.open("ab") as file:
        file.write(b"torn")
    os.utime(path, (1, 1))
    before = path.read_bytes()
    AxisBook(layout, "explorer/0").refresh()
    assert path.read_bytes() == before
    assert path.stat().st_mtime == 1
    assert os.listdir(layout.axes) == ["trainer.jsonl"]


def test_symlinks_are_not_followed(layout: Layout, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    layout.axes.mkdir()
    layout.bindings("trainer").symlink_to(precious)
    book = AxisBook(layout, "trainer")
    with pytest.raises(OSError, match="symbolic"):
        book.publish(on("trainer", ["trainer/a"]))
    assert precious.read_text() == "mine"
    assert book.bindings() == {}, "what is not published is not known"


def test_threads_share_a_book(layout: Layout) -> None:
    book = AxisBook(layout, "trainer")
    keys = [f"trainer/key/{at}" for at in range(200)]
    barrier = threading.Barrier(4)

    def publish() -> None:
        barrier.wait()
        for key in keys:
            book.publish(on("trainer", [key]))

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(book.bindings()) == keys
    written = b"".join(encode({"axes": {key: "trainer/step"}}) for key in keys)
    assert layout.bindings("trainer").read_bytes() == written
