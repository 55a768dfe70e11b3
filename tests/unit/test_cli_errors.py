"""What a user sees at the command line for each mistake: where it is, what was given, what is valid, what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from inline_snapshot import snapshot
from made_site import Computer

JOB = "project: gsm8k\nname: grpo-1\n"
ACME = JOB + "monitor_type: acme\n"

Run = Callable[..., str]


@pytest.fixture
def refused(computer: Computer) -> Run:
    """Run a command that fails; returns its message."""

    def run(*arguments: str, **environ: str) -> str:
        ran = computer.rolecall(*arguments, **environ)
        assert ran.status == 2
        assert ran.out == ""
        assert "Traceback" not in ran.err
        return computer.terminal(ran.err)

    return run


@pytest.fixture
def check(computer: Computer, refused: Run) -> Callable[[str], str]:
    """Run `rolecall check` on a config that it refuses; returns its message."""

    def run(config: str) -> str:
        (computer.home / "config.yaml").write_text(config)
        return refused("check", "config.yaml")

    return run


@pytest.fixture
def script(computer: Computer) -> Callable[..., str]:
    """What a program shows that lets rolecall's errors end it, as they should, without a traceback."""

    def run(*lines: str, **environ: str) -> str:
        body = "\n    ".join(lines)
        source = f"import sys, rolecall\ntry:\n    {body}\nexcept rolecall.RolecallError as error:\n    sys.exit(error)"
        ran = computer.program(source, **environ)
        assert ran.status == 1
        assert "Traceback" not in ran.err
        return computer.terminal(ran.err)

    return run


# ------------------------------------------------------------------------------ backends


def test_known_backend_that_is_not_installed(check: Run) -> None:
    assert check(JOB + "monitor_type: wandb") == snapshot("""\
rolecall: config.yaml: monitor_type: backend 'wandb' is not installed;
installed: console, local, none. To use wandb, install it from a checkout of
rolecall: pip install ./plugins/rolecall-wandb\
""")


def test_known_backend_misspelled_and_not_installed(check: Run) -> None:
    assert check(JOB + "monitor_type: tensorbord") == snapshot("""\
rolecall: config.yaml: monitor_type: backend 'tensorbord' is not installed;
installed: console, local, none. Did you mean 'tensorboard'? To use tensorboard,
install it from a checkout of rolecall: pip install
./plugins/rolecall-tensorboard\
""")


def test_an_installed_backend_misspelled(check: Run) -> None:
    assert check("monitor:\n  project: gsm8k\n  name: grpo-1\n  monitor_type: [local, Consle]") == snapshot("""\
rolecall: config.yaml: monitor.monitor_type: backend 'Consle' is not installed;
installed: console, local, none. Did you mean 'console'?\
""")


def test_a_backend_that_nobody_knows(check: Run) -> None:
    assert check(JOB + "monitor_type: zzz") == snapshot("""\
rolecall: config.yaml: monitor_type: backend 'zzz' is not installed; installed:
console, local, none. Choose one of these, or install the distribution that
provides it\
""")


def test_two_distributions_with_one_backend(check: Run, computer: Computer) -> None:
    computer.site.backend("acme")
    computer.site.install("acme-tracker", "2.1", backends={"acme": "elsewhere"})
    assert check(ACME) == snapshot("""\
rolecall: config.yaml: monitor_type: backend 'acme' is provided by acme-tracker
2.1 and rolecall-acme 1.0; uninstall one: pip uninstall acme-tracker or pip
uninstall rolecall-acme\
""")


def test_distribution_with_built_in_backend(check: Run, computer: Computer) -> None:
    computer.site.backend("local")
    assert check(JOB) == snapshot("""\
rolecall: config.yaml: monitor_type: backend 'local' is provided by rolecall
itself and rolecall-local 1.0; uninstall one: pip uninstall rolecall-local\
""")


def test_a_plugin_that_fails_to_import(check: Run, computer: Computer) -> None:
    computer.site.backend(head="import acme_sdk_of_old")
    assert check(ACME) == snapshot("""\
rolecall: config.yaml: monitor_type: backend 'acme': rolecall-acme 1.0 cannot be
imported (acme_backend): ModuleNotFoundError: No module named 'acme_sdk_of_old'.
It needs the module acme_sdk_of_old, and does not say so in its requirements:
install what provides it; or choose another monitor_type\
""")


def test_plugin_that_ends_process_on_import(check: Run, computer: Computer) -> None:
    computer.site.backend(head="raise SystemExit('no licence')")
    assert check(ACME) == snapshot("""\
rolecall: config.yaml: monitor_type: backend 'acme': rolecall-acme 1.0 cannot be
imported (acme_backend): SystemExit: no licence. This is a bug in rolecall-acme,
or it was installed in part: reinstall it, and report it to its authors; or
choose another monitor_type\
""")


def test_a_plugin_whose_module_is_gone(check: Run, computer: Computer) -> None:
    computer.site.install("rolecall-acme", backends={"acme": "rolecall_acme.plugin"})
    assert check(ACME) == snapshot("""\
rolecall: config.yaml: monitor_type: backend 'acme': rolecall-acme 1.0 cannot be
imported (rolecall_acme.plugin): ModuleNotFoundError: No module named
'rolecall_acme'. Its files are incomplete: reinstall rolecall-acme; or choose
another monitor_type\
""")


def test_a_missing_hook(check: Run, computer: Computer) -> None:
    computer.site.backend(open_run="")
    assert check(ACME) == snapshot("""\
rolecall: config.yaml: monitor_type: backend 'acme' (SITE/acme_backend.py):
missing open_run; add it, decorated with @rolecall.hookimpl. The hooks are
backend_args(), supports_shared_run(args), prepare(ticket, args),
open_run(ticket, args), declare_axes(run, axes), open_readback(ticket, args).
This is a bug in the backend: report it to its authors, or choose another
monitor_type\
""")


def test_a_misspelled_hook(check: Run, computer: Computer) -> None:
    computer.site.backend(open_run="@hookimpl\ndef opn_run(ticket, args): ...")
    assert check(ACME) == snapshot("""\
rolecall: config.yaml: monitor_type: backend 'acme' (SITE/acme_backend.py):
unknown hook 'opn_run', did you mean 'open_run'?; missing open_run; add it,
decorated with @rolecall.hookimpl. The hooks are backend_args(),
supports_shared_run(args), prepare(ticket, args), open_run(ticket, args),
declare_axes(run, axes), open_readback(ticket, args). This is a bug in the
backend: report it to its authors, or choose another monitor_type\
""")


def test_an_undecorated_hook(check: Run, computer: Computer) -> None:
    computer.site.backend(open_run="def open_run(ticket, args): ...")
    assert check(ACME) == snapshot("""\
rolecall: config.yaml: monitor_type: backend 'acme' (SITE/acme_backend.py):
decorate open_run with @rolecall.hookimpl. The hooks are backend_args(),
supports_shared_run(args), prepare(ticket, args), open_run(ticket, args),
declare_axes(run, axes), open_readback(ticket, args). This is a bug in the
backend: report it to its authors, or choose another monitor_type\
""")


def test_hook_with_unknown_argument(check: Run, computer: Computer) -> None:
    computer.site.backend(open_run="@hookimpl\ndef open_run(ticket, arguments): ...")
    assert check(ACME) == snapshot("""\
rolecall: config.yaml: monitor_type: backend 'acme' (SITE/acme_backend.py):
open_run(ticket, arguments): unknown parameter 'arguments'; allowed: ticket,
args (all optional). The hooks are backend_args(), supports_shared_run(args),
prepare(ticket, args), open_run(ticket, args), declare_axes(run, axes),
open_readback(ticket, args). This is a bug in the backend: report it to its
authors, or choose another monitor_type\
""")


def test_class_in_place_of_instance(check: Run, computer: Computer) -> None:
    computer.site.install("rolecall-acme", backends={"acme": "acme_backend:Acme"}, acme_backend="class Acme: ...")
    assert check(ACME) == snapshot("""\
rolecall: config.yaml: monitor_type: backend 'acme' (SITE/acme_backend.py): is
the class Acme; register an instance of it, or a module\
""")


def test_a_hook_that_returns_nonsense(check: Run, computer: Computer) -> None:
    computer.site.backend(backend_args="@hookimpl\ndef backend_args(): return {'url': str}")
    assert check(ACME) == snapshot("""\
rolecall: config.yaml: monitor_type: backend 'acme' (SITE/acme_backend.py): hook
backend_args returned {'url': <class 'str'>}; it must return a pydantic model
class. This is a bug in the backend: report it to its authors, or choose another
monitor_type\
""")


def test_hook_that_says_no_without_reason(check: Run, computer: Computer) -> None:
    no = "return SharedRunSupport(supported=False)"
    computer.site.backend(supports_shared_run=f"@hookimpl\ndef supports_shared_run(args): {no}")
    assert check(ACME + "shared_run: true") == snapshot("""\
rolecall: backend 'acme' (SITE/acme_backend.py): hook supports_shared_run
returned SharedRunSupport(supported=False, reason=''); it must return a
rolecall.SharedRunSupport, with a reason if supported is False. This is a bug in
the backend: report it to its authors, or choose another monitor_type\
""")


def test_a_hook_that_raises(check: Run, computer: Computer) -> None:
    computer.site.backend(supports_shared_run="@hookimpl\ndef supports_shared_run(args): return args.port")
    assert check(ACME + "shared_run: true") == snapshot("""\
rolecall: backend 'acme' (SITE/acme_backend.py): hook supports_shared_run
failed: AttributeError: 'Args' object has no attribute 'port'. This is a bug in
the backend: report it to its authors, or choose another monitor_type\
""")


def test_an_sdk_that_is_missing(check: Run, computer: Computer) -> None:
    computer.site.backend(requires=["acme-sdk>=2"])
    assert check(ACME) == snapshot("""\
rolecall: config.yaml: monitor_type: backend 'acme': rolecall-acme 1.0 needs
acme-sdk>=2, which is not installed. To fix it, run: pip install 'acme-sdk>=2'\
""")


def test_an_sdk_that_is_too_old(check: Run, computer: Computer) -> None:
    computer.site.backend(requires=["acme-sdk>=2,<4", "acme-extra; extra == 'more'"])
    computer.site.install("acme-sdk", "1.9.3")
    assert check(ACME) == snapshot("""\
rolecall: config.yaml: monitor_type: backend 'acme': rolecall-acme 1.0 needs
acme-sdk<4,>=2, but 1.9.3 is installed. To fix it, run: pip install
'acme-sdk<4,>=2'\
""")


# -------------------------------------------------------------------------------- config


def test_an_unknown_setting(check: Run) -> None:
    assert check("monitor:\n  project: gsm8k\n  name: grpo-1\n  shared_runs: true") == snapshot("""\
rolecall: config.yaml cannot be used:
  monitor.shared_runs: unknown setting; did you mean 'shared_run'? allowed:
courier, group, monitor_args, monitor_dir, monitor_type, name, on_backend_error,
open_timeout, project, resume, run_id, shared_run, spool_dir, spool_limit,
sync_every, system_metrics, transport\
""")


def test_missing_settings(check: Run) -> None:
    assert check("monitor_type: local") == snapshot("""\
rolecall: config.yaml cannot be used:
  project: missing; every config needs it
  name: missing; every config needs it\
""")


def test_settings_of_a_wrong_type(check: Run) -> None:
    config = "{project: 2024, name: 2024-05-01, monitor_type: {local: 1}, shared_run: perhaps, resume: always"
    assert check(config + ", run_id: a b}") == snapshot("""\
rolecall: config.yaml cannot be used:
  project: must be a string; given 2024; put it in quotes
  name: must be a string; given 2024-05-01; put it in quotes
  monitor_type: must be the name of a backend, or a list of names; given a
mapping
  shared_run: must be true, false or 'relay'; given 'perhaps'
  run_id: must be 1 to 128 letters, digits, '.', '_' and '-', and start with a
letter or a digit; given 'a b'
  resume: must be 'auto', 'allow', 'must' or 'never'; given 'always'\
""")


def test_a_monitor_dir_that_cannot_be(check: Run) -> None:
    assert check(JOB + "monitor_dir: ~nobody-of-this-name/runs") == snapshot("""\
rolecall: config.yaml cannot be used:
  monitor_dir: the home directory is unknown; write the path in full; given
'~nobody-of-this-name/runs'\
""")


def test_one_backend_twice(check: Run) -> None:
    assert check(JOB + "monitor_type: [console, console]") == snapshot("""\
rolecall: config.yaml cannot be used:
  monitor_type: must name one backend, or several different ones; 'none' cannot
be combined; given a list\
""")


@pytest.mark.holds_keys("config.yaml")
def test_wrong_arguments_of_the_only_backend(check: Run, computer: Computer) -> None:
    computer.site.backend()
    config = ACME + "monitor_args: {ulr: http://tracker, retries: many, password: [hunter2]}"
    assert check(config) == snapshot("""\
rolecall: config.yaml cannot be used:
  monitor_args.retries: must be a whole number; given 'many'
  monitor_args.password: must be a string; given a list
  monitor_args.ulr: unknown argument of acme; did you mean 'url'? allowed:
password, retries, url\
""")


def test_wrong_arguments_of_one_of_several(check: Run, computer: Computer) -> None:
    computer.site.backend()
    config = JOB + "monitor_type: [acme, console]\nmonitor_args: {acme: {retries: many}, consle: {level: 10}}"
    assert check(config) == snapshot("""\
rolecall: config.yaml cannot be used:
  monitor_args.consle: not a backend of monitor_type; allowed: acme, console,
each with a mapping of its arguments
  monitor_args.acme.retries: must be a whole number; given 'many'\
""")


def test_an_argument_that_is_required(check: Run, computer: Computer) -> None:
    computer.site.backend(args="class Args(BaseModel):\n    url: str")
    assert check(ACME) == snapshot("""\
rolecall: config.yaml cannot be used:
  monitor_args.url: missing; acme needs it\
""")


@pytest.mark.holds_keys("config.yaml")
def test_arguments_that_are_no_mapping(check: Run, computer: Computer) -> None:
    computer.site.backend()
    assert check(ACME + "monitor_args: sk-hunter2") == snapshot("""\
rolecall: config.yaml cannot be used:
  monitor_args: must be a mapping of arguments; given a string\
""")


@pytest.mark.holds_keys("config.yaml")
@pytest.mark.parametrize("password", ["12345678", "[hunter2]", "{a: hunter2}"])
def test_secret_of_wrong_type_stays_hidden(check: Run, computer: Computer, password: str) -> None:
    computer.site.backend()
    assert password.strip("[]{a: }") not in check(ACME + f"monitor_args: {{password: {password}}}")


# --------------------------------------------------------------------------------- files


def test_a_file_that_is_not_yaml(check: Run) -> None:
    assert check("monitor: {project: gsm8k") == snapshot("""\
rolecall: config.yaml: not valid YAML: line 1, column 25: expected ',' or '}',
but got '<stream end>'\
""")


def test_value_that_only_resembles_a_date(check: Run) -> None:
    assert check(JOB + "group: 2024-13-45") == snapshot("rolecall: config.yaml: not valid YAML: month must be in 1..12")


def test_an_empty_file(check: Run) -> None:
    assert check("") == snapshot("""\
rolecall: config.yaml: expected a mapping of settings, with project and name, or
with a key monitor; given nothing\
""")


def test_an_empty_monitor_block(check: Run) -> None:
    assert check("model: qwen\nmonitor:\n") == snapshot("""\
rolecall: config.yaml: monitor: expected a mapping of settings, with project and
name; given nothing\
""")


def test_a_file_that_is_not_text(computer: Computer, refused: Run) -> None:
    (computer.home / "config.yaml").write_bytes(b"\xff\xfe\x00p")
    assert refused("check", "config.yaml") == snapshot("""\
rolecall: config.yaml: cannot be read: 'utf-8' codec can't decode byte 0xff in
position 0: invalid start byte; give the path of a YAML file\
""")


def test_a_file_that_is_missing(refused: Run) -> None:
    assert refused("check", "nowhere.yaml") == snapshot("""\
rolecall: nowhere.yaml: cannot be read: No such file or directory; give the path
of a YAML file\
""")


def test_directory_in_place_of_file(refused: Run) -> None:
    assert refused("check", ".") == snapshot(
        "rolecall: .: cannot be read: Is a directory; give the path of a YAML file"
    )


# -------------------------------------------------------------------- show, deliver, demo


@pytest.fixture
def job(computer: Computer) -> str:
    """The monitor_dir of a finished local job."""
    source = """
import rolecall
config = {"project": "gsm8k", "name": "grpo-1", "monitor_dir": "job"}
with rolecall.launch(config) as job, rolecall.open_monitor(job.config, "trainer") as monitor:
    monitor.log({"loss": 0.5, "reward/mean": 1.0}, step=1)
"""
    ran = computer.python("-c", source)
    assert ran.status == 0, ran.err
    return "job"


def test_show_what_is_not_there(refused: Run) -> None:
    assert refused("show", "nowhere") == snapshot("""\
rolecall: nowhere: not a monitor_dir (no run.json); give the monitor_dir of a
job that was launched\
""")


def test_show_a_file(computer: Computer, refused: Run) -> None:
    (computer.home / "notes.txt").write_text("hello")
    assert refused("show", "notes.txt") == snapshot("""\
rolecall: notes.txt/run.json: cannot be read: Not a directory; give the
monitor_dir of a job\
""")


def test_show_directory_with_damaged_record(computer: Computer, refused: Run, job: str) -> None:
    (computer.home / job / "run.json").write_text("{")
    assert refused("show", job, "--json") == snapshot("""\
rolecall: job/run.json: is damaged; use another monitor_dir, or move this one
away\
""")


def test_show_directory_that_cannot_be_read(computer: Computer, refused: Run) -> None:
    # A loop of links cannot be read by anybody; permissions do not stop root, whom containers run tests as.
    (computer.home / "job").symlink_to("job")
    assert refused("show", "job", "--csv") == snapshot("""\
rolecall: job/run.json: cannot be read: Too many levels of symbolic links; give
the monitor_dir of a job\
""")


def test_show_a_metric_that_nobody_logged(refused: Run, job: str) -> None:
    assert refused("show", job, "--metric", "explorer/*") == snapshot("""\
rolecall: --metric explorer/*: no metric matches; the metrics are trainer/loss,
trainer/reward/mean\
""")


def test_deliver_what_is_not_there(refused: Run) -> None:
    assert refused("deliver", "nowhere") == snapshot("""\
rolecall: nowhere: not a monitor_dir (no run.json); give the monitor_dir of a
job that was launched\
""")


def test_deliver_a_local_job_to_nowhere(refused: Run, job: str) -> None:
    assert refused("deliver", job) == snapshot("""\
rolecall: HOME/job: the job's only backend is local, so all of it is here; name
a backend with --to\
""")


def test_deliver_to_a_backend_not_installed(refused: Run, job: str) -> None:
    assert refused("deliver", job, "--to", "mlflow") == snapshot("""\
rolecall: --to: backend 'mlflow' is not installed; installed: console, local,
none. To use mlflow, install it from a checkout of rolecall: pip install
./plugins/rolecall-mlflow\
""")


@pytest.mark.parametrize("name", ["local", "none"])
def test_deliver_to_where_nothing_can_go(refused: Run, job: str, name: str) -> None:
    assert refused("deliver", job, "--to", name).replace(name, "NAME") == snapshot(
        "rolecall: --to: nothing can be delivered to 'NAME'; choose another backend"
    )


def test_deliver_with_wrong_arguments(computer: Computer, refused: Run, job: str) -> None:
    computer.site.backend()
    assert refused("deliver", job, "--to", "acme", "--args", "{retries: many}") == snapshot("""\
rolecall: config cannot be used:
  monitor_args.acme.retries: must be a whole number; given 'many'\
""")


def test_arguments_that_are_not_yaml(refused: Run, job: str) -> None:
    assert refused("deliver", job, "--to", "console", "--args", "{level: 10") == snapshot("""\
rolecall: --args: not valid YAML: line 1, column 11: expected ',' or '}', but
got '<stream end>'\
""")


def test_command_line_arguments_without_mapping(refused: Run, job: str) -> None:
    assert refused("deliver", job, "--to", "console", "--args", "level=10") == snapshot(
        "rolecall: --args: must be a mapping such as '{uri: sqlite:///runs.db}'"
    )


def test_demo_with_arguments_not_in_yaml(refused: Run) -> None:
    assert refused("demo", "--monitor-args", "uri: [") == snapshot("""\
rolecall: --monitor-args: not valid YAML: line 1, column 7: expected the node
content, but found '<stream end>'\
""")


def test_demo_with_arguments_without_mapping(refused: Run) -> None:
    assert refused("demo", "--monitor-args", "sqlite:///runs.db") == snapshot(
        "rolecall: --monitor-args: must be a mapping such as '{uri: sqlite:///runs.db}'"
    )


@pytest.mark.parametrize("arguments", [(), ("draw",), ("check",), ("backends", "--yaml"), ("show", "--chart", "x")])
def test_a_wrong_call(refused: Run, arguments: tuple[str, ...]) -> None:
    assert refused(*arguments).startswith("usage: rolecall")


@pytest.mark.parametrize("name", ["backends", "check", "demo", "show", "deliver", "export"])
def test_help_has_examples(computer: Computer, name: str) -> None:
    ran = computer.rolecall(name, "--help")
    assert ran.status == 0
    assert "\nExamples:\n  rolecall " in ran.out
    assert f"rolecall {name}" in ran.out.partition("Examples:")[2]


def test_rows_that_are_left(computer: Computer, job: str) -> None:
    """The command to try again is printed, without arguments that may hold a secret."""
    away = "@hookimpl\ndef open_run(ticket, args):\n    raise Unavailable('the server is away')"
    computer.site.backend(head="from pydantic import *\nfrom rolecall import *", open_run=away)
    ran = computer.rolecall("deliver", job, "--to", "acme", "--timeout", "1", "--args", "{password: not-to-be-printed}")
    assert ran.status == 1
    # With the path of the program, or without it, as PATH has it.
    again = re.fullmatch(r"some rows are left; try again later: \S*rolecall (.*)\n", ran.out)
    assert again is not None
    assert again[1] == f"deliver {job} --to acme"
    assert "trainer: 1 rows are not in acme" in ran.err


# ------------------------------------------------------------------------- from a program


def test_role_that_cannot_be_name(script: Run) -> None:
    assert script('rolecall.open_monitor({"project": "p", "name": "n"}, "explorer/0")') == snapshot("""\
role 'explorer/0': must start with a letter or digit and consist of at most 64
letters, digits, '.', '_' and '-'; pass a number as rank\
""")


def test_a_rank_that_is_a_text(script: Run) -> None:
    assert script('rolecall.open_monitor({"project": "p", "name": "n"}, "explorer", rank="0")') == snapshot("""\
rank '0' of role 'explorer': must be None or a whole number from 0; pass
int('0')\
""")


def test_a_rank_below_zero(script: Run) -> None:
    assert script('rolecall.open_monitor({"project": "p", "name": "n"}, "explorer", rank=-1)') == snapshot(
        "rank -1 of role 'explorer': must be None or a whole number from 0"
    )


def test_keyword_arguments(script: Run) -> None:
    assert script('rolecall.MonitorConfig(project="p", nane="n", courier="pigeon")') == snapshot("""\
config cannot be used:
  name: missing; every config needs it
  courier: must be 'process', 'thread' or 'none'; given 'pigeon'
  nane: unknown setting; did you mean 'name'? allowed: courier, group,
monitor_args, monitor_dir, monitor_type, name, on_backend_error, open_timeout,
project, resume, run_id, shared_run, spool_dir, spool_limit, sync_every,
system_metrics, transport\
""")


def test_a_config_of_a_wrong_kind(script: Run) -> None:
    assert script("rolecall.MonitorConfig.load(42)") == snapshot("""\
config: expected a mapping, a dataclass, an OmegaConf node or the path of a YAML
file; given a value of type int\
""")


def test_no_config_in_the_environment(script: Run) -> None:
    assert script("rolecall.MonitorConfig.from_env()") == snapshot("""\
ROLECALL_CONFIG is not set; start the role with env={**os.environ,
**job.config.to_env()}\
""")


def test_another_value_in_the_environment(script: Run) -> None:
    assert script("rolecall.MonitorConfig.from_env()", ROLECALL_CONFIG="config.yaml") == snapshot(
        """\
ROLECALL_CONFIG: not a value that MonitorConfig.to_env writes; pass that value
on unchanged\
"""
    )


def test_backend_missing_beside_a_role(script: Run, computer: Computer) -> None:
    data = json.dumps({"project": "p", "name": "n", "monitor_type": "acme"})
    value = f"base64.b64encode({data.encode()!r}).decode()"
    lines = ("import base64", f'rolecall.MonitorConfig.from_env({{"ROLECALL_CONFIG": {value}}})')
    assert script(*lines) == snapshot("""\
ROLECALL_CONFIG: monitor_type: backend 'acme' is not installed; installed:
console, local, none. Choose one of these, or install the distribution that
provides it\
""")


def test_monitor_dir_that_cannot_be_written(script: Run, computer: Computer) -> None:
    (computer.home / "file").write_text("")
    assert script('rolecall.launch({"project": "p", "name": "n", "monitor_dir": "file/job"})') == snapshot("""\
monitor_dir HOME/file/job: cannot be used: HOME/file/job/launching: Not a
directory; use another monitor_dir\
""")
