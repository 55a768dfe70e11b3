from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from rolecall_mlflow.args import MlflowArgs


def test_defaults_are_those_of_trinity_rft() -> None:
    args = MlflowArgs()
    assert (args.uri, args.username, args.password) == ("http://localhost:5000", None, None)


def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    assert MlflowArgs().uri == "https://mlflow.example"
    assert MlflowArgs(uri="http://other:1").uri == "http://other:1"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "mlruns",
        "http://",
        "postgresql://user:hunter2@db/mlflow",
        "databricks",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "file:",
    ],
)
def test_other_stores_are_refused_with_advice(uri: str) -> None:
    with pytest.raises(ValidationError) as caught:
        MlflowArgs(uri=uri)
    (fault,) = caught.value.errors()
    assert fault["loc"] == ("uri",)
    assert "sqlite:////ABSOLUTE/PATH.db" in fault["msg"]
    assert "hunter2" not in str(caught.value)


def test_user_is_moved_out_of_uri() -> None:
    args = MlflowArgs(uri="https://ann:p%40ss@mlflow.example:8443/base/")
    assert args.uri == "https://mlflow.example:8443/base"
    assert args.username == "ann"
    assert args.password is not None
    assert args.password.get_secret_value() == "p@ss"
    assert "p@ss" not in repr(args) + str(args.model_dump()) + args.model_dump_json()


def test_an_explicit_password_overrides_the_uri() -> None:
    args = MlflowArgs(uri="http://ann:old@host", password="new")
    assert args.password is not None
    assert (args.username, args.password.get_secret_value()) == ("ann", "new")


@pytest.mark.parametrize(
    ("given", "absolute"),
    [
        ("sqlite:///runs/m.db", "sqlite:///{cwd}/runs/m.db"),
        ("sqlite:///m.db?timeout=5", "sqlite:///{cwd}/m.db?timeout=5"),
        ("sqlite:////abs/m.db", "sqlite:////abs/m.db"),
        ("file:mlruns", "file://{cwd}/mlruns"),
        ("file:./mlruns", "file://{cwd}/mlruns"),
        ("file:/abs/mlruns", "file:///abs/mlruns"),
        ("file:///abs/mlruns", "file:///abs/mlruns"),
    ],
)
def test_relative_paths_become_absolute(
    given: str, absolute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    args = MlflowArgs(uri=given)
    assert args.uri == absolute.replace("{cwd}", str(tmp_path))
    assert MlflowArgs.model_validate(args.model_dump()) == args


@pytest.mark.parametrize("uri", ["sqlite:///{monitor_dir}/m.db", "file:{monitor_dir}/m.db"])
def test_store_may_be_in_monitor_dir(uri: str) -> None:
    expected = uri.replace("file:", "file://").replace("{monitor_dir}", "/data/job")
    assert MlflowArgs(uri=uri).store_uri(Path("/data/job/backends/mlflow")) == expected


@pytest.mark.parametrize("args", [{"urll": "x"}, {"timeout": 0}, {"retries": 10}, {"experiment": ""}])
def test_wrong_arguments_are_refused(args: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        MlflowArgs.model_validate(args)
