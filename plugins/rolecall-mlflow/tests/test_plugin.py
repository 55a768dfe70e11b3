from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest

from rolecall import Registry, RunTicket, SharedRunSupport, Unavailable
from rolecall_mlflow import plugin
from rolecall_mlflow.args import MlflowArgs

WITHOUT_SDK = (
    *("rolecall", "rolecall_mlflow", "pluggy", "packaging", "pydantic", "pydantic_core", "typing_extensions"),
    *("typing_inspection", "annotated_types", "yaml"),
)
ASK = """
import sys
from pathlib import Path
from rolecall_mlflow import plugin
from rolecall import RunTicket
from rolecall import BackendRefused

args = plugin.backend_args()(uri=sys.argv[1])
print(plugin.supports_shared_run(args).reason)
ticket = RunTicket(project="p", name="n", group=None, run_id="r", backend_run_id=None, shared=True, primary=True,
    writer=None, role=None, config={}, directory=Path(sys.argv[2]), pid=1)
for hook in (plugin.prepare, plugin.open_run):
    try:
        hook(ticket, args)
    except BackendRefused as error:
        print(error)
print("mlflow" in sys.modules)
"""


def test_the_entry_point_loads() -> None:
    (point,) = entry_points(group="rolecall.backends", name="mlflow")
    assert point.load() is plugin
    assert point.dist is not None
    assert point.dist.name == "rolecall-mlflow"


def test_the_registry_accepts_the_hooks() -> None:
    backend = Registry().load("mlflow")
    assert backend.args_model() is MlflowArgs
    assert backend.supports_shared_run(MlflowArgs()).supported


def test_neither_import_nor_listing_imports_mlflow() -> None:
    code = (
        "import sys; from rolecall_mlflow import plugin; "
        "print(plugin.supports_shared_run(plugin.backend_args()()).supported, 'mlflow' in sys.modules)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "True False\n"


def test_every_store_is_shared() -> None:
    for uri in ("http://localhost:5000", "sqlite:////x/m.db", "file:///x"):
        assert plugin.supports_shared_run(MlflowArgs(uri=uri)) == SharedRunSupport(supported=True)


def test_a_role_waits_for_the_primary(ticket: Callable[..., RunTicket]) -> None:
    with pytest.raises(Unavailable, match="the launcher has not opened the run yet"):
        plugin.open_run(ticket(primary=False, writer="explorer", role="explorer"), MlflowArgs())


def ask(path: Path, uri: str, *, isolated: bool) -> list[str]:
    command = [sys.executable, *(["-S"] if isolated else []), "-c", ASK, uri, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture
def without_sdk(tmp_path: Path) -> Path:
    """A directory with what rolecall needs, but without MLflow and SQLAlchemy."""
    for name in WITHOUT_SDK:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        found = Path(spec.origin).parent if spec.submodule_search_locations else Path(spec.origin)
        (tmp_path / found.name).symlink_to(found)
    return tmp_path


def test_missing_sdk_names_command_to_run(without_sdk: Path) -> None:
    printed = ask(without_sdk, "http://localhost:5000", isolated=True)
    assert printed == ["mlflow is not installed; run: pip install 'mlflow-skinny>=2.16'"] * 3 + ["False"]


def test_old_sdk_names_command_to_run(tmp_path: Path) -> None:
    old = tmp_path / "mlflow_skinny-2.15.1.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: mlflow-skinny\nVersion: 2.15.1\n")
    printed = ask(tmp_path, "http://localhost:5000", isolated=False)
    assert printed == ["mlflow 2.15.1 is too old; run: pip install 'mlflow-skinny>=2.16'"] * 3 + ["False"]


def test_sqlite_without_sqlalchemy_names_the_command(without_sdk: Path) -> None:
    new = without_sdk / "mlflow_skinny-3.17.2.dist-info"
    new.mkdir()
    (new / "METADATA").write_text("Metadata-Version: 2.1\nName: mlflow-skinny\nVersion: 3.17.2\n")
    printed = ask(without_sdk, "sqlite:////x/m.db", isolated=True)
    assert len(printed) == 4
    assert all("pip install 'sqlalchemy>=2,<2.1' 'alembic>=1.12'" in line for line in printed[:3])


def test_ui_command_says_what_it_needs(tmp_path: Path) -> None:
    """With mlflow-skinny alone, `mlflow ui` fails to import Flask."""
    script = "from rolecall_mlflow.sdk import ui_command; print(ui_command('sqlite:////x/my runs.db'))"
    packages = tmp_path / "flask"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *map(str, filter(None, sys.path))])}
    printed = []
    for _ in range(2):
        printed.append(subprocess.check_output([sys.executable, "-c", script], env=environment, text=True).strip())
        packages.mkdir(exist_ok=True)
        (packages / "__init__.py").touch()
    command = "mlflow ui --backend-store-uri 'sqlite:////x/my runs.db'"
    skinny = f"{command}  # needs mlflow=={version('mlflow-skinny')}, not mlflow-skinny alone"
    assert printed == [command if importlib.util.find_spec("flask") else skinny, command]
