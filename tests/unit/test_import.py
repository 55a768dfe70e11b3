"""What `import rolecall` imports; benchmarks/weight.py measures how long it takes."""

from __future__ import annotations

import ast
import importlib.util
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from made_site import Computer

import rolecall

SDKS = ["mlflow", "numpy", "omegaconf", "pandas", "rich", "tensorboard", "tensorboardX", "torch", "wandb"]
LATE = ["argparse", "packaging.requirements", "yaml"]
"""What is imported where it is needed, so that a role's process need not wait for it."""


@pytest.fixture
def computer(computer: Computer) -> Computer:
    """With a module of every SDK's name, so that an import of it would come off."""
    for sdk in SDKS:
        computer.site.install(f"made-{sdk}")
        (computer.site.path / f"{sdk}.py").write_text("")
    return computer


def loaded(computer: Computer, *lines: str) -> set[str]:
    """Which of the SDKs a program has imported at its end."""
    tail = f"import json, sys; print(json.dumps([name for name in {SDKS + LATE} if name in sys.modules]))"
    ran = computer.python("-c", "\n".join([*lines, tail]))
    assert ran.status == 0, ran.err
    return set(json.loads(ran.out.splitlines()[-1]))


def test_modules_are_there_to_be_imported(computer: Computer) -> None:
    assert loaded(computer, *(f"import {sdk}" for sdk in SDKS)) == set(SDKS)


def test_import_rolecall(computer: Computer) -> None:
    assert loaded(computer, "import rolecall") == set()


def test_dir_shows_public_names_only() -> None:
    assert dir(rolecall) == sorted(rolecall.__all__)


def test_each_public_name_is_what_type_checkers_see() -> None:
    tree = ast.parse(Path(str(rolecall.__file__)).read_text())
    (shown,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for node in shown.body if isinstance(node, ast.ImportFrom)]
    homes = {name.name: str(node.module) for node in imports for name in node.names}
    assert sorted(homes) == sorted(rolecall.__all__)
    assert all(getattr(rolecall, name) is getattr(import_module(home), name) for name, home in homes.items())


def test_name_that_rolecall_does_not_have() -> None:
    with pytest.raises(AttributeError, match="module 'rolecall' has no attribute 'lunch'") as caught:
        rolecall.__getattr__("lunch")
    assert (caught.value.name, caught.value.obj) == ("lunch", rolecall)
    with pytest.raises(ImportError, match="cannot import name 'lunch'"):
        exec("from rolecall import lunch")


def test_courier_imports_nothing_of_a_role(computer: Computer) -> None:
    """It is started for each role, and what it does not import it need not wait for."""
    ran = computer.python("-c", "import sys, rolecall.delivery.courier; print(*sys.modules)")
    modules = set(ran.out.split())
    assert "rolecall.store" in modules
    assert not {"rolecall.job", "rolecall.cli"} & modules


def test_a_role_that_logs(computer: Computer) -> None:
    logs = """
import rolecall
config = {"project": "p", "name": "n", "monitor_type": "acme", "monitor_dir": "job"}
with rolecall.launch(config) as job, rolecall.open_monitor(job.config, "trainer") as monitor:
    for step in range(1, 4):
        monitor.log({"loss": 1 / step}, step=step)
    monitor.log_table("samples", (["prompt"], [["2 + 2"]]), step=3)
"""
    # The courier's process opens the run, and that imports an SDK: seen from what it leaves.
    computer.site.backend(
        open_run="""
        import os

        class Run:
            id, url = "acme-1", None
            def log(self, rows):
                with open("rows", "a") as file:
                    file.writelines(f"{os.getpid()} {row.step}\\n" for row in rows)
            def flush(self, timeout): pass
            def close(self, status): pass

        @hookimpl
        def open_run(ticket, args):
            import wandb
            return Run()
        """
    )
    assert not loaded(computer, logs) & set(SDKS)
    assert [line.split()[1] for line in (computer.home / "rows").read_text().splitlines()] == ["1", "2", "3"]


def test_checking_a_config(computer: Computer) -> None:
    computer.site.backend(requires=["made-wandb>=0"])
    checks = "import rolecall; rolecall.resolve(rolecall.MonitorConfig(project='p', name='n', monitor_type='acme'))"
    assert loaded(computer, checks) == {"packaging.requirements"}


@pytest.mark.parametrize(
    ("plugin", "sdk"),
    [
        ("rolecall_mlflow", "mlflow"),
        ("rolecall_swanlab", "swanlab"),
        ("rolecall_tensorboard", "tensorboardX"),
        ("rolecall_trackio", "trackio"),
        ("rolecall_wandb", "wandb"),
    ],
)
def test_listing_backends_imports_no_sdk(plugin: str, sdk: str) -> None:
    if importlib.util.find_spec(plugin) is None or importlib.util.find_spec(sdk) is None:
        pytest.skip(f"{plugin} and {sdk} are not installed here")
    lists = "import sys; from rolecall.__main__ import main; main(['backends']); "
    lists += f"print({sdk!r} in sys.modules, {plugin!r})"
    ran = subprocess.run([sys.executable, "-c", lists], check=True, capture_output=True, text=True)
    assert plugin.replace("_", "-") in ran.stdout
    assert ran.stdout.splitlines()[-1] == f"False {plugin}"
