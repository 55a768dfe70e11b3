"""Write a backend of your own: a small distribution that works, for you to edit.

It keeps rows in files, and has the hooks, a run, and the tests of the contract.

Examples:
  rolecall new-backend acme
  rolecall new-backend acme --into plugins
"""

import argparse
import re
import shlex
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from string import Template
from typing import Final

from rolecall.backends.builtin import NONE
from rolecall.backends.registry import Registry
from rolecall.cli.view.text import visible
from rolecall.config.commands import command, with_path
from rolecall.errors import ConfigError, DirectoryError

_NAME: Final = re.compile("[A-Za-z](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_NAME_RULE: Final = (
    "a name is 1 to 64 letters, digits, '.', '_' and '-'; it starts with a letter and ends with a letter or a digit"
)
_SUFFIX: Final = ".txt"
"""Of the files of the template, which are no files of rolecall's own."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    parser.add_argument("name", help="what users will write as monitor_type")
    parser.add_argument("--into", type=Path, default=Path(), metavar="DIR", help="where to write it (default: here)")


def run(options: argparse.Namespace) -> int:
    """Write the distribution, and say what comes next."""
    name: str = options.name
    _require_free(name)
    root: Path = options.into / f"rolecall-{name}"
    try:
        root.mkdir(parents=True)
    except FileExistsError:
        raise DirectoryError(f"{root} exists already; choose another name, or another directory with --into") from None
    words = re.split("[._-]+", name)
    module = "_".join(["rolecall", *words]).lower()
    names = {"name": name, "module": module, "title": "".join(word[0].upper() + word[1:] for word in words)}
    for path, text in _files(files("rolecall.cli").joinpath("template"), root):
        target = Path(str(path).replace("MODULE", module))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(Template(text).substitute(names), encoding="utf-8")
    print(f"wrote {visible(str(root))}; next:")
    print(f"  {with_path('pip install -e ' + shlex.quote(f'{_as_path(root)}[test]'))}")
    print(f"  {command('backends')}")
    print(f"  {with_path('pytest -n auto ' + shlex.quote(str(root)))}")
    return 0


def _require_free(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise ConfigError(f"name: {name!r} cannot be a backend's name: {_NAME_RULE}")
    if name in (taken := [*Registry().names(), NONE]):
        raise ConfigError(f"name: there is a backend {name!r} already; choose another name than {', '.join(taken)}")


def _files(source: Traversable, target: Path) -> Iterator[tuple[Path, str]]:
    """The files of a directory of the template: where each goes, and its text."""
    for each in source.iterdir():
        if each.is_dir():
            yield from _files(each, target / each.name)
        elif each.name.endswith(_SUFFIX):
            yield target / each.name.removesuffix(_SUFFIX), each.read_text(encoding="utf-8")


def _as_path(root: Path) -> str:
    """As pip takes it for a directory and not for a name on a package index."""
    return str(root) if root.is_absolute() else f"./{root}"
