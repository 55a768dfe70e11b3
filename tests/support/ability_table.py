"""The tables of docs/backends.md on the contracts: what each backend can, and with which versions of its SDK it passes.

`python tests/support/ability_table.py` prints the first one, and the second one of files with what pytest found, each
named after its cell: `pytest --junitxml mlflow-2.16.0.xml plugins/rolecall-mlflow/tests/test_contract.py`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree as ET

from rolecall.testing import BackendContract

ROOT = Path(__file__).parents[2]
BACKENDS = ("wandb", "mlflow", "tensorboard", "trackio", "swanlab")
SHOWN = {
    "shared": "several processes write one run",
    "progress": "knows which rows it holds",
    "times": "when each row was logged",
    "text": "strings",
    "tables": "tables",
    "config": "a config",
    "summary": "a summary",
    "tags": "tags",
    "status": "how the run ended",
    "end_time": "when the run ended, also if its last rows come later",
}


def table() -> str:
    """A row for each ability, a column for each backend."""
    contracts = [contract_of(name) for name in BACKENDS]
    lines = [f"| | {' | '.join(f'`{name}`' for name in BACKENDS)} |", f"|{'---|' * (len(BACKENDS) + 1)}"]
    for ability, said in SHOWN.items():
        cells = ("yes" if ability in each.can else "no" for each in contracts)
        lines.append(f"| {said} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cells(backend: str) -> tuple[str, str]:
    """The oldest and the newest version of a backend's SDK that `nox` tests it with."""
    found = [path.stem.partition("-")[2] for path in (ROOT / "requirements").glob(f"{backend}-*.in")]
    in_order = sorted(found, key=lambda version: [*map(int, version.split("."))])
    return in_order[0], in_order[-1]


def sdk_table(results: Iterable[Path]) -> str:
    """A row for each backend: its oldest and its newest SDK, each with what pytest found, if that is given."""
    found = {path.stem: [_passed(path)] for path in results}
    lines = ["| | oldest SDK | newest SDK |", "|---|---|---|"]
    for backend in BACKENDS:
        said = (": ".join([version, *found.get(f"{backend}-{version}", ())]) for version in cells(backend))
        lines.append(f"| `{backend}` | {' | '.join(said)} |")
    return "\n".join(lines)


def _passed(junit: Path) -> str:
    """How many tests passed, of those that were not skipped."""
    (suite,) = ET.parse(junit).getroot().iter("testsuite")
    total, skipped, *bad = (int(suite.attrib[name]) for name in ("tests", "skipped", "failures", "errors"))
    return f"{total - skipped - sum(bad)} of {total - skipped}"


def contract_of(name: str) -> type[BackendContract]:
    """The class of tests of a plugin."""
    path = ROOT / "plugins" / f"rolecall-{name}" / "tests" / "test_contract.py"
    spec = importlib.util.spec_from_file_location(f"contract_of_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    contract: type[BackendContract] = module.TestContract
    return contract


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    print(table())
    if results := [Path(given) for given in sys.argv[1:]]:
        print(f"\n{sdk_table(results)}")
