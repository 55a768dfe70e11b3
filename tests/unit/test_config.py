"""Everything that a user may write, from wherever it comes, and the error for everything else."""

from __future__ import annotations

import base64
import dataclasses
import inspect
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from made_site import MadeSite
from omegaconf import OmegaConf
from pydantic import BaseModel, SecretStr, ValidationError

from rolecall import BackendError, ConfigError, MonitorConfig, Registry, RolecallError, UnknownBackend
from rolecall.config.model import VARIABLE

MINIMAL: dict[str, Any] = {"project": "gsm8k", "name": "grpo-1"}
ASKED: dict[str, Any] = {
    **MINIMAL,
    "group": "grpo",
    "monitor_type": "acme",
    "monitor_args": {"url": "https://tracker", "retries": 5, "password": "hunter2hunter2"},
    "shared_run": True,
    "run_id": "abc-1",
    "resume": "never",
    "monitor_dir": "/data/gsm8k",
    "spool_dir": "/scratch",
    "spool_limit": 1073741824,
    "courier": "thread",
    "on_backend_error": "raise",
}
YAML = """
  project: gsm8k
  name: grpo-1
  group: grpo
  monitor_type: acme
  monitor_args: {url: https://tracker, retries: 5, password: hunter2hunter2}
  shared_run: true
  run_id: abc-1
  resume: never
  monitor_dir: /data/gsm8k
  spool_dir: /scratch
  spool_limit: 1073741824
  courier: thread
  on_backend_error: raise
"""


@dataclasses.dataclass
class Wrote:
    """What a user's own dataclass looks like: defaults are None where ours decide."""

    project: str = "gsm8k"
    name: str = "grpo-1"
    group: str | None = None
    monitor_type: Any = "acme"
    monitor_args: dict[str, Any] | None = None
    run_id: str | None = None
    monitor_dir: str | None = None


@dataclasses.dataclass
class Training:
    model: str
    monitor: Any


class TrainingModel(BaseModel):
    model: str = "qwen"
    monitor: MonitorConfig


@dataclasses.dataclass(frozen=True)
class SomePath:
    """A path of another library, which `open` takes."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)


@pytest.fixture
def acme(site: MadeSite) -> MadeSite:
    """An installed backend: what is found by name in any process."""
    site.backend()
    return site


@pytest.fixture
def asked(acme: MadeSite) -> MonitorConfig:
    return MonitorConfig(**ASKED)


# ---------------------------------------------------------------------------- its settings


def test_the_defaults() -> None:
    config = MonitorConfig(**MINIMAL)
    assert config.monitor_type == ("local",)
    assert config.monitor_dir == Path.cwd() / "rolecall" / "gsm8k" / "grpo-1"
    assert (config.shared_run, config.resume, config.courier) == (False, "auto", "process")
    assert config.on_backend_error == "ignore"
    assert (config.group, config.run_id, config.spool_dir, config.hand_over) == (None,) * 4
    assert config.secrets == ()


def test_what_was_asked_for(asked: MonitorConfig) -> None:
    assert asked.monitor_type == ("acme",)
    assert asked.monitor_args["acme"].url == "https://tracker"  # type: ignore[attr-defined]
    assert asked.monitor_dir == Path("/data/gsm8k")
    assert (asked.group, asked.run_id, asked.resume, asked.courier) == ("grpo", "abc-1", "never", "thread")


def test_signature_is_that_of_settings() -> None:
    parameters = inspect.signature(MonitorConfig).parameters
    filled_in = {"plan", "nonce", "journal"}
    assert list(parameters) == [name for name in MonitorConfig.model_fields if name not in filled_in]
    assert parameters["monitor_type"].annotation == str | Sequence[str]
    required = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    assert required == ["project", "name"]
    given = {name: parameter.default for name, parameter in parameters.items() if name not in required}
    assert MonitorConfig(**MINIMAL, **given) == MonitorConfig(**MINIMAL)


def test_what_a_type_checker_accepts(tmp_path: Path) -> None:
    # `nox -s types` checks this call; mypy and pyright know what may be written, not only what is kept.
    config = MonitorConfig(
        project="p", name="n", monitor_type="console", monitor_args={"level": 10}, monitor_dir="runs/x"
    )
    again = MonitorConfig(project="p", name="n", monitor_type=["console"], monitor_dir=Path("runs/x"))
    assert config.monitor_dir == again.monitor_dir
    assert config.monitor_type == again.monitor_type


def test_its_repr_is_short(acme: MadeSite) -> None:
    assert repr(MonitorConfig(**MINIMAL, monitor_dir="/data")) == (
        "MonitorConfig(project='gsm8k', name='grpo-1', monitor_dir='/data')"
    )
    assert repr(MonitorConfig(**ASKED)) == (
        "MonitorConfig(project='gsm8k', name='grpo-1', group='grpo', monitor_type=['acme'], "
        "monitor_args={'acme': {'url': 'https://tracker', 'retries': 5}}, shared_run=True, run_id='abc-1', "
        "resume='never', monitor_dir='/data/gsm8k', spool_dir='/scratch', spool_limit=1073741824, courier='thread', "
        "on_backend_error='raise')"
    )


def test_it_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        MonitorConfig(**MINIMAL).name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("given_dir", ["runs/a", Path("runs/a"), "./runs/b/../a"])
def test_directories_are_absolute_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given_dir: str | Path
) -> None:
    monkeypatch.chdir(tmp_path)
    config = MonitorConfig(**MINIMAL, monitor_dir=given_dir, spool_dir=given_dir)
    monkeypatch.chdir("/")
    assert config.monitor_dir == config.spool_dir == tmp_path / "runs" / "a"


def test_a_directory_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert MonitorConfig(**MINIMAL, monitor_dir="~/runs").monitor_dir == Path("/home/somebody/runs")


@pytest.mark.parametrize(
    ("project", "name", "parts"),
    [
        ("gsm8k", "a/b", ["gsm8k", "a_b-c14cdd"]),
        ("..", "../../etc", ["_-5ec1f7", "_.._etc-74ccf3"]),
        ("数学", "a b", ["数学", "a_b-c8687a"]),
    ],
)
def test_default_directory_stays_below_working_directory(project: str, name: str, parts: list[str]) -> None:
    config = MonitorConfig(project=project, name=name)
    assert config.monitor_dir == Path.cwd().joinpath("rolecall", *parts)


@pytest.mark.parametrize("project", ["a.b", "a_b", "a b", "a/b", "a<b", ".a", "a", "a.", "..", ".", "?", "ab" * 99])
def test_no_two_names_share_a_default_directory(project: str) -> None:
    names = [
        "margin<0",
        "margin>0",
        "margin_0",
        "margin 0",
        ".margin",
        "margin",
        "margin.",
        "率" * 99,
        "率" * 98 + "学",
    ]
    found = {MonitorConfig(project=project, name=name).monitor_dir for name in names}
    assert len(found) == len(names)
    other = MonitorConfig(project=f"{project}'", name="margin").monitor_dir
    assert other not in found
    assert all(len(part.encode()) < 255 for path in found for part in path.parts)


def test_variables_in_a_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    for given_dir in ("$SCRATCH/runs", "${SCRATCH}/runs"):
        assert MonitorConfig(**MINIMAL, monitor_dir=given_dir).monitor_dir == Path("/scratch/me/runs")
    assert MonitorConfig(**MINIMAL, monitor_dir="/a/cost$").monitor_dir == Path("/a/cost$")
    for given_dir in ("$SCRATCHED/runs", "/a/${WORK}"):
        with pytest.raises(ConfigError, match=r"monitor_dir: the environment has no \$\S+; set it, or write the path"):
            MonitorConfig(**MINIMAL, monitor_dir=given_dir)


def test_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match="monitor_dir: the working directory is gone; change to another one"):
        MonitorConfig(**MINIMAL)
    assert MonitorConfig(**MINIMAL, monitor_dir="/data/x").monitor_dir == Path("/data/x")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"project": ""}, "project: must be 1 to 200 characters"),
        ({"project": "a\nb"}, "project: must be 1 to 200 characters"),
        ({"name": "n" * 201}, "name: must be 1 to 200 characters"),
        ({"name": None}, "name: must be a string; given nothing"),
        ({"project": 7}, "project: must be a string; given 7; put it in quotes"),
        ({"run_id": "../up"}, "run_id: must be 1 to 128 letters"),
        ({"run_id": "-x"}, "run_id: must be 1 to 128 letters"),
        ({"resume": "always"}, "resume: must be 'auto', 'allow', 'must' or 'never'; given 'always'"),
        ({"courier": "pigeon"}, "courier: must be 'process', 'thread' or 'none'; given 'pigeon'"),
        ({"on_backend_error": "die"}, "on_backend_error: must be 'ignore' or 'raise'; given 'die'"),
        ({"shared_run": "perhaps"}, "shared_run: must be true, false or 'relay'; given 'perhaps'"),
        ({"shared_run": None}, "shared_run: must be true, false or 'relay'; given nothing"),
        ({"monitor_dir": "a\0b"}, "monitor_dir: must be the path of a directory"),
        ({"spool_dir": "\ud800"}, "spool_dir: must be the path of a directory"),
        ({"monitor_dir": ["a"]}, "monitor_dir: "),
        ({"monitor_dir": "~no-such-user/x"}, "monitor_dir: the home directory is unknown"),
        ({"monitor_type": []}, "monitor_type: must name one backend, or several different ones"),
        ({"monitor_type": ["local", "local"]}, "given a list"),
        ({"monitor_type": ["none", "local"]}, "'none' cannot be combined"),
        ({"monitor_type": None}, "monitor_type: must be the name of a backend, or a list of names"),
        ({"monitor_type": [["local"]]}, "monitor_type: must be the name of a backend"),
        ({"monitor_type": {"local": {}}}, "given a mapping"),
        ({"monitor_typ": "local"}, "monitor_typ: unknown setting; did you mean 'monitor_type'?"),
        ({"zzz": 1}, "zzz: unknown setting; remove it; allowed: courier, group,"),
    ],
)
def test_a_wrong_setting(settings: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        MonitorConfig(**{**MINIMAL, **settings})
    with pytest.raises(ConfigError) as loaded:
        MonitorConfig.load({**MINIMAL, **settings})
    assert message in str(raised.value)
    assert str(loaded.value) == str(raised.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        MonitorConfig.load({"projekt": "p", "name": 1, "monitor_type": "console", "monitor_args": {"level": "x"}})
    lines = str(raised.value).splitlines()
    assert lines[0] == "config cannot be used:"
    assert {line.strip().partition(":")[0] for line in lines[1:]} == {
        "project",
        "projekt",
        "name",
        "monitor_args.level",
    }


def test_error_omits_settings_launch_fills_in() -> None:
    with pytest.raises(ConfigError) as raised:
        MonitorConfig.load({**MINIMAL, "once": 1})
    assert "nonce" not in str(raised.value).replace("once: is not", "")


def test_error_is_also_value_error() -> None:
    with pytest.raises(ValueError, match="cannot be used"):
        MonitorConfig(project="p", name="")


# -------------------------------------------------------------------------- where it comes from


def from_yaml(text: str, tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return path


@pytest.mark.holds_keys("config.yaml")
@pytest.mark.parametrize(
    "source",
    [
        pytest.param(lambda _: ASKED, id="a mapping"),
        pytest.param(lambda _: {"model": "qwen", "monitor": ASKED}, id="a mapping's block"),
        pytest.param(lambda _: {"project": "rft", "name": "x", "monitor": ASKED}, id="a block beside a project"),
        pytest.param(lambda _: {"monitor": MonitorConfig(**ASKED)}, id="a config in a mapping"),
        pytest.param(lambda _: MonitorConfig(**ASKED), id="a config"),
        pytest.param(lambda path: from_yaml(YAML, path), id="a file"),
        pytest.param(lambda path: from_yaml(f"model: qwen\nmonitor:{YAML}", path), id="a file's block"),
        pytest.param(lambda path: SomePath(from_yaml(YAML, path)), id="a file by another kind of path"),
        pytest.param(lambda path: str(from_yaml("\ufeff" + YAML, path)), id="a file by its name"),
        pytest.param(lambda _: OmegaConf.create(ASKED), id="OmegaConf"),
        pytest.param(lambda _: OmegaConf.create({"monitor": ASKED}), id="OmegaConf's block"),
        pytest.param(lambda _: Training("qwen", ASKED), id="a dataclass's block"),
        pytest.param(lambda _: Training("qwen", OmegaConf.create(ASKED)), id="OmegaConf in a dataclass"),
        pytest.param(lambda _: TrainingModel(monitor=MonitorConfig(**ASKED)), id="in a pydantic model"),
    ],
)
def test_every_source_gives_the_same(asked: MonitorConfig, tmp_path: Path, source: Callable[[Path], object]) -> None:
    assert MonitorConfig.load(source(tmp_path)) == asked


def test_a_dataclass(acme: MadeSite) -> None:
    assert MonitorConfig.load(Wrote()) == MonitorConfig(**MINIMAL, monitor_type="acme")
    wrote = Wrote(monitor_type=["acme", "local"], monitor_args={"acme": {"retries": 7}}, run_id="r1")
    config = MonitorConfig.load(Training("qwen", wrote))
    assert (config.run_id, config.monitor_args["acme"].retries) == ("r1", 7)  # type: ignore[attr-defined]


def test_omegaconf_resolves_only_what_is_ours(acme: MadeSite) -> None:
    node = OmegaConf.create({"run": "grpo-1", "other": "${nowhere}", "monitor": {"project": "gsm8k", "name": "${run}"}})
    assert MonitorConfig.load(node).name == "grpo-1"


@pytest.mark.parametrize("name", ["${nowhere}", "???"])
def test_omegaconf_that_cannot_be_resolved(name: str) -> None:
    node = OmegaConf.create({"monitor": {"project": "gsm8k", "name": name}})
    with pytest.raises(ConfigError, match="monitor: OmegaConf cannot resolve it"):
        MonitorConfig.load(node)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "config: expected a mapping, a dataclass, an OmegaConf node or the path of a YAML file; given nothing"),
        (42, "given a value of type int"),
        ([ASKED], "given a value of type list"),
        (Wrote, "given a value of type type"),
        (OmegaConf.create([1]), "given a value of type ListConfig"),
        ({"monitor": None}, "monitor: expected a mapping of settings, with project and name; given nothing"),
        ({"monitor": "local"}, "given a value of type str"),
        (Training("qwen", [1]), "given a value of type list"),
    ],
)
def test_a_source_that_is_none(source: object, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        MonitorConfig.load(source)
    assert str(raised.value).startswith(("config: expected", "monitor: expected"))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a mapping of settings, with project and name, or with a key monitor; given nothing"),
        ("- a", "given a value of type list"),
        ("just words", "given a value of type str"),
        ("a: [", "not valid YAML: line 1, column 5"),
        ("a: b: c", "not valid YAML: line 1, column 5: mapping values are not allowed here"),
        ("a: !!python/object:os.system {}", "not valid YAML"),
        ("a: 2024-13-45", "not valid YAML: month must be in 1..12"),
        ("a: !!bool maybe", "not valid YAML"),
        ("a: !!timestamp soon", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("a: \x07", "not valid YAML"),
        ("monitor: [", "not valid YAML"),
        ("monitor:\n", "monitor: expected a mapping of settings"),
        ("project: p", "cannot be used:\n  name: missing"),
        ("monitor: {project: p}", "cannot be used:\n  monitor.name: missing"),
        ("monitor: &a {project: p, name: n, group: *a}", "cannot be used:\n  monitor.group: must be a string"),
        ("project: p\nname: n\nmonitor_type: consle", "monitor_type: backend 'consle' is not installed"),
        ("monitor: {project: p, name: n, monitor_type: x}", "monitor.monitor_type: backend 'x' is not installed"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    path = from_yaml(text, tmp_path)
    with pytest.raises(RolecallError) as raised:
        MonitorConfig.load(path)
    assert str(raised.value).startswith(str(path))
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["nowhere.yaml", "", "no\0where"])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        MonitorConfig.load(str(tmp_path / name))


# ------------------------------------------------------------------------------ monitor_args


def args_of(monitor_type: Any, monitor_args: Any, backend: str = "acme") -> Any:
    config = MonitorConfig.load({**MINIMAL, "monitor_type": monitor_type, "monitor_args": monitor_args})
    return config.monitor_args[backend]


@pytest.mark.parametrize("given_args", [None, {}])
def test_defaults_are_the_backends_own(acme: MadeSite, given_args: Any) -> None:
    assert args_of("acme", given_args).retries == 3


@pytest.mark.parametrize("monitor_type", ["acme", ["acme"]])
@pytest.mark.parametrize("given_args", [{"retries": "5"}, {"acme": {"retries": "5"}}])
def test_only_backends_name_may_be_omitted(acme: MadeSite, monitor_type: Any, given_args: Any) -> None:
    assert args_of(monitor_type, given_args).retries == 5


def test_of_several_backends(acme: MadeSite) -> None:
    given_args = {"acme": {"retries": 5}, "console": None}
    assert args_of(["acme", "console"], given_args).retries == 5
    assert args_of(["acme", "console"], given_args, "console").logger == "rolecall.console"
    assert args_of(["acme", "console"], {}, "acme").retries == 3


def test_argument_with_backends_own_name(site: MadeSite) -> None:
    site.backend(args="class Args(BaseModel):\n    acme: str = 'a'")
    assert args_of("acme", {"acme": "b"}).acme == "b"
    config = MonitorConfig(**MINIMAL, monitor_type="acme", monitor_args={"acme": "b"})
    assert MonitorConfig.load(config) == config
    assert MonitorConfig.from_env(config.to_env()) == config


def test_without_backend_arguments_are_not_checked() -> None:
    # To turn it off, one word has to be enough.
    config = MonitorConfig(**MINIMAL, monitor_type="none", monitor_args={"url": "https://tracker"})
    assert config.monitor_args == {}
    assert config.disabled


@pytest.mark.parametrize(
    ("monitor_type", "given_args", "message"),
    [
        ("acme", {"ulr": 1}, "monitor_args.ulr: unknown argument of acme; did you mean 'url'? allowed: password"),
        ("acme", {"zzz": 1}, "monitor_args.zzz: unknown argument of acme; remove it; allowed: password, retries"),
        ("acme", {"retries": "many"}, "monitor_args.retries: must be a whole number"),
        ("acme", {"acme": {"retries": "many"}}, "monitor_args.acme.retries: must be a whole number"),
        ("acme", {"acme": {"ulr": 1}}, "monitor_args.acme.ulr: unknown argument of acme; did you mean 'url'?"),
        ("acme", [1], "monitor_args: must be a mapping of arguments; given a list"),
        ("acme", {1: 2}, "monitor_args"),
        (["acme", "local"], {"retries": 1}, "monitor_args.retries: not a backend of monitor_type; allowed: acme"),
        (["acme", "local"], {"acme": {"retries": "x"}}, "monitor_args.acme.retries: must be a whole number"),
        (["acme", "local"], {"acme": [1]}, "monitor_args.acme: must be a mapping"),
        (["acme", "local"], {"local": {"level": 1}}, "monitor_args.local.level: unknown argument of local"),
    ],
)
def test_wrong_arguments(acme: MadeSite, monitor_type: Any, given_args: Any, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        args_of(monitor_type, given_args)
    assert message in str(raised.value)


@pytest.mark.parametrize("monitor_type", ["acme", ["acme", "local"]])
def test_a_models_own_words_come_through(site: MadeSite, monitor_type: Any) -> None:
    site.backend(
        args="""
        from pydantic import field_validator
        class Args(BaseModel):
            url: str
            @field_validator("url")
            @classmethod
            def _check(cls, url):
                raise ValueError("use {monitor_dir}, {url} or {{braces}}")
        """
    )
    with pytest.raises(ConfigError, match=r"use \{monitor_dir\}, \{url\} or \{\{braces\}\}; given 'u'"):
        args_of(monitor_type, {"acme": {"url": "u"}})


def test_wrong_backends_hide_arguments_errors() -> None:
    with pytest.raises(ConfigError) as raised:
        args_of(["console", "console"], {"level": 10})
    assert "monitor_args" not in str(raised.value)


def test_unusable_backend_is_reported_by_place(acme: MadeSite) -> None:
    with pytest.raises(UnknownBackend, match=r"^monitor_type: backend 'acne'.*Did you mean 'acme'"):
        MonitorConfig(**MINIMAL, monitor_type="acne")
    acme.backend("broken", head="raise ValueError('half')")
    with pytest.raises(BackendError, match=r"^monitor\.monitor_type: backend 'broken'.*half") as raised:
        MonitorConfig.load({"monitor": {**MINIMAL, "monitor_type": ["acme", "broken"]}})
    assert isinstance(raised.value.__cause__, ValueError)


# --------------------------------------------------------------------------------- registry


def test_a_registry_of_ones_own(acme: MadeSite) -> None:
    registry = Registry().register("mine", Registry().load("acme").manager.get_plugin("acme"))
    config = MonitorConfig.load({**MINIMAL, "monitor_type": "mine", "monitor_args": {"retries": 9}}, registry=registry)
    assert config.registry is registry
    assert config.monitor_args["mine"].retries == 9  # type: ignore[attr-defined]
    assert config.model_copy(update={"run_id": "r"}).registry is registry
    with pytest.raises(UnknownBackend):
        MonitorConfig.from_env(config.to_env())


def test_the_usual_registry() -> None:
    assert "local" in MonitorConfig(**MINIMAL).registry.names()


# ------------------------------------------------------------------------ to other processes


def test_a_pickle(asked: MonitorConfig) -> None:
    again = pickle.loads(pickle.dumps(asked))
    assert again == asked
    assert again.monitor_args["acme"].password.get_secret_value() == "hunter2hunter2"
    assert again.registry.load("acme").name == "acme"


def test_the_environment(asked: MonitorConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    env = asked.to_env()
    assert list(env) == [VARIABLE] == ["ROLECALL_CONFIG"]
    assert all(value.isascii() for value in env.values())
    again = MonitorConfig.from_env(env)
    assert again == asked
    assert again.secrets == ("hunter2hunter2",)
    monkeypatch.setenv(VARIABLE, env[VARIABLE])
    assert MonitorConfig.from_env() == asked


def test_a_subprocess_gets_it_whole(asked: MonitorConfig, acme: MadeSite, tmp_path: Path) -> None:
    reads = "from rolecall import MonitorConfig as C; c = C.from_env(); print(c.monitor_dir, *c.secrets, c.group)"
    path = os.pathsep.join([str(acme.path), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, **asked.to_env(), "PYTHONPATH": path}
    ran = subprocess.run(
        [sys.executable, "-c", reads], env=env, cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert ran.stdout.split() == ["/data/gsm8k", "hunter2hunter2", "grpo"]


@pytest.mark.parametrize(
    ("args", "given_args"),
    [
        ("tokens: list[SecretStr]", {"tokens": ["first-token", "second-token"]}),
        ("tokens: dict[str, SecretStr]", {"tokens": {"eu": "eu-token"}}),
        ("tokens: frozenset[SecretStr]", {"tokens": ["only-token"]}),
        ("key: SecretBytes", {"key": "key-in-bytes"}),
        ("login: 'Login'\nclass Login(BaseModel):\n    password: SecretStr", {"login": {"password": "hunter2"}}),
        ("uri: str = Field(alias='tracking_uri')", {"tracking_uri": "https://tracker"}),
        ("path: Path\n    since: date", {"path": "/data/x", "since": "2024-05-01"}),
        ("url: str\n    @computed_field\n    @property\n    def host(self) -> str: return self.url", {"url": "u"}),
        ("model_config = ConfigDict(extra='allow')", {"anything": {"goes": [1, 2.5, None, True]}}),
    ],
)
@pytest.mark.parametrize("monitor_type", ["acme", ["acme", "console"]])
def test_backends_model_comes_through_whole(site: MadeSite, args: str, given_args: Any, monitor_type: Any) -> None:
    head = "from datetime import date\nfrom pathlib import Path\nfrom pydantic import *\n"
    head += "from rolecall import SharedRunSupport, hookimpl"
    fields, _, after = args.partition("\nclass ")
    source = (f"class {after}\n" if after else "") + f"class Args(BaseModel):\n    {fields}"
    site.backend(head=head, args=source)
    config = MonitorConfig.load({**MINIMAL, "monitor_type": monitor_type, "monitor_args": {"acme": given_args}})
    again = MonitorConfig.from_env(config.to_env())
    assert again == config
    assert again.secrets == config.secrets


def test_no_variable() -> None:
    with pytest.raises(ConfigError, match=r"ROLECALL_CONFIG is not set; start the role with env="):
        MonitorConfig.from_env({})


def encoded(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "value",
    ["", "config.yaml", "e30", "é", encoded([]), encoded("x"), encoded(None), base64.b64encode(b"\xff").decode()],
)
def test_another_value(value: str) -> None:
    with pytest.raises(ConfigError, match=r"ROLECALL_CONFIG: not a value that MonitorConfig.to_env writes"):
        MonitorConfig.from_env({VARIABLE: value})


def test_variables_error_has_its_path() -> None:
    with pytest.raises(ConfigError, match=r"^ROLECALL_CONFIG cannot be used:\n  resume: must be 'auto'"):
        MonitorConfig.from_env({VARIABLE: encoded({**MINIMAL, "resume": "x"})})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from([*MonitorConfig.model_fields, "monitor", "extra"])


@given(st.text())
@example("e30=\n")
def test_no_text_breaks_it(value: str) -> None:
    with pytest.raises(ConfigError):
        MonitorConfig.from_env({VARIABLE: value})


@given(st.dictionaries(FIELDS, JSON, max_size=6))
@example({"monitor_type": "../x"})
@example({"monitor_dir": "\ud800"})
@example({"monitor_dir": "~\0"})
@example({"plan": {"backends": [{"backend": "x", "shared": 1, "carrier": "ship"}]}})
@example({"monitor_args": {"console": {"level": "{x}"}}, "monitor_type": ["console", "local"]})
@example({"monitor": {"project": "p"}})
def test_hostile_values_are_refused_or_held(value: dict[str, Any]) -> None:
    # Anyone may have written the environment: it makes a config that survives the same way, or raises our error.
    try:
        config = MonitorConfig.from_env({VARIABLE: encoded({**MINIMAL, **value})})
    except RolecallError as error:
        assert str(error).startswith(VARIABLE)  # noqa: PT017 - most values are refused, some are not
    else:
        assert MonitorConfig.from_env(config.to_env()) == config


@given(st.text(max_size=250), st.text(max_size=250))
def test_any_project_and_name(project: str, name: str) -> None:
    try:
        config = MonitorConfig(project=project, name=name)
    except ConfigError:
        return
    assert config.monitor_dir.parent.parent == Path.cwd() / "rolecall"
    assert pickle.loads(pickle.dumps(config)) == MonitorConfig.from_env(config.to_env()) == config


def test_models_are_compared_by_their_values(asked: MonitorConfig) -> None:
    other = MonitorConfig(**{**ASKED, "monitor_args": {"password": SecretStr("other-password")}})
    assert other != asked
