"""Everything a user can write, call or type is in the docs, with its exact arguments and defaults."""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from ability_table import BACKENDS, cells, table
from page_blocks import PAGES, blocks
from pydantic import BaseModel

import rolecall
from rolecall import (
    MonitorConfig,
    Registry,
    Run,
    SupportsConfig,
    SupportsConfirmation,
    SupportsEndTime,
    SupportsMedia,
    SupportsProgress,
    SupportsSummary,
    SupportsTableMedia,
    SupportsTables,
    SupportsTags,
    SupportsText,
    hookspecs,
)
from rolecall.__main__ import _parser

ROOT = Path(__file__).parents[2]
COLUMNS = 90
"""The longest line of a block."""
MODULES = ("protocol", "errors", "testing", "values")
"""Modules that the reference renders whole."""
LOADED = re.compile(
    r'<(?:script|img|iframe|source)[^>]*\ssrc="(?:https?:)?//'
    r'|<link[^>]*\srel="(?:stylesheet|preconnect|preload)"[^>]*\shref="(?:https?:)?//'
)
"""What a browser fetches by itself from another server."""


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def section(text: str, heading: str) -> str:
    """The text below a second-level heading."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no section {heading!r}"
    return found[1]


def rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables by the code in their first column, the first of a name."""
    lines = [re.split(r"\s*\|\s*", line.strip("| \n")) for line in text.splitlines() if line.startswith("|")]
    return {name: cells[1:] for cells in reversed(lines) for name in re.findall(r"`([^`]+)`", cells[0])}


def default(model: type[BaseModel], name: str) -> str:
    """A field's default as a user writes it."""
    value = model.model_fields[name].get_default(call_default_factory=True)
    return f"`{value if value != () else []}`"


def signature(function: Any) -> str:
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    return f"{function.__name__}({', '.join(names)})"


# ---------------------------------------------------------------------- config


@pytest.mark.parametrize("field", MonitorConfig.model_fields)
def test_every_field_of_the_config(field: str) -> None:
    said = rows(page("configuration"))[field][0]
    match field:
        case "project" | "name":
            assert said == "required"
        case "monitor_type":
            assert (said,) == tuple(f"`{name}`" for name in MonitorConfig.model_fields[field].default)
        case "monitor_dir":
            default_dir = MonitorConfig(project="p", name="n").monitor_dir.relative_to(Path.cwd())
            assert said.strip("`").format(project="p", name="n") == str(default_dir)
        case _:
            assert said == default(MonitorConfig, field)


def test_every_choice_of_the_config() -> None:
    hints = [field.annotation for field in MonitorConfig.model_fields.values()]
    choices = {choice for hint in hints if get_origin(hint) is Literal for choice in get_args(hint)}
    assert choices
    assert [choice for choice in choices if f"`{choice}`" not in page("configuration")] == []


# -------------------------------------------------------------------- backends


@pytest.mark.docs
@pytest.mark.parametrize("name", ["local", "console", "tensorboard", "mlflow", "swanlab", "trackio", "wandb"])
def test_every_argument_of_a_backend(name: str) -> None:
    model = Registry().load(name).args_model()
    said = {argument: cells[0] for argument, cells in rows(section(page("backends"), name)).items()}
    assert said == {argument: default(model, argument) for argument in model.model_fields}


# ----------------------------------------------------------------------- hooks


def hooks() -> list[Any]:
    return [spec for spec in vars(hookspecs).values() if hasattr(spec, f"{hookspecs.PROJECT}_spec")]


def test_table_of_abilities_is_that_of_the_contracts() -> None:
    """`python tests/support/ability_table.py` prints it."""
    assert table() in page("backends")


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_contract_passes_with_its_sdks(backend: str) -> None:
    """As `tests/support/ability_table.py` prints it of what pytest found; all that was run has passed."""
    said = rows(section(page("backends"), "Tested with"))[backend]
    for cell, version in zip(said, cells(backend), strict=True):
        found = re.fullmatch(r"(\S+?)(?:: (\d+) of (\d+))?", cell)
        assert found, f"{backend}: {cell!r}; write what the script prints"
        assert (found[1], found[2]) == (version, found[3])


@pytest.mark.parametrize("hook", hooks(), ids=lambda hook: str(hook.__name__))
def test_every_hook_with_its_arguments(hook: Any) -> None:
    said = rows(section(page("write-a-backend"), "The hooks"))[signature(hook)]
    assert said[0] == ("required" if hook.__name__ in hookspecs.REQUIRED else "optional")


def test_no_hook_that_is_none() -> None:
    assert rows(section(page("write-a-backend"), "The hooks")).keys() == {signature(hook) for hook in hooks()}


@pytest.mark.parametrize(
    "protocol",
    [
        Run,
        SupportsText,
        SupportsTables,
        SupportsMedia,
        SupportsTableMedia,
        SupportsConfig,
        SupportsSummary,
        SupportsTags,
        SupportsEndTime,
        SupportsProgress,
        SupportsConfirmation,
    ],
)
def test_every_member_of_a_run(protocol: type) -> None:
    said = section(page("write-a-backend"), "The run")
    members = {name: member for name, member in vars(protocol).items() if not name.startswith("_")}
    for name, member in members.items():
        assert f"`{signature(member) if callable(member) else name}`" in said
    assert protocol is Run or f"`{protocol.__name__}`" in said


# ---------------------------------------------------------------- command line


def commands() -> dict[str, argparse.ArgumentParser]:
    (found,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


def arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if not isinstance(action, argparse._HelpAction):
            yield from action.option_strings or [action.dest]


@pytest.mark.parametrize("command", commands())
def test_every_argument_of_a_command(command: str) -> None:
    said = rows(section(page("cli"), f"rolecall {command}"))
    assert said.keys() == set(arguments(commands()[command]))


def test_no_command_that_is_none() -> None:
    assert re.findall(r"^## rolecall (\S+)", page("cli"), re.MULTILINE) == list(commands())


# ------------------------------------------------------------------- reference

SPOKEN_OF = {"hookimpl", "hookspec", "HOOKS_VERSION"}  # markers, made by pluggy, and a number


def documented() -> Iterator[str]:
    """Every name that the reference has rendered: an object, or what a module says is public."""
    for path in re.findall(r"^::: (\S+)", page("reference"), re.MULTILINE):
        owner, _, name = path.rpartition(".")
        if owner.startswith("rolecall.integrations."):
            continue  # it imports a framework that is not here; the site is made from its source
        if owner == "rolecall" and name in MODULES:
            module = importlib.import_module(path)
            yield from (name for name, value in vars(module).items() if getattr(value, "__module__", "") == path)
        else:
            assert hasattr(importlib.import_module(owner), name)
            yield name


def test_every_public_name_is_in_reference() -> None:
    assert set(rolecall.__all__) - set(documented()) == SPOKEN_OF
    assert [name for name in SPOKEN_OF if f"`rolecall.{name}`" not in page("reference")] == []


# -------------------------------------------------------------------- the site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built without a warning."""
    target = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(target)]
    # the theme's notice on what will follow MkDocs 1 is no fault of these pages
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(build, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    warnings = [line for line in built.stderr.splitlines() if "WARNING" in line or "ERROR" in line]
    assert (built.returncode, warnings) == (0, []), built.stderr
    return target


@pytest.mark.docs
def test_every_public_name_is_on_site(site: Path) -> None:
    html = (site / "reference" / "index.html").read_text()
    names = {path.rpartition(".")[2] for path in re.findall(r'id="(rolecall[\w.]*)"', html)}
    assert set(rolecall.__all__) - names == SPOKEN_OF


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_fits_beside_the_menus(path: Path) -> None:
    """On a screen of 1280 pixels, no block has to be scrolled: see docs/extra.css."""
    assert [line for block in blocks(path) for line in block.text.splitlines() if len(line) > COLUMNS] == []


@pytest.mark.docs
def test_no_page_asks_another_server(site: Path) -> None:
    pages = {path: path.read_text() for path in site.rglob("*.html")}
    assert pages
    assert [path for path, html in pages.items() if LOADED.search(html)] == []


def test_every_guarantee_names_existing_tests() -> None:
    named = re.findall(r"`([\w./-]+\.py)::(\w+)`", page("guarantees"))
    assert len(named) > 20
    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text()]
    assert not missing
