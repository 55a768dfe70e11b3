"""Backends are found by name among real distributions, loaded alone, and checked when they are."""

from __future__ import annotations

import os
import pickle
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import Distribution, DistributionFinder, PathDistribution
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from made_site import MadeSite
from pydantic import BaseModel

from rolecall import (
    HOOKS_VERSION,
    BackendError,
    MonitorConfig,
    Registry,
    Run,
    RunTicket,
    SharedRunSupport,
    UnknownBackend,
    hookimpl,
    resolve,
)
from rolecall.backends.installed import GROUP, find_installed

NO_ARGS = """
@hookimpl
def {hook}(): return {value}
"""


class Args(BaseModel):
    url: str = "http://localhost"


class Quiet:
    """A run that takes everything."""

    id, url = "1", None

    def log(self, rows: object) -> None: ...
    def flush(self, timeout: float) -> None: ...
    def close(self, status: str) -> None: ...


class Backend:
    """A backend as somebody writes it in a notebook."""

    @hookimpl
    def backend_args(self) -> type[BaseModel]:
        return Args

    @hookimpl
    def supports_shared_run(self, args: Args) -> SharedRunSupport:
        return SharedRunSupport(supported=args.url.startswith("https"), reason="it is not encrypted")

    @hookimpl
    def open_run(self, ticket: RunTicket, args: Args) -> Run:
        return Quiet()


@pytest.fixture
def ticket(tmp_path: Path) -> RunTicket:
    return RunTicket(
        project="p",
        name="n",
        group=None,
        run_id="r",
        backend_run_id=None,
        shared=False,
        primary=True,
        writer="trainer",
        role="trainer",
        config={},
        directory=tmp_path,
        pid=os.getpid(),
    )


# ------------------------------------------------------------------------------- finding


def test_plugins_register_under_the_group() -> None:
    assert GROUP == "rolecall.backends"


def test_installed_distributions_are_scanned_once(site: MadeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("acme", "other", "third"):
        site.backend(name)
    scans = []

    class Counter:
        """A finder of distributions that finds none, and notes when it is asked for all of them."""

        @staticmethod
        def find_spec(*_: object) -> None: ...

        @staticmethod
        def find_distributions(context: DistributionFinder.Context) -> Iterator[Distribution]:
            if context.name is None:
                scans.append(context)
            return iter(())

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Counter])
    registry = Registry()
    assert scans == []
    for name in registry.names():
        registry.load(name)
        list(registry.listings())
    assert "acme" in repr(registry)
    assert len(scans) == 1


def test_metadata_of_many_backends_is_read_once(site: MadeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    site.install("many", backends={f"backend-{number}": "many" for number in range(50)}, requires=["other>=1"])
    read = PathDistribution.read_text
    files: list[str] = []

    def note(dist: PathDistribution, name: str) -> str | None:
        if dist.locate_file("") == site.path:
            files.append(name)
        return read(dist, name)

    monkeypatch.setattr(PathDistribution, "read_text", note)
    assert {(each.version, each.requires) for each in find_installed()["backend-7"]} == {("1.0", ("other>=1",))}
    # what it is, and what it requires
    assert files.count("METADATA") <= 2


def test_a_config_scans_once(site: MadeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    site.backend()
    scan = Mock(side_effect=find_installed)
    monkeypatch.setattr("rolecall.backends.installed.find_installed", scan)
    resolve(MonitorConfig(project="p", name="n", monitor_type=["acme", "local"]))
    scan.assert_called_once()


def test_another_tracker_is_no_typo() -> None:
    with pytest.raises(UnknownBackend) as raised:
        Registry().load("swanlab")
    assert "Did you mean" not in str(raised.value)


@pytest.mark.parametrize("name", ["mlflow", "tensorboard", "wandb"])
def test_a_hint_names_no_package_index(site: MadeSite, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("rolecall.backends.installed.find_installed", dict)
    with pytest.raises(UnknownBackend, match=f"checkout of rolecall: pip install ./plugins/rolecall-{name}$"):
        Registry().load(name)
    assert (Path(__file__).parents[2] / "plugins" / f"rolecall-{name}").is_dir()


def test_listing_imports_no_plugin(site: MadeSite) -> None:
    site.backend()
    registry = Registry()
    assert {"acme", "console", "local"} <= set(registry.names())
    found = {listing.name: (listing.distribution, listing.version) for listing in registry.listings()}
    assert found["acme"] == ("rolecall-acme", "1.0")
    assert found["local"][0] == "rolecall"
    assert "acme_backend" not in sys.modules


def test_loading_imports_the_selected_plugin_only(site: MadeSite) -> None:
    site.backend("acme")
    site.backend("other")
    assert Registry().load("acme").args_model().model_fields["retries"].default == 3
    assert "acme_backend" in sys.modules
    assert "other_backend" not in sys.modules


def test_a_backend_is_loaded_once(site: MadeSite) -> None:
    site.backend()
    registry = Registry()
    assert registry.load("acme") is registry.load("acme")


def test_an_object_may_be_the_backend(site: MadeSite) -> None:
    source = """
        from pydantic import BaseModel
        from rolecall import SharedRunSupport, hookimpl

        class Args(BaseModel): ...

        class Backend:
            @hookimpl
            def backend_args(self): return Args
            @hookimpl
            def supports_shared_run(self): return SharedRunSupport(supported=True)
            @hookimpl
            def open_run(self, ticket): return None

        backend = Backend()
    """
    site.install("rolecall-acme", backends={"acme": "acme_backend:backend"}, acme_backend=source)
    backend = Registry().load("acme")
    assert backend.portable
    assert backend.supports_shared_run(backend.args_model()()) == SharedRunSupport(supported=True)


def test_one_distribution_may_bring_several(site: MadeSite) -> None:
    site.install("rolecall-acme", backends={"acme": "acme_backend", "acme-eu": "acme_backend"})
    assert {"acme", "acme-eu"} <= set(Registry().names())


def test_directory_listed_twice_is_one_backend(site: MadeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    site.backend()
    monkeypatch.syspath_prepend(site.path)
    assert Registry().load("acme").name == "acme"
    assert len([one for one in Registry().listings() if one.name == "acme"]) == 1


@pytest.mark.parametrize("name", ["local", "console"])
def test_the_built_in_backends(name: str) -> None:
    backend = Registry().load(name)
    assert backend.supports_shared_run(backend.args_model()()).supported
    assert not backend.declares_axes


def test_none_is_no_backend(site: MadeSite) -> None:
    site.backend("none")
    assert "none" not in Registry().names()
    assert [(one.distribution, one.version) for one in Registry().misnamed()] == [("rolecall-none", "1.0")]


# ------------------------------------------------------------------------------- refusing


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wandbb", ["Did you mean 'wandb'"]),
        ("Console", ["Did you mean 'console'"]),
        ("acne", ["Did you mean 'acme'"]),
        ("", ["backend '' is not installed"]),
        ("../etc", ["backend '../etc' is not installed"]),
    ],
)
def test_an_unknown_backend(site: MadeSite, name: str, words: list[str]) -> None:
    site.backend()
    with pytest.raises(UnknownBackend) as raised:
        Registry().load(name)
    for word in [repr(name), "acme", "console", "local", "none", *words]:
        assert word in str(raised.value)


def test_name_that_cannot_name_directory(site: MadeSite) -> None:
    site.install("rolecall-acme", backends={"../acme": "acme_backend"})
    with pytest.raises(BackendError, match="letters, digits"):
        Registry().load("../acme")


def test_two_distributions_with_one_name(site: MadeSite) -> None:
    site.backend()
    site.install("acme-tracker", "2.1", backends={"acme": "acme_tracker"}, acme_tracker="raise SystemError")
    registry = Registry()
    with pytest.raises(BackendError, match=r"acme-tracker 2\.1 and rolecall-acme 1\.0"):
        registry.load("acme")
    assert not {"acme_backend", "acme_tracker"} & sys.modules.keys()
    found = {(one.distribution, one.version) for one in registry.listings() if one.name == "acme"}
    assert found == {("rolecall-acme", "1.0"), ("acme-tracker", "2.1")}


@pytest.mark.parametrize("name", ["local", "console"])
def test_built_in_backend_cannot_be_replaced(site: MadeSite, name: str) -> None:
    site.backend(name)
    with pytest.raises(BackendError, match=f"pip uninstall rolecall-{name}"):
        Registry().load(name)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("import acme_sdk_of_old", "ModuleNotFoundError: No module named 'acme_sdk_of_old'"),
        ("def broken(:", "SyntaxError"),
        ("raise ValueError('no licence')", "ValueError: no licence"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_failed_import_leaves_other_plugins(site: MadeSite, head: str, message: str) -> None:
    site.backend("broken", head=head)
    site.backend("acme")
    registry = Registry()
    with pytest.raises(BackendError) as raised:
        registry.load("broken")
    assert "rolecall-broken 1.0" in str(raised.value)
    assert message in str(raised.value)
    assert raised.value.__cause__ is not None
    assert registry.load("acme").name == "acme"
    assert {"acme", "broken"} <= set(registry.names())


@pytest.mark.parametrize(
    ("head", "remedy"),
    [
        ("from rolecall import Gone", "It was written for another version of rolecall than "),
        ("import rolecall.of_old", "It was written for another version of rolecall than "),
        ("import acme_sdk.of_old", "It needs the module acme_sdk, and does not say so in its requirements"),
        ("raise ValueError", "This is a bug in rolecall-acme, or it was installed in part: reinstall it"),
        ("from json import acme", "This is a bug in rolecall-acme"),
    ],
)
def test_remedies_of_a_failed_import(site: MadeSite, head: str, remedy: str) -> None:
    site.backend(head=head)
    with pytest.raises(BackendError, match=re.escape(remedy)):
        Registry().load("acme")


def test_plugin_without_its_module(site: MadeSite) -> None:
    site.install("rolecall-acme", backends={"acme": "acme_backend"})
    with pytest.raises(BackendError, match="Its files are incomplete: reinstall rolecall-acme"):
        Registry().load("acme")


def test_fixed_plugin_is_loaded(site: MadeSite) -> None:
    site.backend(requires=["acme-sdk"])
    registry = Registry()
    with pytest.raises(BackendError, match="acme-sdk, which is not installed"):
        registry.load("acme")
    site.install("acme-sdk")
    assert registry.load("acme").name == "acme"


@pytest.mark.parametrize(
    ("requires", "message", "fix"),
    [
        ("acme-sdk>=2", "acme-sdk>=2, but 1.9.3 is installed", "acme-sdk>=2"),
        ("acme-sdk[fast]<1.5", "acme-sdk<1.5, but 1.9.3 is installed", "acme-sdk[fast]<1.5"),
        ("Acme_SDK>=2; python_version>'3'", "Acme_SDK>=2, but 1.9.3 is installed", "Acme_SDK>=2"),
        ("acme-store", "acme-store, which is not installed", "acme-store"),
    ],
)
def test_sdk_missing_or_too_old(site: MadeSite, requires: str, message: str, fix: str) -> None:
    site.backend(requires=["acme-sdk>=1", requires])
    site.install("acme-sdk", "1.9.3")
    with pytest.raises(BackendError) as raised:
        Registry().load("acme")
    assert message in str(raised.value)
    assert f"pip install '{fix}'" in str(raised.value)
    assert "acme_backend" not in sys.modules


@pytest.mark.parametrize(
    "requires",
    [
        "acme-sdk>=1,<2",
        "acme-sdk>=1.9.0rc1",
        "other-sdk; extra == 'other'",
        "other-sdk; python_version<'3'",
        "this is no requirement!",
        "acme-legacy>=1",
    ],
)
def test_what_is_required_and_there(site: MadeSite, requires: str) -> None:
    site.backend(requires=[requires])
    site.install("acme-sdk", "1.9.3")
    site.install("acme-legacy", "2004d-final.of_old")
    assert Registry().load("acme").name == "acme"


# ---------------------------------------------------------------------------------- hooks


@pytest.mark.parametrize("hook", ["backend_args", "supports_shared_run", "open_run"])
def test_a_missing_hook(site: MadeSite, hook: str) -> None:
    site.backend(**{hook: ""})
    with pytest.raises(BackendError) as raised:
        Registry().load("acme")
    assert f"missing {hook}" in str(raised.value)
    assert str(site.path / "acme_backend.py") in str(raised.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("@hookimpl\ndef opn_run(ticket, args): ...", "unknown hook 'opn_run', did you mean 'open_run'?"),
        ("@hookimpl\ndef zzz(ticket): ...", "unknown hook 'zzz'; missing open_run"),
        ("@hookimpl\ndef zzz(): ...\n@hookimpl\ndef yyy(): ...\n", "unknown hook 'yyy'; unknown hook 'zzz'"),
        ("def open_run(ticket, args): ...", "decorate open_run with @rolecall.hookimpl"),
        (
            "@hookimpl\ndef open_run(tickets, args): ...",
            "open_run(tickets, args): unknown parameter 'tickets'; allowed: ticket, args (all optional)",
        ),
        ("@hookimpl\ndef open_run(a, b, args): ...", "unknown parameters 'a', 'b'; allowed: ticket"),
    ],
)
def test_hook_misspelled_undecorated_or_wrongly_signed(site: MadeSite, source: str, message: str) -> None:
    site.backend(open_run=source)
    with pytest.raises(BackendError) as raised:
        Registry().load("acme")
    assert message in str(raised.value)


def test_all_that_is_wrong_is_said_at_once(site: MadeSite) -> None:
    site.backend(
        open_run="@hookimpl\ndef opn_run(): ...",
        backend_args="def backend_args(): ...",
        more="@hookimpl\ndef declare_axis(run, axes): ...\n@hookimpl\ndef prepare(tickets): ...",
    )
    with pytest.raises(BackendError) as raised:
        Registry().load("acme")
    words = str(raised.value)
    told = words.partition(": ")[2].partition(". The hooks are ")[0]
    assert sorted(told.split("; ")) == [
        "add it, decorated with @rolecall.hookimpl",
        "allowed: ticket, args (all optional)",
        "decorate backend_args with @rolecall.hookimpl",
        "missing open_run",
        "prepare(tickets): unknown parameter 'tickets'",
        "unknown hook 'declare_axis', did you mean 'declare_axes'?",
        "unknown hook 'opn_run', did you mean 'open_run'?",
    ]
    assert words.count("The hooks are") == 1


def test_axes_of_a_run_that_takes_none(site: MadeSite, ticket: RunTicket) -> None:
    """A bug of the plugin, and no outage that ends by itself."""
    site.backend(more="@hookimpl\ndef declare_axes(run, axes): run.define(axes)")
    backend = Registry().load("acme")
    with pytest.raises(BackendError, match=r"hook declare_axes failed: .*'Run' object has no attribute 'define'"):
        backend.declare_axes(backend.open_run(ticket, Args()), {"loss": "step"})


def test_outage_amid_axes_is_none_of_a_bug(site: MadeSite, ticket: RunTicket) -> None:
    site.backend(more="@hookimpl\ndef declare_axes(run, axes): None.post(axes)")
    backend = Registry().load("acme")
    with pytest.raises(AttributeError):
        backend.declare_axes(backend.open_run(ticket, Args()), {"loss": "step"})


def test_optional_hook_is_checked_as_well(site: MadeSite) -> None:
    site.backend(more="def declare_axes(run, axes): ...")
    with pytest.raises(BackendError, match="decorate declare_axes with"):
        Registry().load("acme")


@pytest.mark.parametrize(
    "source",
    [
        "@hookimpl\ndef open_run(): return Run()",
        "@hookimpl\ndef open_run(args): return Run()",
        "@hookimpl\ndef open_run(ticket, args, retries=3): return Run()",
    ],
)
def test_hooks_may_omit_arguments(site: MadeSite, ticket: RunTicket, source: str) -> None:
    run = "class Run:\n id, url = 'r', None\n def log(s, rows): ...\n flush = close = log\n"
    site.backend(open_run=run + source)
    backend = Registry().load("acme")
    assert backend.open_run(ticket, backend.args_model()()).id == "r"


def test_a_class_is_no_backend() -> None:
    with pytest.raises(BackendError, match="is the class Backend; register an instance"):
        Registry().register("acme", Backend)


@pytest.mark.parametrize(
    ("hook", "value", "valid"),
    [
        ("backend_args", "None", "a pydantic model class"),
        ("backend_args", "Args()", "a pydantic model class"),
        ("supports_shared_run", "True", "a rolecall.SharedRunSupport"),
        ("supports_shared_run", "None", "a rolecall.SharedRunSupport"),
        (
            "supports_shared_run",
            "SharedRunSupport(supported=False)",
            "a rolecall.SharedRunSupport, with a reason if supported is False",
        ),
    ],
)
def test_a_hook_that_returns_something_else(site: MadeSite, hook: str, value: str, valid: str) -> None:
    site.backend(**{hook: NO_ARGS.format(hook=hook, value=value)})
    backend = Registry().load("acme")
    call: Mapping[str, Callable[[], Any]] = {
        "backend_args": backend.args_model,
        "supports_shared_run": lambda: backend.supports_shared_run(Args()),
    }
    with pytest.raises(BackendError) as raised:
        call[hook]()
    assert f"hook {hook} returned" in str(raised.value)
    assert f"it must return {valid}" in str(raised.value)


@pytest.mark.parametrize(("value", "given"), [("None", "None"), ("{1: 2}", "an object of builtins.dict")])
def test_what_is_no_run(site: MadeSite, ticket: RunTicket, value: str, given: str) -> None:
    site.backend(open_run=NO_ARGS.format(hook="open_run", value=value))
    with pytest.raises(BackendError, match=f"hook open_run returned {given}, without id, url, log, flush, close; a"):
        Registry().load("acme").open_run(ticket, Args())


RUN = """
class Run:
    id, url = "r", None
    def log(self, rows): ...
    def flush(self, timeout): ...
    def close(self, status): ...
"""


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("def log_table(self, row, name): ...", "whose log_table cannot be called as log_table(row)"),
        ("def log(self): ...", "whose log cannot be called as log(rows)"),
        ("def log_tables(self, rows): ...", "with log_tables, which rolecall never calls; did you mean 'log_table'?"),
        ("def merge_configs(self, config): ...", "with merge_configs, which rolecall never calls; did you mean"),
        ("def heldd(self, writer, session): ...", "with heldd, which rolecall never calls; did you mean 'held'?"),
        ("def tend(self): ...", "with tend, but without confirmed; add what is missing"),
        ("def held(self, writer): ...", "whose held cannot be called as held(writer, session)"),
        ("log_table = 3", "whose log_table cannot be called as log_table(row)"),
    ],
)
def test_a_run_with_a_wrong_method(site: MadeSite, ticket: RunTicket, method: str, message: str) -> None:
    site.backend(open_run=f"{RUN}    {method}\n@hookimpl\ndef open_run(): return Run()\n")
    expected = re.escape(f"hook open_run returned an object of acme_backend.Run, {message}")
    with pytest.raises(BackendError, match=expected):
        Registry().load("acme").open_run(ticket, Args())


@pytest.mark.parametrize(
    "method",
    [
        "def log_table(self, row, *, quick=True): ...",
        "def flush(self, *args, **more): ...",
        "log = print",
        "def log_all_that_is_left(self): ...",
        "log_config = {}",
    ],
)
def test_a_run_with_methods_of_its_own(site: MadeSite, ticket: RunTicket, method: str) -> None:
    site.backend(open_run=f"{RUN}    {method}\n@hookimpl\ndef open_run(): return Run()\n")
    assert Registry().load("acme").open_run(ticket, Args()).id == "r"


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (HOOKS_VERSION + 1, f"was written for version {HOOKS_VERSION + 1} of the hooks, but this rolecall has"),
        ("'2'", "ROLECALL_HOOKS is '2'; it must be a whole number from 1 on"),
        (0, "ROLECALL_HOOKS is 0; it must be"),
        (True, "ROLECALL_HOOKS is True; it must be"),
    ],
)
def test_a_version_of_the_hooks_that_is_not_known(site: MadeSite, version: object, message: str) -> None:
    site.backend(open_run=f"{RUN}\nROLECALL_HOOKS = {version}\n@hookimpl\ndef open_run(): return Run()\n")
    with pytest.raises(BackendError, match=re.escape(message)):
        Registry().load("acme")


@pytest.mark.parametrize("version", ["", "ROLECALL_HOOKS = 1", f"ROLECALL_HOOKS = {HOOKS_VERSION}"])
def test_versions_of_the_hooks_that_are_known(site: MadeSite, ticket: RunTicket, version: str) -> None:
    site.backend(open_run=f"{RUN}\n{version}\n@hookimpl\ndef open_run(): return Run()\n")
    assert Registry().load("acme").open_run(ticket, Args()).id == "r"


@pytest.mark.parametrize("named", ["'process'", "()", "('process', 'fork')"])
def test_a_place_that_no_courier_has(site: MadeSite, named: str) -> None:
    site.backend(open_run=f"{RUN}\nCOURIERS = {named}\n@hookimpl\ndef open_run(): return Run()\n")
    with pytest.raises(BackendError, match=re.escape(f"COURIERS is {named}; it must be")):
        _ = Registry().load("acme").couriers


@pytest.mark.parametrize("hook", ["backend_args", "supports_shared_run"])
def test_a_hook_that_raises(site: MadeSite, hook: str) -> None:
    site.backend(**{hook: f"@hookimpl\ndef {hook}(): raise KeyError('port')"})
    backend = Registry().load("acme")
    with pytest.raises(BackendError, match=f"hook {hook} failed: KeyError: 'port'") as raised:
        backend.args_model() if hook == "backend_args" else backend.supports_shared_run(Args())
    assert isinstance(raised.value.__cause__, KeyError)


def test_optional_hooks_are_optional(site: MadeSite, ticket: RunTicket) -> None:
    site.backend("acme")
    site.backend("full", more="@hookimpl\ndef declare_axes(run, axes): run.append(axes)")
    assert not Registry().load("acme").declares_axes
    Registry().load("acme").prepare(ticket, Args())
    full = Registry().load("full")
    declared: Any = []
    full.declare_axes(declared, {"trainer/loss": "trainer/step"})
    assert full.declares_axes
    assert declared == [{"trainer/loss": "trainer/step"}]


def test_each_backend_is_called_alone(site: MadeSite, tmp_path: Path, ticket: RunTicket) -> None:
    calls = tmp_path / "calls"
    for name in ("acme", "other"):
        more = f"@hookimpl\ndef prepare(ticket):\n with open({str(calls)!r}, 'a') as file: file.write('{name} ')"
        site.backend(name, more=more)
    registry = Registry()
    registry.load("acme")
    registry.load("other").prepare(ticket, Args())
    assert calls.read_text() == "other "


# ------------------------------------------------------------------------ registered in code


def test_a_backend_registered_in_code(ticket: RunTicket) -> None:
    registry = Registry().register("mine", Backend())
    backend = registry.load("mine")
    assert "mine" in registry.names()
    assert not backend.portable
    assert backend.open_run(ticket, Args()).id == "1"
    assert not backend.supports_shared_run(Args()).supported
    assert backend.supports_shared_run(Args(url="https://x")).supported
    assert [one.distribution for one in registry.listings() if one.name == "mine"] == ["registered in code"]


def test_another_registry_knows_nothing_of_it() -> None:
    registry = Registry().register("mine", Backend())
    assert "mine" not in Registry().names()
    assert "mine" not in pickle.loads(pickle.dumps(registry)).names()
    assert registry != Registry()


@pytest.mark.parametrize("name", ["local", "console", "none", "acme", "mine"])
def test_a_name_that_is_taken(site: MadeSite, name: str) -> None:
    site.backend("acme")
    registry = Registry().register("mine", Backend())
    with pytest.raises(BackendError, match="register yours under another name"):
        registry.register(name, Backend())


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..", "ä"])
def test_a_name_that_cannot_be(name: str) -> None:
    with pytest.raises(BackendError, match="letters, digits"):
        Registry().register(name, Backend())


def test_what_is_refused_is_not_registered() -> None:
    registry = Registry()
    with pytest.raises(BackendError, match="missing backend_args"):
        registry.register("mine", object())
    assert "mine" not in registry.names()
    registry.register("mine", Backend())
