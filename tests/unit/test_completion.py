"""What a shell completes after `rolecall`, and the examples in each help."""

from __future__ import annotations

import argparse
import os
import pty
import select
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from itertools import dropwhile, takewhile
from pathlib import Path

import pytest

from rolecall.__main__ import _parser, main


def commands() -> dict[str, argparse.ArgumentParser]:
    (found,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(found.choices)


# ---------------------------------------------------------------- completion


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str], Path]:
    """The script for a shell."""
    pytest.importorskip("shtab")

    def make(shell: str) -> Path:
        assert main(["completion", shell]) == 0
        path = tmp_path / f"_rolecall.{shell}"
        path.write_text(capsys.readouterr().out)
        return path

    return make


@pytest.fixture
def complete(script: Callable[[str], Path], tmp_path: Path) -> Callable[..., set[str]]:
    """What bash offers for the last word of a command line, in a directory with a file and a folder."""
    file, place = script("bash"), tmp_path / "place"
    (place / "runs").mkdir(parents=True)
    (place / "run.yaml").touch()
    function = (
        'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}; '
        'complete=$(complete -p rolecall); [[ $complete =~ -F\\ ([^ ]+) ]]; "${BASH_REMATCH[1]}" rolecall; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )

    def ask(*words: str) -> set[str]:
        asked = ["bash", "--norc", "-c", function, str(file), "rolecall", *words]
        ran = subprocess.run(asked, cwd=place, capture_output=True, text=True, check=True)
        assert ran.stderr == ""
        return {line.rstrip("/") for line in ran.stdout.splitlines() if line}

    return ask


def test_bash_completes_the_commands(complete: Callable[..., set[str]]) -> None:
    assert complete("") >= {*commands()}
    assert complete("sh") == {"show"}
    assert complete("completion", "") == {"bash", "zsh"}


@pytest.mark.parametrize("command", commands())
def test_bash_completes_the_options_of(complete: Callable[..., set[str]], command: str) -> None:
    options = {name for action in commands()[command]._actions for name in action.option_strings if name[:2] == "--"}
    assert complete(command, "--") == options


@pytest.mark.parametrize("words", [("show",), ("deliver",), ("clean", "--dry-run"), ("demo", "--monitor-dir")])
def test_bash_completes_directories(complete: Callable[..., set[str]], words: tuple[str, ...]) -> None:
    assert complete(*words, "r") == {"runs"}


@pytest.mark.parametrize("words", [("check",), ("show", "--html")])
def test_bash_completes_files(complete: Callable[..., set[str]], words: tuple[str, ...]) -> None:
    assert complete(*words, "r") == {"runs", "run.yaml"}


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed: `apt-get install zsh`")
def test_zsh_completes_a_command_and_an_option(script: Callable[[str], Path], tmp_path: Path) -> None:
    """In a terminal, as zsh has no other way to be asked."""
    home = tmp_path / "home"
    home.mkdir()
    script("zsh").rename(home / "_rolecall")
    start = ["PS1='> '", f"fpath=({shlex.quote(str(home))} $fpath)", "autoload -Uz compinit", "compinit -u -D"]
    (home / ".zshrc").write_text("\n".join([*start, "bindkey '^I' complete-word", ""]))
    env = {**os.environ, "ZDOTDIR": str(home), "TERM": "dumb", "COLUMNS": "200"}
    terminal, its_own = pty.openpty()
    with subprocess.Popen(["zsh", "-i"], stdin=its_own, stdout=its_own, stderr=its_own, env=env) as zsh:
        os.close(its_own)
        try:
            wait_for(terminal, "> ")
            os.write(terminal, b"rolecall sh\t")
            wait_for(terminal, "show ")
            os.write(terminal, b"--ht\t")
            wait_for(terminal, "--html ")
        finally:
            zsh.kill()
            os.close(terminal)


def wait_for(terminal: int, text: str, timeout: float = 60.0) -> None:
    """Read from a terminal until it has shown a text."""
    deadline, shown = time.monotonic() + timeout, b""
    while text.encode() not in shown:
        assert time.monotonic() < deadline, f"{text!r} is not in {shown!r}"
        if select.select([terminal], [], [], 0.1)[0]:
            shown += os.read(terminal, 4096)


def test_shell_that_is_not_known(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["completion", "cmd"])
    assert refused.value.code == 2
    assert "choose from" in capsys.readouterr().err


# ------------------------------------------------------------------ examples


def examples() -> Iterator[tuple[str, str]]:
    """Each example of each help, with the command that it is of."""
    for name, parser in {"": _parser(), **commands()}.items():
        lines = (parser.epilog or "").partition("Examples:\n")[2].splitlines()
        yield from ((name, line.strip()) for line in lines if line.strip())


@pytest.mark.parametrize("name", ["", *commands()])
def test_every_help_has_examples(name: str) -> None:
    assert [line for command, line in examples() if command == name and f"rolecall {name}" in line]


@pytest.mark.parametrize(("name", "line"), list(examples()))
def test_every_example_is_a_call(name: str, line: str) -> None:
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    # without the settings before the program, and what another program gets from it
    call = [*dropwhile(lambda word: word != "rolecall", takewhile(lambda word: word not in ("|", ">"), words))]
    assert call[:1] == ["rolecall"]
    if "COMMAND" not in call:
        assert callable(_parser().parse_args(call[1:]).run)
