"""`rolecall new-backend` writes a distribution that is whole, and never over something."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from rolecall.__main__ import main


def test_writes_a_distribution_with_the_given_name(tmp_path: Path) -> None:
    assert main(["new-backend", "Acme.v2", "--into", str(tmp_path / "plugins")]) == 0
    root = tmp_path / "plugins" / "rolecall-Acme.v2"
    files = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
    assert files.keys() == {
        "pyproject.toml",
        "README.md",
        "src/rolecall_acme_v2/__init__.py",
        "src/rolecall_acme_v2/py.typed",
        "src/rolecall_acme_v2/run.py",
        "tests/test_contract.py",
    }
    project = tomllib.loads(files["pyproject.toml"])["project"]
    assert project["entry-points"] == {"rolecall.backends": {"Acme.v2": "rolecall_acme_v2"}}
    assert "class AcmeV2Run:" in files["src/rolecall_acme_v2/run.py"]
    assert [name for name, text in files.items() if "$" in text] == []


def test_says_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["new-backend", "acme"])
    first, install, *_ = capsys.readouterr().out.splitlines()
    assert first == "wrote rolecall-acme; next:"
    assert install.endswith("pip install -e './rolecall-acme[test]'")


def test_never_writes_over_a_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rolecall-acme").mkdir()
    assert main(["new-backend", "acme", "--into", str(tmp_path)]) == 2
    assert "exists already; choose another name" in capsys.readouterr().err
    assert list((tmp_path / "rolecall-acme").iterdir()) == []


@pytest.mark.parametrize("name", ["", "3d", "acme-", "../acme", "a b", "a" * 65, "local", "none", "ü"])
def test_refuses_a_name_that_cannot_be_chosen(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new-backend", name]) == 2
    assert f"name: {name!r} cannot be" in (said := capsys.readouterr().err) or f"a backend {name!r} already" in said
    assert list(tmp_path.iterdir()) == []
