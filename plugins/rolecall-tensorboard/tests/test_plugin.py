"""The hooks, and the messages that a user sees at launch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from pydantic import ValidationError

import rolecall
from rolecall import BackendRefused, Registry, RunTicket
from rolecall_tensorboard import plugin
from rolecall_tensorboard.args import TensorBoardArgs

ARGS = TensorBoardArgs()
SOURCES = [str(Path(module.__file__ or "").parents[1]) for module in (rolecall, sys.modules["rolecall_tensorboard"])]


def python(code: str, path: list[str]) -> str:
    """Run code in an interpreter that sees only `path`, and return what it prints."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, "-S", "-c", code]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout


def site_without(tmp_path: Path, name: str) -> list[str]:
    """All installed distributions except this one."""
    for entry in [*sys.path, *SOURCES]:
        for item in Path(entry).iterdir() if entry.endswith("site-packages") else ():
            if not item.name.lower().startswith(name.lower()):
                (tmp_path / item.name).symlink_to(item)
    return [str(tmp_path), *SOURCES]


def test_entry_point_loads_this_plugin() -> None:
    (point,) = entry_points(group="rolecall.backends", name="tensorboard")
    assert point.load() is plugin


def test_registry_accepts_the_hooks() -> None:
    backend = Registry().load("tensorboard")
    assert backend.args_model() is TensorBoardArgs
    assert not backend.supports_shared_run(ARGS).supported


def test_reason_names_the_alternative() -> None:
    reason = plugin.supports_shared_run(ARGS).reason
    assert "several processes" in reason
    assert "shared_run: relay" in reason
    assert "sub-directory" in reason
    assert "tensorboard --logdir" in reason
    assert "add a backend" not in reason  # the job may have another one, which shares its run


@pytest.mark.processes
def test_importing_and_asking_imports_no_sdk() -> None:
    code = (
        "import sys; from rolecall_tensorboard import plugin as p;"
        "p.supports_shared_run(p.backend_args()());"
        "print(*({'tensorboardX', 'numpy', 'google.protobuf', 'tensorboard'} & set(sys.modules)))"
    )
    assert python(code, sys.path).strip() == ""


@pytest.mark.parametrize("value", [{"logdir": "x"}, {"log_dir": "s3://bucket/x"}, {"log_dir": 3}])
def test_wrong_arguments_are_refused(value: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=r"log_?dir"):
        TensorBoardArgs.model_validate(value)


def test_relative_log_dir_is_below_folder(tmp_path: Path) -> None:
    assert ARGS.base(tmp_path) == tmp_path
    assert TensorBoardArgs(log_dir=Path("tb/x")).base(tmp_path) == tmp_path / "tb" / "x"


@pytest.mark.parametrize("path", ["..", "../wandb", "a/../../b"])
def test_relative_log_dir_cannot_leave_folder(path: str) -> None:
    with pytest.raises(ValidationError, match="outside of the backend's own folder; use an absolute path"):
        TensorBoardArgs(log_dir=Path(path))


def test_absolute_log_dir_is_used_unchanged(tmp_path: Path) -> None:
    assert TensorBoardArgs(log_dir=Path("/scratch/tb")).base(tmp_path) == Path("/scratch/tb")
    assert TensorBoardArgs(log_dir=Path("~/tb")).base(tmp_path) == Path.home() / "tb"


@pytest.mark.parametrize(
    ("log_dir", "layout", "expected"),
    [
        (".", None, "explorer/0"),
        ("tb", None, "tb/explorer/0"),
        ("{tmp}", None, "{tmp}/grpo-1/explorer/0"),
        ("{tmp}", "{role}", "{tmp}/explorer/0"),
        (".", "{project}/{name}/{role}", "gsm8k/grpo-1/explorer/0"),
    ],
)
def test_directory_of_a_writer(
    ticket: Callable[..., RunTicket], folder: Path, tmp_path: Path, log_dir: str, layout: str | None, expected: str
) -> None:
    args = TensorBoardArgs(log_dir=Path(log_dir.format(tmp=tmp_path)), layout=layout)
    run = plugin.open_run(replace(ticket(), job="grpo-1"), args)
    run.close("finished")
    assert Path(run.id) == folder / expected.format(tmp=tmp_path)


@pytest.mark.parametrize("job", ["..", ".", "a/../..", "/etc"])
def test_name_stays_below_log_dir(ticket: Callable[..., RunTicket], tmp_path: Path, job: str) -> None:
    run = plugin.open_run(replace(ticket(), job=job), TensorBoardArgs(log_dir=tmp_path))
    run.close("finished")
    assert Path(run.id).parents[2] == tmp_path


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        ("{name}", "one directory for all roles"),
        ("{role}/{rank}", "no other braces"),
        ("{role", "no other braces"),
        ("../{role}", "outside of log_dir"),
        ("/{role}", "outside of log_dir"),
    ],
)
def test_wrong_layout_is_refused(layout: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        TensorBoardArgs(layout=layout)


def test_prepare_makes_an_empty_directory(ticket: Callable[..., RunTicket], folder: Path) -> None:
    plugin.prepare(ticket(None), ARGS)
    assert list(folder.iterdir()) == []


def test_run_is_below_the_folder_alone(ticket: Callable[..., RunTicket], folder: Path, tmp_path: Path) -> None:
    plugin.open_run(ticket(), ARGS).close("finished")
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file())
    assert file.parent == folder / "explorer" / "0"


@pytest.mark.parametrize("hook", [plugin.prepare, plugin.open_run])
@pytest.mark.parametrize("where", ["file", "file/below", "/proc/rolecall"])
def test_unusable_directory_is_refused(
    ticket: Callable[..., RunTicket], folder: Path, hook: Callable[..., object], where: str
) -> None:
    folder.mkdir(parents=True)
    (folder / "file").touch()
    with pytest.raises(BackendRefused, match=r"cannot write event files: .*(file|/proc).*set monitor_args.log_dir to"):
        hook(ticket(), TensorBoardArgs(log_dir=Path(where)))


@pytest.mark.parametrize("writer", ["../explorer", "..", "a/../.."])
def test_writer_stays_below_the_directory(ticket: Callable[..., RunTicket], writer: str) -> None:
    with pytest.raises(BackendRefused, match=r"is not a directory below .*; rename the role"):
        plugin.open_run(ticket(writer), ARGS)


@pytest.mark.parametrize("hook", [plugin.prepare, plugin.open_run])
def test_old_sdk_is_refused(
    ticket: Callable[..., RunTicket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: Callable[..., object]
) -> None:
    distribution(tmp_path, "2.5.1")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        BackendRefused,
        match=r"tensorboardX 2.5.1 is too old, 2.6 or newer is needed; run: pip install 'tensorboardX>=2.6'",
    ):
        hook(ticket(), ARGS)


@pytest.mark.processes
def test_missing_sdk_is_refused(tmp_path: Path) -> None:
    message = python(LOAD, site_without(tmp_path, "tensorboardX"))
    assert message == "tensorboardX is not installed; run: pip install 'tensorboardX>=2.6'\n"


@pytest.mark.processes
def test_sdk_broken_by_protobuf_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "first" / "tensorboardX"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise TypeError('Descriptors cannot be created directly.\\nOr so.')")
    distribution(tmp_path / "first", "2.6")
    message = python(LOAD, [str(tmp_path / "first"), *sys.path])
    assert message.startswith("tensorboardX 2.6 cannot be imported (Descriptors cannot be created directly.); run: pip")


@pytest.mark.processes
def test_pytorch_is_not_imported(tmp_path: Path) -> None:
    """Where it is installed, tensorboardX does."""
    (tmp_path / "torch.py").write_text("print('imported')\nTensor = None")
    site = [str(tmp_path), *sys.path]
    assert python("import tensorboardX", site) == "imported\n"
    assert not python(LOAD, site)
    assert python(f"{LOAD}import torch", site) == "imported\n"  # the process may still do so


@pytest.mark.processes
def test_another_thread_imports_pytorch_meanwhile(tmp_path: Path) -> None:
    """As with `courier: thread`."""
    (tmp_path / "torch.py").write_text("Tensor = None")
    code = """
import threading
from rolecall_tensorboard import sdk

def load_beside(name, package=None, *, load=sdk.import_module):
    other = threading.Thread(target=lambda: found.append(__import__("torch").__name__))
    other.start()
    other.join()
    return load(name, package)

found = []
sdk.import_module = load_beside
sdk.load()
print(found)
"""
    assert python(code, [str(tmp_path), *sys.path]).startswith("['torch', 'torch'")


LOAD = """
from rolecall import BackendRefused
from rolecall_tensorboard import sdk
try:
    sdk.load()
except BackendRefused as error:
    print(error)
"""


def distribution(directory: Path, version: str) -> None:
    """Create a distribution called tensorboardX that has metadata and nothing else."""
    info = directory / f"tensorboardX-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tensorboardX\nVersion: {version}\n")
