"""Every fenced block of README, docs and the plugins' READMEs is executed, loaded, written or compared.

A page is read as a stranger reads it, in an empty directory, from top to bottom:

- `python title="job.py"` (any language with a title) is written to that file; `python` without one is executed here,
  in a namespace of the page.
- `shell` is executed with bash, command by command. `NOT_EXECUTED` lists what cannot be, and where it is.
- `yaml` is loaded as a config, but a Kubernetes manifest is only parsed; `toml` is parsed.
- `text title="output"` is compared with what the last shell block printed, `...` standing for anything; other `text`
  is a drawing.

Any other language fails, and so does a Python file that no command of its page names.
"""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from page_blocks import PAGES, ROOT, Block, blocks
from wandb_emulator import WandbServer, environment

from rolecall import MonitorConfig

STAND_INS = Path(__file__).parent / "stand_ins"
LANGUAGES = {"python", "shell", "yaml", "toml", "text"}

NOT_EXECUTED = {
    "python3 -m venv .venv": "`.ci/run` makes the environment; here .venv is the one that the tests run in",
    ".venv/bin/pip install": "`.ci/run` and `nox -s install` install; here it is installed already",
    ".venv/bin/nox": "`.ci/run` runs it; here it would run itself",
    "tensorboard --logdir": "a server that runs until it is stopped; `nox -s web` looks at it",
    "SWANLAB_RUN_ID=k3x9 swanlab sync": "it uploads to a server; the plugin's tests run it with an emulator",
    "trackio show": "a server that runs until it is stopped",
    "pip install 'ray>=2.60'": "as above; `nox -s ray` has it",
    "pip install lightning": "as above; `nox -s lightning` has it",
    "ROLECALL_MONITOR_TYPE=tensorboard python lightning_rolecall.py": "needs Lightning; `nox -s lightning` runs it",
    "python lightning_role.py": "needs Lightning; `nox -s lightning` runs it",
    "pip install stable-baselines3 pillow": "as above; `nox -s stable_baselines3` has it",
    "python cartpole.py": "needs Stable-Baselines3; `nox -s stable_baselines3` runs it",
    "python writer.py": "needs Stable-Baselines3; `nox -s stable_baselines3` runs it",
    "pip install trinity-rft": "as above; `nox -s trinity` has it",
    "pip install verl": "as above; `nox -s verl` has it",
    "trinity run": "needs Ray, a model and GPUs; `nox -s trinity` starts its launcher",
    "pip install 'transformers[torch]'": "as above; `nox -s transformers` has it",
    "pip install accelerate": "as above; `nox -s accelerate` has it",
    "accelerate launch": "needs Accelerate; `nox -s accelerate` runs it",
    "python gpt.py": "needs transformers; `nox -s transformers` runs it",
    "rolecall demo --ray": "needs Ray; `nox -s ray` runs it on a cluster",
    "python ray_job.py": "needs Ray; `nox -s ray` runs it",
    "pip install 'ray[default,train,tune]'": "as above; `nox -s ray_tune` has it",
    "python search.py": "needs Ray Tune; `nox -s ray_tune` runs it",
    "python train.py": "needs Ray Train; `nox -s ray_tune` runs it",
    "pip install torchrl gymnasium": "as above; `nox -s torchrl` has it",
    "python roles.py": "needs TorchRL; `nox -s torchrl` runs it",
    "pip install hydra-core": "as above; `nox -s hydra` has it",
    "python parabola.py": "needs Hydra; `nox -s hydra` runs it",
    "mlflow ui": "a server that runs until it is stopped; `nox -s web` looks at it",
    "mlflow server": "a server that runs until it is stopped; `nox -s mlflow_server` logs to it",
}

# The others fill the time in which these wait: at the end, one of them would be alone.
FIRST = [ROOT / "docs/wandb.md", ROOT / "docs/tutorial.md", ROOT / "README.md", ROOT / "docs/cli.md"]
ORDERED = [*FIRST, *(path for path in PAGES if path not in FIRST)]


def commands(script: str) -> Iterator[list[str]]:
    """The lines of a shell block, those that go on with a backslash joined, each cut at `&&`."""
    for line in script.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield [part.strip() for part in line.split(" && ")]


def excuse(command: str) -> str | None:
    """The entry of `NOT_EXECUTED` that a command begins with."""
    return next((prefix for prefix in NOT_EXECUTED if command.startswith(prefix)), None)


@dataclass
class Page:
    """A page's directory, its names, and what was printed last."""

    directory: Path
    site: Path
    names: dict[str, Any] = field(default_factory=dict)
    printed: str = ""
    files: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    def take(self, block: Block) -> None:
        """Do with a block what its language and title say."""
        if block.title and block.language != "text":
            self._write(block)
        match block.language:
            case "python" if not block.title:
                self._execute(block)
            case "shell" if not block.title:
                self._run(block.text)
            case "yaml":
                self._load(block)
            case "toml":
                tomllib.loads(block.text)
            case "text" if block.title == "output":
                self._compare(block.text)

    def unused(self) -> list[str]:
        """Python files of the page that no command and no other file names."""
        texts = {name: (self.directory / name).read_text() for name in self.files}
        scripts = [name for name in self.files if name.endswith(".py")]
        return [name for name in scripts if not self._is_named(name, texts)]

    def _is_named(self, script: str, files: Mapping[str, str]) -> bool:
        texts = [*self.commands, *(text for name, text in files.items() if name != script)]
        path = Path(script)
        names = (path.stem, path.parent.name) if path.stem.startswith(("test_", "__")) else (path.stem,)
        return any(re.search(rf"\b{name}\b", text) for text in texts for name in names)

    def _write(self, block: Block) -> None:
        path = self.directory / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
        self.files.append(block.title)

    def _execute(self, block: Block) -> None:
        code = compile("\n" * block.line + block.text, block.path, "exec")
        exec(code, self.names)

    def _run(self, script: str) -> None:
        self.commands.append(script)
        lines = [" && ".join(":" if excuse(part) else part for part in line) for line in commands(script)]
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
            cwd=self.directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
            check=False,
        )
        assert ran.returncode == 0, f"{script}\n{ran.stdout}"
        self.printed = ran.stdout

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join((str(STAND_INS), str(Path(sys.executable).parent), os.environ["PATH"]))
        return {
            **os.environ,
            "PATH": path,
            "PYTHONPATH": str(self.site),
            "PAGE_SITE": str(self.site),
            "COLUMNS": "100",
            "PYTHONUNBUFFERED": "1",  # what goes to standard output and to standard error, in its order
            "PYTHONWARNINGS": "default",
        }

    def _load(self, block: Block) -> None:
        """As a file where the page writes one; what is only a part of a config is completed."""
        content = yaml.safe_load(block.text)
        if {"apiVersion", "kind", "metadata", "spec"} <= content.keys():
            return  # a Kubernetes manifest; its schema is not at hand
        complete = {"project": "docs", "name": "page", **content.get("monitor", content)}
        config = MonitorConfig.load(self.directory / block.title if block.title else complete)
        assert config.monitor_dir.is_absolute()

    def _compare(self, expected: str) -> None:
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        same = doctest.OutputChecker().check_output(expected, self.printed, flags)
        assert same, f"the page says\n{expected}\nbut the command printed\n{self.printed}"


@pytest.fixture
def _wandb(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a page logs to wandb goes to the emulator of its server, by the settings that a user's machine has."""
    with WandbServer() as server:
        for name, value in environment(server, tmp_path_factory.mktemp("wandb")).items():
            monkeypatch.setenv(name, value)
        yield


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=_name)
def test_every_blocks_language_is_tested(path: Path) -> None:
    found = blocks(path)
    assert {block.language for block in found} <= LANGUAGES
    assert len(found) * 2 == len(re.findall(r"^ *(?:```|~~~)", path.read_text(), re.MULTILINE))


def test_blocks_not_executed_are_in_pages() -> None:
    scripts = [block.text for path in PAGES for block in blocks(path) if block.language == "shell"]
    said = {excuse(part) for script in scripts for line in commands(script) for part in line}
    assert said - {None} == set(NOT_EXECUTED)


@pytest.mark.docs
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("_wandb")
@pytest.mark.parametrize("path", ORDERED, ids=_name)
def test_every_block_of_the_page(
    path: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    page = Page(tmp_path, tmp_path_factory.mktemp("site"))
    monkeypatch.syspath_prepend(page.site)
    for block in blocks(path):
        page.take(block)
    assert page.unused() == []
