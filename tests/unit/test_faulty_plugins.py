"""What `rolecall backends`, `rolecall check` and `launch` say of each fault that a plugin can have."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from inline_snapshot import snapshot
from made_site import PARTS, Computer

CONFIG = "project: gsm8k\nname: grpo-1\nmonitor_type: acme\nshared_run: true\n"
LAUNCH = """
import sys, rolecall
try:
    rolecall.launch("config.yaml").close()
except rolecall.RolecallError as error:
    sys.exit(error)
"""

pytestmark = pytest.mark.processes


@pytest.fixture
def said(computer: Computer) -> Callable[[], str]:
    """What each of the three says of the installed backend `acme`, which a config chooses."""

    def run() -> str:
        (computer.home / "config.yaml").write_text(CONFIG)
        # a launch logs its error, too, as a role of it may show only its log
        launched = computer.program(LAUNCH, ROLECALL_LOG="error")
        words = {
            "backends": computer.rolecall("backends", COLUMNS="80").out,
            "check": (checked := computer.rolecall("check", "config.yaml")).out + checked.err,
            "launch": launched.out + launched.err,
        }
        assert "Traceback" not in str(words)
        return "\n".join(f"{name}:\n{computer.terminal(_of_acme(text))}" for name, text in words.items())

    return run


def _of_acme(text: str) -> str:
    """Without the lines on the built-in backends, and without an indent that depends on rolecall's version."""
    lines = [re.sub(r" {2,}", "  ", line) for line in text.splitlines()]
    return "\n".join(line for line in lines if not line.startswith(("console", "local")))


def run_with(members: str) -> str:
    """The source of a backend's `open_run`, whose run has other members than it should."""
    return PARTS["open_run"].replace("def flush(self, timeout): pass", members)


def test_two_plugins_of_one_name(said: Callable[[], str], computer: Computer) -> None:
    computer.site.backend("acme")
    computer.site.install("acme-tracker", "2.1", backends={"acme": "elsewhere"})
    assert said() == snapshot("""\
backends:
acme  rolecall-acme 1.0 and acme-tracker 2.1  broken
  backend 'acme' is provided by acme-tracker 2.1 and rolecall-acme 1.0;
uninstall one: pip uninstall acme-tracker or pip uninstall rolecall-acme
check:
rolecall: config.yaml: monitor_type: backend 'acme' is provided by acme-tracker
2.1 and rolecall-acme 1.0; uninstall one: pip uninstall acme-tracker or pip
uninstall rolecall-acme
launch:
config.yaml: monitor_type: backend 'acme' is provided by acme-tracker 2.1 and
rolecall-acme 1.0; uninstall one: pip uninstall acme-tracker or pip uninstall
rolecall-acme\
""")


def test_plugin_for_older_hooks(said: Callable[[], str], computer: Computer) -> None:
    """It works as it is: nothing to say."""
    computer.site.backend("acme", more="ROLECALL_HOOKS = 1")
    assert said() == snapshot("""\
backends:
acme  rolecall-acme 1.0  shared runs
check:
gsm8k / grpo-1 in HOME/rolecall/gsm8k/grpo-1
  acme: one run, shared by all roles, delivered by a process beside each role
launch:
""")


def test_plugin_that_forgets_its_version(said: Callable[[], str], computer: Computer) -> None:
    """An old plugin need not say anything, but it cannot have this hook."""
    computer.site.backend("acme", more="@hookimpl\ndef open_readback(ticket, args): pass")
    assert said() == snapshot("""\
backends:
acme  rolecall-acme 1.0  shared runs
  backend 'acme' (SITE/acme_backend.py): has the hook open_readback of version 2
of the hooks, and counts as written for version 1; its authors should write
ROLECALL_HOOKS = 2 beside its hooks
check:
gsm8k / grpo-1 in HOME/rolecall/gsm8k/grpo-1
  acme: one run, shared by all roles, delivered by a process beside each role
  backend 'acme' (SITE/acme_backend.py): has the hook open_readback of version 2
of the hooks, and counts as written for version 1; its authors should write
ROLECALL_HOOKS = 2 beside its hooks
launch:
""")


def test_plugin_for_newer_hooks(said: Callable[[], str], computer: Computer) -> None:
    computer.site.backend("acme", more="ROLECALL_HOOKS = 3")
    assert said() == snapshot("""\
backends:
acme  rolecall-acme 1.0  broken
  backend 'acme' (SITE/acme_backend.py): was written for version 3 of the hooks,
but this rolecall has version 2; install a newer rolecall, or a version of the
plugin that was written for this one
check:
rolecall: config.yaml: monitor_type: backend 'acme' (SITE/acme_backend.py): was
written for version 3 of the hooks, but this rolecall has version 2; install a
newer rolecall, or a version of the plugin that was written for this one
launch:
config.yaml: monitor_type: backend 'acme' (SITE/acme_backend.py): was written
for version 3 of the hooks, but this rolecall has version 2; install a newer
rolecall, or a version of the plugin that was written for this one\
""")


def test_plugin_that_raises_at_import(said: Callable[[], str], computer: Computer) -> None:
    computer.site.backend("acme", head="raise RuntimeError('half installed')")
    assert said() == snapshot("""\
backends:
acme  rolecall-acme 1.0  broken
  backend 'acme': rolecall-acme 1.0 cannot be imported (acme_backend):
RuntimeError: half installed. This is a bug in rolecall-acme, or it was
installed in part: reinstall it, and report it to its authors; or choose another
monitor_type
check:
rolecall: config.yaml: monitor_type: backend 'acme': rolecall-acme 1.0 cannot be
imported (acme_backend): RuntimeError: half installed. This is a bug in
rolecall-acme, or it was installed in part: reinstall it, and report it to its
authors; or choose another monitor_type
launch:
config.yaml: monitor_type: backend 'acme': rolecall-acme 1.0 cannot be imported
(acme_backend): RuntimeError: half installed. This is a bug in rolecall-acme, or
it was installed in part: reinstall it, and report it to its authors; or choose
another monitor_type\
""")


def test_plugin_whose_sdk_is_missing(said: Callable[[], str], computer: Computer) -> None:
    computer.site.backend("acme", requires=["acme-sdk>=2"])
    assert said() == snapshot("""\
backends:
acme  rolecall-acme 1.0  broken
  backend 'acme': rolecall-acme 1.0 needs acme-sdk>=2, which is not installed.
To fix it, run: pip install 'acme-sdk>=2'
check:
rolecall: config.yaml: monitor_type: backend 'acme': rolecall-acme 1.0 needs
acme-sdk>=2, which is not installed. To fix it, run: pip install 'acme-sdk>=2'
launch:
config.yaml: monitor_type: backend 'acme': rolecall-acme 1.0 needs acme-sdk>=2,
which is not installed. To fix it, run: pip install 'acme-sdk>=2'\
""")


def test_run_that_misses_a_member(said: Callable[[], str], computer: Computer) -> None:
    computer.site.backend("acme", open_run=run_with(""))
    assert said() == snapshot("""\
backends:
acme  rolecall-acme 1.0  shared runs
check:
gsm8k / grpo-1 in HOME/rolecall/gsm8k/grpo-1
  acme: one run, shared by all roles, delivered by a process beside each role
launch:
acme: backend 'acme' (SITE/acme_backend.py): hook open_run returned an object of
acme_backend.Run, without flush; a rolecall.Run has id, url, log, flush, close.
This is a bug in the backend: report it to its authors, or choose another
monitor_type\
""")


def test_run_with_a_wrong_signature(said: Callable[[], str], computer: Computer) -> None:
    computer.site.backend("acme", open_run=run_with("def flush(self): pass"))
    assert said() == snapshot("""\
backends:
acme  rolecall-acme 1.0  shared runs
check:
gsm8k / grpo-1 in HOME/rolecall/gsm8k/grpo-1
  acme: one run, shared by all roles, delivered by a process beside each role
launch:
acme: backend 'acme' (SITE/acme_backend.py): hook open_run returned an object of
acme_backend.Run, whose flush cannot be called as flush(timeout). This is a bug
in the backend: report it to its authors, or choose another monitor_type\
""")


def test_run_with_a_misspelled_member(said: Callable[[], str], computer: Computer) -> None:
    misspelled = "def flush(self, timeout): pass\n            def log_tables(self, row): pass"
    computer.site.backend("acme", open_run=run_with(misspelled))
    assert said() == snapshot("""\
backends:
acme  rolecall-acme 1.0  shared runs
check:
gsm8k / grpo-1 in HOME/rolecall/gsm8k/grpo-1
  acme: one run, shared by all roles, delivered by a process beside each role
launch:
acme: backend 'acme' (SITE/acme_backend.py): hook open_run returned an object of
acme_backend.Run, with log_tables, which rolecall never calls; did you mean
'log_table'? Rename it, or begin its name with '_' if it is the run's own. This
is a bug in the backend: report it to its authors, or choose another
monitor_type\
""")


def test_misspelled_hook(said: Callable[[], str], computer: Computer) -> None:
    computer.site.backend("acme", more="@hookimpl\ndef declare_axis(run, axes): ...")
    assert said() == snapshot("""\
backends:
acme  rolecall-acme 1.0  broken
  backend 'acme' (SITE/acme_backend.py): unknown hook 'declare_axis', did you
mean 'declare_axes'? The hooks are backend_args(), supports_shared_run(args),
prepare(ticket, args), open_run(ticket, args), declare_axes(run, axes),
open_readback(ticket, args). This is a bug in the backend: report it to its
authors, or choose another monitor_type
check:
rolecall: config.yaml: monitor_type: backend 'acme' (SITE/acme_backend.py):
unknown hook 'declare_axis', did you mean 'declare_axes'? The hooks are
backend_args(), supports_shared_run(args), prepare(ticket, args),
open_run(ticket, args), declare_axes(run, axes), open_readback(ticket, args).
This is a bug in the backend: report it to its authors, or choose another
monitor_type
launch:
config.yaml: monitor_type: backend 'acme' (SITE/acme_backend.py): unknown hook
'declare_axis', did you mean 'declare_axes'? The hooks are backend_args(),
supports_shared_run(args), prepare(ticket, args), open_run(ticket, args),
declare_axes(run, axes), open_readback(ticket, args). This is a bug in the
backend: report it to its authors, or choose another monitor_type\
""")
