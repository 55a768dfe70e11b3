from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_batch_log_data, _validate_metric_name

from rolecall_mlflow.keys import MAX_BYTES, KeyNames, valid_key

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

# Characters that MLflow accepts, that it refuses, and that look alike once they are replaced.
tricky = st.text(st.sampled_from("ab@_/. :-#%é界\n\x00\ud800"), min_size=1, max_size=30)
keys = st.one_of(st.text(min_size=1, max_size=400), tricky)


def mlflow_accepts(key: str) -> bool:
    try:
        _validate_metric_name(key)  # type: ignore[no-untyped-call]
        _validate_batch_log_data([Metric(key, 1.0, 0, 0)], [], [])  # type: ignore[no-untyped-call]
    except MlflowException:
        return False
    return True


@given(keys)
def test_mlflow_accepts_every_name(key: str) -> None:
    assert mlflow_accepts(valid_key(key))
    assert len(valid_key(key).encode()) <= MAX_BYTES


@given(keys)
def test_a_name_stays_as_it_is(key: str) -> None:
    assert valid_key(valid_key(key)) == valid_key(key)


@given(st.text(st.sampled_from("abé_.-: 12"), min_size=1, max_size=80))
def test_what_mlflow_accepts_is_not_touched(key: str) -> None:
    assert valid_key(key) == key or not mlflow_accepts(key)


@given(st.lists(st.lists(tricky, min_size=1, max_size=5), min_size=1, max_size=6))
def test_no_two_keys_share_a_name(batches: list[list[str]]) -> None:
    names = KeyNames({})
    for batch in batches:
        names.learn(batch)
    given = {key for batch in batches for key in batch}
    assert len({names[key] for key in given}) == len(given)
    assert all(mlflow_accepts(names[key]) for key in given)


@given(st.lists(tricky, min_size=1, max_size=8, unique=True), st.randoms(use_true_random=False))
def test_later_session_keeps_names_whatever_order(given: list[str], random: object) -> None:
    first = KeyNames({})
    remembered: dict[str, str] = {}
    for key in given:
        remembered |= first.learn([key])
    later = KeyNames(remembered)
    for key in sorted(given, reverse=True):
        later.learn([key])
    assert {key: later[key] for key in given} == {key: first[key] for key in given}


@given(st.lists(tricky, min_size=1, max_size=8, unique=True))
def test_order_within_batch_does_not_matter(given: list[str]) -> None:
    forward, backward = KeyNames({}), KeyNames({})
    forward.learn(given)
    backward.learn(reversed(given))
    assert {key: forward[key] for key in given} == {key: backward[key] for key in given}


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("reward/mean", "reward/mean"),
        ("val-core/openai/gsm8k/acc/mean@4", "val-core/openai/gsm8k/acc/mean_at_4"),
        ("précision: 界 1", "précision: 界 1"),
        ("acc%", "acc_-597720e6"),
        ("acc#", "acc_-97b26d2e"),
        ("/a//b/", "a/b-cd0b3a84"),
        ("../a", "__/a-64488304"),
        ("a/./b/..", "a/_/b/__-5be6d9f7"),
        ("/", "_-091ade73"),
    ],
)
def test_examples(key: str, name: str) -> None:
    assert valid_key(key) == name


def test_names_are_same_in_every_process() -> None:
    code = "from rolecall_mlflow.keys import valid_key; print(ascii([valid_key(k) for k in ('a#b', 'x' * 300, '..')]))"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert printed == {ascii([valid_key(key) for key in ("a#b", "x" * 300, "..")]) + "\n"}


def test_a_changed_name_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    names = KeyNames({})
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            names.learn(["plain", "a@b", "a_at_b", "acc%"])
    logged = [(record.levelname, record.getMessage().split("'")[1]) for record in caplog.records]
    assert sorted(logged) == [("WARNING", "a@b"), ("WARNING", "acc%")]
    assert names["a_at_b"] == "a_at_b"
    assert names["a@b"] != "a_at_b"
