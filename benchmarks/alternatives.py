"""Which encoder writes a row: the time for one line, and what each makes of NaN.

    python benchmarks/alternatives.py [--floats 10 100] [--calls 20000] [--rounds 5] [--json FILE]

Each encodes the line of a row as the journal holds it, without the checksum and without a write. They take turns in one
process; times are in µs, the median of the rounds' medians. rolecall uses `pydantic_core`, which it needs anyway: it is
not the fastest, but the only fast one that keeps NaN. A loss that diverges is what a monitor must not hide.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from peers import plain_row
from report import show_and_keep

Encode = Callable[[Mapping[str, Any]], bytes]


def main() -> None:
    """Measure each encoder that is installed, and print them."""
    args = _options()
    encoders = {name: encode for name, make in ENCODERS.items() if (encode := _made(name, make))}
    rounds: dict[tuple[str, int], list[float]] = {}
    for _ in range(args.rounds):
        for floats in args.floats:
            for name, encode in encoders.items():
                rounds.setdefault((name, floats), []).append(_median(encode, floats, args.calls))
    show_and_keep(
        [
            {
                "encoder": name,
                "NaN": _of(encode, float("nan")),
                "1e16": _of(encode, 1e16),
                **{f"{floats} floats, µs": round(statistics.median(rounds[name, floats]), 2) for floats in args.floats},
            }
            for name, encode in encoders.items()
        ],
        args.json,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--floats", nargs="+", type=int, default=[10, 100])
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _made(name: str, make: Callable[[], Encode]) -> Encode | None:
    try:
        return make()
    except ModuleNotFoundError as error:
        print(f"{name}: left out: {error}")
        return None


def _pydantic_core() -> Encode:
    to_json = import_module("pydantic_core").to_json
    return lambda row: to_json(row, inf_nan_mode="strings")


def _msgspec() -> Encode:
    encode: Encode = import_module("msgspec").json.Encoder().encode
    return encode


def _orjson() -> Encode:
    encode: Encode = import_module("orjson").dumps
    return encode


def _json() -> Encode:
    encode = json.JSONEncoder(separators=(",", ":")).encode
    return lambda row: encode(row).encode()


ENCODERS: Mapping[str, Callable[[], Encode]] = {
    "pydantic_core": _pydantic_core,
    "msgspec": _msgspec,
    "orjson": _orjson,
    "json": _json,
}


def _median(encode: Encode, floats: int, calls: int) -> float:
    metrics, times = plain_row(floats), []
    for seq in range(1, calls + 1):
        began = time.perf_counter_ns()
        encode({"seq": seq, "step": seq, "time": time.time(), "data": metrics})
        times.append(time.perf_counter_ns() - began)
    return statistics.median(times) / 1e3


def _of(encode: Encode, value: float) -> str:
    return encode({"value": value}).decode().removeprefix('{"value":').removesuffix("}")


if __name__ == "__main__":
    main()
