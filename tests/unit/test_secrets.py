"""A secret is where it was put, and in what `to_env` writes, and nowhere else."""

from __future__ import annotations

import json
import logging
import math
import pickle
import time
from argparse import Namespace
from collections import ChainMap, deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from enum import Enum, EnumMeta, IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_site import MadeSite
from pydantic import BaseModel, SecretBytes, SecretStr
from pydantic_core import from_json, to_json

from rolecall import ConfigError, MonitorConfig, launch, open_monitor
from rolecall.config.plain import plain, plain_config, public_args, scrub
from rolecall.config.redact import MASK, is_secret_name, reveal, scrub_text, secrets_of, shown

SECRET = "hunter2hunter2"
SPOKEN = """
from rolecall import Rejected, Unavailable

class Run:
    spoken = 0
    id, url = "acme-1", "http://tracker/acme-1"
    def __init__(self, args): self.args = args
    def log(self, rows):
        secret, Run.spoken = self.args.password.get_secret_value(), Run.spoken + 1
        if Run.spoken == 1:
            raise OSError(f"refused {secret}")
        if Run.spoken == 2:
            raise Unavailable(f"away {secret}")
        raise Rejected(rows, f"invalid {secret}")
    def flush(self, timeout): pass
    def close(self, status): pass

@hookimpl
def open_run(ticket, args):
    return Run(args)
"""


class Login(BaseModel):
    user: str
    password: SecretStr


class Args(BaseModel):
    url: str = "http://localhost"
    login: Login | None = None
    keys: tuple[SecretStr, ...] = ()
    named: dict[str, SecretStr] = {}
    raw: SecretBytes | None = None


@pytest.fixture
def config(site: MadeSite, tmp_path: Path) -> MonitorConfig:
    """The hooks of a backend that gives its secret to its caller."""
    site.backend(open_run=SPOKEN)
    return MonitorConfig(
        project="p",
        name="n",
        monitor_type="acme",
        monitor_args={"url": "http://tracker", "password": SECRET},
        monitor_dir=tmp_path / "job",
        courier="thread",
    )


def words_of(error: BaseException | None) -> Iterator[str]:
    """What an error, and all that it came from, shows."""
    while error is not None:
        yield repr(error)
        yield str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


# --------------------------------------------------------------------------------- the config


def test_the_config_does_not_show_it(config: MonitorConfig) -> None:
    shown = [
        repr(config),
        str(config),
        repr(config.monitor_args),
        repr(config.model_dump()),
        config.model_dump_json(),
        repr(config.model_dump(mode="json")),
        repr(vars(config)),
    ]
    assert not [text for text in shown if SECRET in text]
    assert MASK in config.model_dump_json()


def test_environment_holds_but_hides_it(config: MonitorConfig) -> None:
    env = config.to_env()
    assert SECRET not in str(env)
    assert MonitorConfig.from_env(env).secrets == (SECRET,)


def test_a_pickle_holds_it(config: MonitorConfig) -> None:
    assert pickle.loads(pickle.dumps(config)).secrets == (SECRET,)


@pytest.mark.parametrize(
    "monitor_args",
    [
        {"password": SECRET, "ulr": SECRET},
        {"password": SECRET, "retries": "many"},
        {"password": [SECRET]},
        {"password": {"value": SECRET}},
        {"url": [SECRET]},
        {"acme": SECRET},
        {"acme": {"pasword": SECRET}},
        {"other": {"password": SECRET}},
        [SECRET],
        SECRET,
    ],
)
@pytest.mark.parametrize("monitor_type", ["acme", ["acme", "local"]])
def test_errors_do_not_show_it(site: MadeSite, monitor_type: Any, monitor_args: Any) -> None:
    site.backend()
    data = {"project": "p", "name": "n", "monitor_type": monitor_type, "monitor_args": monitor_args}
    for make in (MonitorConfig.load, lambda settings: MonitorConfig(**settings)):
        with pytest.raises(ConfigError) as raised:
            make(data)
        assert not [text for text in words_of(raised.value) if SECRET in text]


@pytest.mark.parametrize("number", [12345678, 0.12345678])
def test_number_as_password_is_hidden(site: MadeSite, number: float) -> None:
    site.backend()
    with pytest.raises(ConfigError, match=r"monitor_args\.password: must be a string; given a number") as raised:
        MonitorConfig.load({"project": "p", "name": "n", "monitor_type": "acme", "monitor_args": {"password": number}})
    assert "put it in quotes" in str(raised.value)
    assert "12345678" not in str(raised.value)


KEYS = [
    "hunter2hunter2",
    "local0000000000000000000000000000000000b",
    "sk-proj-Ab3dEfGh1jKlMn0p",
    "hf_AbCdEfGhIjKlMnOpQrStUvWxYz",
    "p@ssw0rd!",
    "postgres://ada:hunter3@host/db",
    "WANDB_API_KEY=hunter3hunter3",
    "Bearer abcdef.ghijkl",
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "settings",
    [
        {"monitor_type": "{key}"},
        {"monitor_type": ["local", "{key}"]},
        {"monitor_type": {"local": "{key}"}},
        {"monitor_type": ["local", {"api_key": "{key}"}]},
        {"resume": "{key}"},
        {"courier": "{key}"},
        {"shared_run": "{key}"},
        {"sync_every": "{key}"},
        {"run_id": "{key} "},
        {"name": "{key}\n"},
        {"project": ["{key}"]},
        {"api_key": "{key}"},
        {"{key}": 1},
        {"monitor_args": "{key}"},
        {"monitor_args": {"{key}": {"local": 1}}},
        {"monitor_args": {"local": {"{key}": 1}}},
        {"monitor_args": {"local": "{key}"}},
        {"monitor_args": {"local": {"uri": "{key}"}}},
        {"monitor_type": "console", "monitor_args": {"level": "{key}"}},
        {"monitor_type": "console", "monitor_args": {"logger": ["{key}"]}},
    ],
    ids=str,
)
def test_key_in_a_wrong_place(settings: dict[str, Any], key: str) -> None:
    """No message quotes it, whatever it was given as."""
    given = json.loads(json.dumps({"project": "p", "name": "n", **settings}).replace("{key}", key))
    with pytest.raises(ConfigError) as raised:
        MonitorConfig.load(given)
    words = " ".join(words_of(raised.value))
    assert key not in words
    assert "hunter" not in words


@pytest.mark.parametrize("key", [*KEYS, "project: p\nmonitor_args: {api_key: hunter2}", "{project: p, api_key: x}"])
def test_config_given_as_text(key: str) -> None:
    """It was taken for a path, which no message quotes either."""
    with pytest.raises(ConfigError, match="a string is the path of a YAML file") as raised:
        MonitorConfig.load(key)
    assert key not in " ".join(words_of(raised.value))


@pytest.mark.parametrize(
    "text",
    ["always", "tensorbord", "grpo-qwen2-7b-gsm8k", "runs/2024-05-01/a b", "数学", "x y!", "", "1e-6", "20240501"],
)
def test_words_are_quoted(text: str) -> None:
    assert shown(text) == repr(text)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "nothing"),
        (True, "True"),
        pytest.param(10**5000, "a number", id="large"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (date(2024, 5, 1), "2024-05-01"),
        ({"a": SECRET}, "a mapping"),
        ([SECRET], "a list"),
        ("x" * 61, "a string"),
        (object(), "a object"),
    ],
)
def test_other_values_by_their_kind(value: object, words: str) -> None:
    assert shown(value) == words


def test_errors_show_uri_without_user(site: MadeSite) -> None:
    site.backend()
    with pytest.raises(ConfigError) as raised:
        MonitorConfig.load({"project": "p", "name": "n", "resume": f"http://me:{SECRET}@host/x"})
    assert f"given 'http{'://'}{MASK}@host/x'" in str(raised.value)


# ------------------------------------------------------------------------- what is written down


def test_no_file_of_job_holds_it(config: MonitorConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_config = {
        "api_key": "key-of-the-job",
        "lr": 0.1,
        "store": f"s3://me:{SECRET}@bucket/x",
        "note": f"log in with {SECRET}",
        SECRET: 1,
    }
    caplog.set_level(logging.DEBUG)
    with launch(config, run_config) as job, open_monitor(job.config, "trainer", run_config=run_config) as monitor:
        monitor.log({"loss": 0.5}, step=1)
    files = [path for path in (tmp_path / "job").rglob("*") if path.is_file()]
    assert {"run.json", "1.jsonl"} <= {path.name for path in files}
    for path in files:
        text = path.read_text(errors="replace")
        assert SECRET not in text, path
        assert "key-of-the-job" not in text, path
    assert "0.1" in (tmp_path / "job" / "journal" / "trainer" / "1.jsonl").read_text()
    for word in ("refused", "away", "invalid"):
        assert f"{word} {MASK}" in caplog.text
    assert SECRET not in caplog.text


def test_the_record_keeps_the_other_arguments(config: MonitorConfig, tmp_path: Path) -> None:
    with launch(config):
        record = json.loads((tmp_path / "job" / "run.json").read_text())
    assert record["args"] == {"acme": {"url": "http://tracker"}}


def test_public_arguments_omit_secrets() -> None:
    model = Args(
        url="http://me:pw@host", login=Login(user="me", password=SecretStr(SECRET)), keys=(SecretStr("key-1-of-2"),)
    )
    assert public_args(model) == {}
    assert public_args(Args(url="http://host")) == {"url": "http://host"}
    assert public_args(Args()) == {}, "defaults may be others where they are read"


# ---------------------------------------------------------------------------------- scrubbing


@pytest.mark.parametrize(
    "name",
    [
        "api_key",
        "apikey",
        "WANDB_API_KEY",
        "password",
        "db.passwd",
        "hf-token",
        "auth_token",
        "secret",
        "client_secret",
        "aws_secret_key",
        "credentials",
        "api_keys",
        "clientSecret",
        "APIKey",
        "OPENAIAPIKEY",
        "DBPASSWORD",
        "headers.Authorization",
        "x-api-key",
        "sshKey",
        "refresh_tokens",
        "accessToken",
        "HF_TOKEN",
        "passphrase",
    ],
)
def test_values_under_secret_names_are_masked(name: str) -> None:
    assert is_secret_name(name)
    for value in ("abc", b"abc", ["abc"], {"user": "me", "pass": "abc"}):
        assert scrub({"outer": [{name: value}]}) == {"outer": [{name: MASK}]}
    assert scrub({name: None}) == {name: None}
    assert scrub({name: True}) == {name: True}


@pytest.mark.parametrize(
    "name",
    [
        "tokens",
        "max_tokens",
        "tokenizer",
        "keyboard",
        "key",
        "monkey",
        "secretary",
        "eos_token",
        "padToken",
        "image_token",
        "keys",
        "sort_keys",
    ],
)
def test_values_that_resemble_secrets_are_kept(name: str) -> None:
    assert scrub({name: "abc"}) == {name: "abc"}


def test_number_masked_as_password_not_token() -> None:
    given_config = {"password": 12345678, "pad_token": 0, "eos_token": 2}
    assert scrub(given_config) == {"password": MASK, "pad_token": 0, "eos_token": 2}


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("http://me:pw@host:5000/a", f"http://{MASK}@host:5000/a"),
        ("postgresql+psycopg2://me@host/db", f"postgresql+psycopg2://{MASK}@host/db"),
        ("see http://me:p@ss@host and https://you:pw@host2", f"see http://{MASK}@host and https://{MASK}@host2"),
        ("http://:pw@host", f"http://{MASK}@host"),
        ("http://host/a@b", "http://host/a@b"),
        ("http://host?mail=a@b", "http://host?mail=a@b"),
        ("me@example.org", "me@example.org"),
        ("models:/m@champion", "models:/m@champion"),
        ("WANDB_API_KEY=0123abcd", f"WANDB_API_KEY={MASK}"),
        ("env A=1 HF_TOKEN=0123abcd b", f"env A=1 HF_TOKEN={MASK} b"),
        ("Tracker(url='x', api_key='0123abcd')", f"Tracker(url='x', api_key='{MASK}')"),
        ('{"a": 1, "clientSecret": "0123"}', f'{{"a": 1, "clientSecret": "{MASK}"}}'),
        ("Authorization: Bearer 0123456789abcdef", f"Authorization: Bearer {MASK}"),
        ("lr=0.1 eos_token=</s>", "lr=0.1 eos_token=</s>"),
    ],
)
def test_the_user_part_of_a_uri(text: str, clean: str) -> None:
    assert scrub_text(text) == clean
    assert scrub({"a": [text]}) == {"a": [clean]}


def test_known_secrets_are_masked_everywhere() -> None:
    assert scrub({"a": f"x{SECRET}y", SECRET: [SECRET]}, (SECRET,)) == {"a": f"x{MASK}y", MASK: [MASK]}
    assert scrub_text("abcabcd", ("abcd", "abc")) == MASK * 2


def test_what_json_lacks_becomes_its_text() -> None:
    found = scrub({"path": Path("/data"), "steps": {3}, "pair": (1, 2.5), "none": None, 7: float("inf"), "c": 1j})
    assert found == {"path": "/data", "steps": [3], "pair": [1, 2.5], "none": None, "7": float("inf"), "c": "1j"}


def test_models_and_secrets_inside() -> None:
    model = Args(login=Login(user="me", password=SecretStr(SECRET)), raw=SecretBytes(b"raw-key"))
    found = scrub({"args": model, "key": SecretStr(SECRET)})
    assert SECRET not in str(found)
    assert found["key"] == MASK
    assert found["args"]["login"] == {"user": "me", "password": MASK}
    assert found["args"]["raw"] == MASK


class AnyCase(EnumMeta):
    """As Trinity-RFT's: a name that it does not know is a KeyError, also where a default is given."""

    def __getattr__(cls, name: str) -> Any:
        return cls[name.upper()]


class Shade(Enum, metaclass=AnyCase):
    DARK = "dark"


class Count(IntEnum):
    ONE = 1


@dataclass
class Tracker:
    url: str = "http://tracker"
    api_key: str = SECRET


class Account(NamedTuple):
    user: str
    password: str


class Unwilling:
    """Raises whatever is asked of it."""

    def __str__(self) -> str:
        raise RuntimeError("not built yet")

    def __getattr__(self, name: str) -> Any:
        if name == "__name__":  # pytest asks for it
            raise AttributeError
        raise KeyError(name)


class Odd(dict[str, Any]):
    """A mapping that lies about its keys."""

    def __iter__(self) -> Iterator[str]:
        return iter(["a", "gone"])


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (Shade.DARK, "dark"),
        (Count.ONE, 1),
        ([Count.ONE, Shade.DARK], [1, "dark"]),
        (Tracker(), {"url": "http://tracker", "api_key": MASK}),
        (Account("me", SECRET), {"user": "me", "password": MASK}),
        (Namespace(lr=0.1, hf_token=SECRET), {"lr": 0.1, "hf_token": MASK}),
        (SimpleNamespace(a=SimpleNamespace(secret=SECRET)), {"a": {"secret": MASK}}),
        (ChainMap[str, Any]({"token": SECRET}, {"b": 2}), {"token": MASK, "b": 2}),
        (deque([1, {"api_keys": [SECRET]}]), [1, {"api_keys": MASK}]),
        (frozenset({3}), [3]),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
        (np.array(3), 3),
        (Path("/data/x"), "/data/x"),
        (range(3), [0, 1, 2]),
        (len, "builtins.len"),
        (Tracker, f"{__name__}.Tracker"),
        (date(2026, 1, 2), "2026-01-02"),
        (["--key", f"WANDB_API_KEY={SECRET}"], ["--key", f"WANDB_API_KEY={MASK}"]),
        ({1: "a", None: "b", ("c", 2): 3}, {"1": "a", "None": "b", "('c', 2)": 3}),
        (math.nan, "NaN"),
    ],
)
def test_config_of_anyones_objects(value: Any, kept: Any) -> None:
    found, left_out = plain({"value": value})
    text = to_json(found, inf_nan_mode="strings")
    assert from_json(text) == {"value": kept}
    assert SECRET not in text.decode()
    assert left_out == []


@pytest.mark.parametrize(
    ("value", "kept", "left_out"),
    [
        (Unwilling(), {"lr": 0.1}, "value: it cannot be read (RuntimeError)"),
        ([1, Unwilling()], {"lr": 0.1, "value": [1]}, "value.1: it cannot be read (RuntimeError)"),
        (Odd(a=1), {"lr": 0.1, "value": {"a": 1}}, "value.gone: it cannot be read (KeyError)"),
    ],
)
def test_what_cannot_be_read_is_named(value: Any, kept: Any, left_out: str) -> None:
    assert plain({"lr": 0.1, "value": value}) == (kept, [left_out])


def test_whole_config_may_be_anything() -> None:
    assert plain_config(None) == ({}, [])
    assert plain_config(Tracker()) == ({"url": "http://tracker", "api_key": MASK}, [])
    assert plain_config([1, 2]) == ({"config": [1, 2]}, [])
    assert plain_config(Unwilling()) == ({"config": None}, ["the config: it cannot be read (RuntimeError)"])


def test_a_config_that_holds_itself() -> None:
    loop: dict[str, Any] = {"password": SECRET}
    loop["self"] = [loop]
    loop["again"] = loop
    found, left_out = plain(loop)
    assert found == {"password": MASK, "self": []}
    assert left_out == ["self.0: it holds itself", "again: it holds itself"]


def test_a_config_without_end() -> None:
    """Each mapping holds the next one twice: 2 ** 50 of them, if nobody counts."""
    inner: dict[str, Any] = {"lr": 0.1}
    for _ in range(45):
        inner = {"left": inner, "right": inner}
    _, left_out = plain(inner)
    assert "more than 100,000 values" in left_out[0]
    deep: list[Any] = []
    for _ in range(2000):
        deep = [deep]
    assert "nested deeper than 50" in plain(deep)[1][0]


def test_roles_start_whatever_their_config_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = MonitorConfig(project="p", name="n", monitor_dir=tmp_path / "job")
    with (
        launch(config, {"lr": 0.1, "model": Unwilling()}) as job,
        open_monitor(job.config, "trainer", run_config=Tracker()),
    ):
        pass
    assert "the job: run_config is kept without model: it cannot be read (RuntimeError)" in caplog.text
    headers = [
        json.loads(path.read_text().splitlines()[0]) for path in sorted((tmp_path / "job/journal").glob("*/1.jsonl"))
    ]
    assert [header["config"] for header in headers] == [{"lr": 0.1}, {"url": "http://tracker", "api_key": MASK}]


def test_a_long_text_takes_no_time() -> None:
    began = time.perf_counter()
    scrub_text("f" * 1_000_000)
    scrub_text("://" * 100_000)
    scrub_text("://" + "f" * 1_000_000)
    scrub_text("=" + "f" * 1_000_000 + ":" + "'a" * 100_000)
    assert time.perf_counter() - began < 5


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20))
def test_no_config_lets_known_secret_through(value: Any) -> None:
    found = scrub({"value": value, "more": f"{value}{SECRET}"}, (SECRET,))
    assert SECRET not in json.dumps(found, ensure_ascii=False)


# ----------------------------------------------------------------------------------- finding


def test_every_secret_is_found_longest_first() -> None:
    model = Args(
        login=Login(user="someone", password=SecretStr("short")),
        keys=(SecretStr("a-key"), SecretStr("a-key-that-is-longer")),
        named={"x": SecretStr("named-key")},
        raw=SecretBytes(b"raw-key"),
    )
    found = secrets_of({"acme": model})
    assert set(found) == {"short", "a-key", "a-key-that-is-longer", "named-key", "raw-key"}
    assert [len(one) for one in found] == sorted((len(one) for one in found), reverse=True)


def test_secret_too_short_to_recognise() -> None:
    assert secrets_of(Login(user="me", password=SecretStr("abc"))) == ()


def test_revealing() -> None:
    value = {"a": [SecretStr("x")], "b": (SecretBytes(b"y"),), "c": {SecretStr("z")}, "d": 1}
    assert reveal(value) == {"a": ["x"], "b": [b"y"], "c": ["z"], "d": 1}
