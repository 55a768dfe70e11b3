"""A job of eight roles as its directory would be, the same each time: for pictures of what commands show."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

from rolecall.config.plan import BackendPlan, Plan
from rolecall.store.acks import Acknowledgements, Position, RunReference
from rolecall.store.codec import encode
from rolecall.store.layout import LAUNCH, Layout, RunRecord, write_record
from rolecall.store.lease import Session

__all__ = ["CREATED", "STEPS", "plant_job"]

CREATED = 1764000000.0
STEPS = 120
_PIXEL = b"P6 1 1 255\n\0\0\0"
_RUN = "http://localhost:5000/#/experiments/1/runs/0123456789abcdef0123456789abcdef"


def plant_job(root: Path, name: str = "grpo-1", lr: float = 1e-6, speed: float = 1.0) -> Path:
    """A finished job, of which one role was killed, and one backend lacks rows.

    Args:
        root: its `monitor_dir`.
        name: its name.
        lr: in its config.
        speed: how fast its rewards grow.
    """
    layout = Layout(root)
    plans = (
        BackendPlan(backend="local", shared=True, courier="none"),
        BackendPlan(backend="mlflow", shared=True, courier="process"),
    )
    record = RunRecord(
        run_id="7ffb7bcd66d4",
        nonce="n1",
        project="gsm8k",
        name=name,
        group=None,
        created=CREATED,
        plan=Plan(backends=plans),
    )
    root.mkdir(parents=True)
    write_record(layout, record)
    config = {"lr": lr, "model": {"name": "qwen", "layers": 28}}
    _plant(layout, LAUNCH, [], "finished", config)
    for rank in range(4):
        rows = list(_explorer(rank, speed))
        _plant(layout, f"explorer/{rank}", rows if rank < 3 else rows[:80], "finished" if rank < 3 else None)
    for rank in range(2):
        _plant(layout, f"trainer/{rank}", list(_trainer(rank, lr)), "finished")
    _plant(layout, "evaluator", list(_evaluator(layout)), "finished")
    _plant(layout, "buffer", [_line(1, 1, {"size": 4096, "note": "filled up"})], "finished")
    for writer in layout.writers():
        _deliver(layout, writer, waiting=writer == "trainer/0")
    return root


def _line(seq: int, step: int, data: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"seq": seq, "step": step, "time": CREATED + 6.0 * step, "data": data, **more}


def _explorer(rank: int, speed: float) -> Iterator[dict[str, Any]]:
    for step in range(1, STEPS + 1):
        reward = 1 - math.exp(-step * speed / (30 + 15 * rank))
        data = {"reward/mean": reward, "return/mean": 40 * reward + 5 * math.sin(step / 9), "tokens": 1000 * step}
        yield _line(step, step, {**data, "perf/tokens_per_s": 900 + 100 * math.cos(step / 4 + rank)})


def _trainer(rank: int, lr: float) -> Iterator[dict[str, Any]]:
    for step in range(1, STEPS + 1):
        data = {"loss/policy": math.exp(-step / 40) * (1 + 0.3 * rank) + 0.05 * math.sin(step), "lr": lr}
        yield _line(step, step, {**data, "kl": step / 10_000, "entropy": 3 - step / 100, "grad_norm": 1.5})


def _evaluator(layout: Layout) -> Iterator[dict[str, Any]]:
    files = layout.root / "journal" / "evaluator" / "1.files"
    files.mkdir(parents=True)
    (files / "maze.ppm").write_bytes(_PIXEL)
    file = {"name": "maze.ppm", "size": len(_PIXEL), "sum": f"{crc32(_PIXEL):08x}"}
    image = {"key": "maze", "media": [{"kind": "image", "mime": "image/x-portable-pixmap", "file": file}]}
    for nth, step in enumerate(range(10, STEPS + 1, 10)):
        rows = [[f"What is {step} + {each}?", str(step + each), each / 4] for each in range(4)]
        table = {"table": {"name": "samples", "columns": ["prompt", "answer", "score"], "rows": rows}}
        yield _line(3 * nth + 3, step, {"accuracy": step / 150}, rows=3, values=[table, image])


def _plant(
    layout: Layout, writer: str, lines: list[dict[str, Any]], end: str | None, config: dict[str, Any] | None = None
) -> None:
    session = Session(layout.journal(writer) / "1.jsonl", 1)
    session.path.parent.mkdir(parents=True, exist_ok=True)
    # Without an owner: nobody runs it.
    header = {"rolecall": 2, "owner": {}, "session": 1, "writer": writer, **({"config": config} if config else {})}
    last = lines[-1]["seq"] if lines else 0
    ends = [{"end": end, "seq": last, "time": CREATED + 6.0 * STEPS}] if end else []
    session.path.write_bytes(b"".join(encode(line, session.seed) for line in (header, *lines, *ends)))


def _deliver(layout: Layout, writer: str, *, waiting: bool) -> None:
    data = (layout.journal(writer) / "1.jsonl").read_bytes()
    rows = {"explorer/3": 80, "evaluator": 36, "buffer": 1}.get(writer, STEPS)
    acks = Acknowledgements(layout, "mlflow", writer)
    if waiting:
        acks.acknowledge(Position(1, data.index(b'{"seq":101,'), 100), 100)
        acks.explain("the server answers 503")
    else:
        acks.acknowledge(Position(1, len(data), rows), rows)
    acks.refer(RunReference("0123456789abcdef", _RUN, "7ffb7bcd66d4"))
    acks.release(None if waiting else "finished")
