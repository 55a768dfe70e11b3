"""The table of docs/backends.md that says what each backend can, made of the contracts that they are tested with.

`python tests/support/ability_table.py` prints it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

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
