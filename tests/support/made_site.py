"""Distributions made for one test, laid out in a directory as pip leaves them, and found as installed ones are."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

from forks import Forks, Ran
from packaging.requirements import Requirement

import rolecall

PARTS = {
    "head": """
        from pathlib import Path
        from pydantic import BaseModel, ConfigDict, SecretStr
        from rolecall import SharedRunSupport, hookimpl
    """,
    "args": """
        class Args(BaseModel):
            model_config = ConfigDict(extra="forbid", frozen=True)
            url: str = "http://localhost"
            retries: int = 3
            password: SecretStr | None = None
    """,
    "backend_args": """
        @hookimpl
        def backend_args():
            return Args
    """,
    "supports_shared_run": """
        @hookimpl
        def supports_shared_run(args):
            return SharedRunSupport(supported=True)
    """,
    "open_run": """
        class Run:
            id, url = "acme-1", None
            def log(self, rows): pass
            def flush(self, timeout): pass
            def close(self, status): pass

        @hookimpl
        def open_run(ticket, args):
            return Run()
    """,
}


def backend_source(**changed: str) -> str:
    """The module of a backend that keeps the contract, but for the parts that are given."""
    return "\n".join(textwrap.dedent(part) for part in {**PARTS, **changed}.values())


@dataclass(frozen=True)
class MadeSite:
    """A directory of installed distributions."""

    path: Path

    def install(
        self,
        name: str,
        version: str = "1.0",
        *,
        backends: Mapping[str, str] | None = None,
        requires: Sequence[str] = (),
        **modules: str,
    ) -> None:
        """Add a distribution: its metadata, entry points (name to object) and modules (name to source)."""
        info = self.path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        head = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
        (info / "METADATA").write_text("\n".join([*head, *(f"Requires-Dist: {one}" for one in requires)]) + "\n")
        points = "\n".join(f"{key} = {value}" for key, value in (backends or {}).items())
        (info / "entry_points.txt").write_text(f"[rolecall.backends]\n{points}\n")
        for module, source in modules.items():
            (self.path / f"{module}.py").write_text(textwrap.dedent(source))

    def backend(self, name: str = "acme", *, requires: Sequence[str] = (), **changed: str) -> None:
        """Add the distribution of a backend that keeps the contract, but for the parts that are given."""
        module = f"{name}_backend"
        source = {module: backend_source(**changed)}
        self.install(f"rolecall-{name}", backends={name: module}, requires=requires, **source)

    def forget(self) -> None:
        """Drop its modules from this process."""
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(self.path)):
                del sys.modules[name]


@dataclass(frozen=True)
class Computer:
    """Where rolecall and what it requires are installed, the distributions of a site, and nothing else.

    `home` is the working directory. The environment of the tests is not seen here.
    """

    core: Path
    site: MadeSite
    home: Path
    forks: Forks

    def python(self, *arguments: str, **environ: str) -> Ran:
        """Run this interpreter, which has imported nothing. Its own site-packages are left out by -S."""
        command = [sys.executable, "-S", *arguments]
        env = self._environ(environ)
        ran = subprocess.run(command, cwd=self.home, env=env, capture_output=True, text=True, check=False)
        return Ran(ran.returncode, ran.stdout, ran.stderr)

    def program(self, code: str, **environ: str) -> Ran:
        """Run a program."""
        return self.forks.run(["-c", code], self.home, self._environ(environ))

    def rolecall(self, *arguments: str, **environ: str) -> Ran:
        """Run the command."""
        return self.forks.run(["-m", "rolecall", *arguments], self.home, self._environ(environ))

    def _environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        path = os.pathsep.join([str(self.site.path), str(self.core)])
        return {"PATH": os.defpath, "HOME": str(self.home), "PYTHONPATH": path, **environ}

    def terminal(self, text: str) -> str:
        """What a terminal of 80 columns shows, with the names that differ from run to run made the same."""
        text = text.replace(str(self.site.path), "SITE").replace(str(self.home), "HOME")
        return "\n".join(line for long in text.rstrip().splitlines() for line in _wrapped(long))


def link_core(path: Path) -> Path:
    """A directory with rolecall and what it requires, and nothing else of this environment."""
    path.mkdir()
    for dist in _closure("rolecall"):
        files = dist.files or ()
        tops = {file.parts[0] for file in files if file.parts[0] not in {"..", "__pycache__"}}
        for top in tops:
            target = Path(str(dist.locate_file(top)))
            if target.suffix != ".pth" and not (path / top).exists():
                (path / top).symlink_to(target)
    if not (path / "rolecall").exists():  # installed from where it stands, the distribution has no such file
        (path / "rolecall").symlink_to(Path(rolecall.__file__).parent)
    return path


def _closure(name: str, seen: tuple[str, ...] = ()) -> Iterator[Distribution]:
    dist = distribution(name)
    yield dist
    for requirement in map(Requirement, dist.requires or ()):
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and requirement.name not in seen:
            yield from _closure(requirement.name, (*seen, name))


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line, 80, break_long_words=False, break_on_hyphens=False) or [""]
