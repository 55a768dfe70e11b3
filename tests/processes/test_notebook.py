"""`rolecall.init` in a notebook, executed by a kernel as Jupyter starts it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from rolecall.job.history import read_history, read_rows

nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")

# jupyter_client and zmq open sockets and event loops of their own, and leave some to the garbage collector.
pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

BEGIN = 'run = rolecall.init("gsm8k", {"lr": 0.1}, name="%s")\nrun'
LOG = "for step in range(3):\n    run.log({'loss': 1 / (step + 1)})"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kernel's working directory, and its settings, which are nobody else's."""
    for name in ("ROLECALL_LOG", "ROLECALL_MODE", "ROLECALL_DIR", "ROLECALL_MONITOR_TYPE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def execute(folder: Path, *cells: str, allow_errors: bool = False) -> list[dict[str, str]]:
    """What each cell shows: `text/html` of its value, and what it prints under `stderr` and `stdout`."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    place = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources=place, allow_errors=allow_errors
    )
    client.execute()
    return [shown(cell.outputs) for cell in notebook.cells]


def shown(outputs: Sequence[dict[str, object]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for output in outputs:
        match output:
            case {"name": str(name), "text": str(text)}:
                found[name] = found.get(name, "") + re.sub(r"\S*rolecall show", "rolecall show", text)
            case {"data": {"text/html": str(html)}}:
                found["text/html"] = re.sub(r"<code>\S*rolecall show", "<code>rolecall show", html)
            case _:
                pass
    return found


def test_run_twice_in_one_kernel(folder: Path) -> None:
    """The second one finishes the first, and says so; the kernel's end finishes the second."""
    _, first, _, second, _ = execute(folder, "import rolecall", BEGIN % "first", LOG, BEGIN % "second", LOG)
    assert first == {
        "stderr": "rolecall: run first -> rolecall show rolecall/gsm8k/first\n",
        "text/html": "run <b>first</b>: <code>rolecall show rolecall/gsm8k/first</code>",
    }
    assert second["stderr"].splitlines() == [
        "rolecall: finishing run first, as rolecall.init begins another one",
        "rolecall: 3 rows: local 3 · rolecall show rolecall/gsm8k/first",
        "rolecall: run second -> rolecall show rolecall/gsm8k/second",
    ]
    for name in ("first", "second"):
        root = folder / "rolecall" / "gsm8k" / name
        assert [row.step for row in read_rows(root)] == [1, 2, 3]
        assert read_history(root).state == "finished"


def test_cell_that_is_run_again(folder: Path) -> None:
    """It has the same name, so the earlier run is set aside and kept."""
    execute(folder, "import rolecall", BEGIN % "first", LOG, BEGIN % "first", "run.log({'loss': 0.5})\nrun.finish()")
    root = folder / "rolecall" / "gsm8k" / "first"
    assert [row.step for row in read_rows(root)] == [1]
    (earlier,) = (root / "previous").iterdir()
    assert [row.step for row in read_rows(earlier)] == [1, 2, 3]


def test_error_in_a_cell_fails_no_run(folder: Path) -> None:
    """Whoever works in a notebook goes on after it."""
    cells = ("import rolecall", BEGIN % "first", "1 / 0", LOG)
    execute(folder, *cells, allow_errors=True)
    assert read_history(folder / "rolecall" / "gsm8k" / "first").state == "finished"


def test_wandbs_init_ends_the_run_before(folder: Path) -> None:
    """As wandb's own does, in a notebook alone."""
    begin = "from rolecall.compat import wandb\nfirst = wandb.init()"
    _, second = execute(folder, begin, "second = wandb.init()\nprint(first.is_finished, wandb.run is second)")
    assert second["stdout"] == "True True\n"
