"""A job of real processes that are really killed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lines_role
import pytest
from lines_server import LinesServer

from rolecall import Job, MonitorConfig, launch, open_monitor
from rolecall.store.layout import Layout
from rolecall.store.lease import Session, newest

pytestmark = pytest.mark.processes

MakeConfig = Callable[..., MonitorConfig]
Wait = Callable[..., None]

ROLE = """
import os, signal, sys, time
from rolecall import MonitorConfig, open_monitor
role, rank, steps, end = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
monitor = open_monitor(MonitorConfig.from_env(), role, int(rank) if rank else None)
for step in range(1, steps + 1):
    monitor.log({"reward/mean": step / 2}, step=step)
print("logged", flush=True)
if end == "close":
    monitor.close()
elif end == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif end == "exit":
    os._exit(3)
elif end == "wait":
    time.sleep(600)
"""


UNDER_A_TERMINAL = """
import os, pty, sys
os.environ["TERM"] = "xterm"
status = pty.spawn(["sh", "-c", sys.argv[1]])
sys.exit(os.waitstatus_to_exitcode(status))
"""


def start_role(
    config: MonitorConfig, role: str, rank: int | None = None, steps: int = 100, end: str = "close", **options: Any
) -> subprocess.Popen[str]:
    rank_word = "" if rank is None else str(rank)
    return subprocess.Popen(
        [sys.executable, "-c", ROLE, role, rank_word, str(steps), end],
        env={**os.environ, **config.to_env()},
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


LAUNCHER = """
import time
from rolecall import MonitorConfig, launch
job = launch(MonitorConfig.from_env())
print(job.config.to_env()["ROLECALL_CONFIG"], flush=True)
time.sleep(600)
"""


def start_launcher(config: MonitorConfig) -> tuple[subprocess.Popen[str], MonitorConfig]:
    """A launcher in a process of its own, and the config that it hands on."""
    environ = {**os.environ, **config.to_env()}
    command = [sys.executable, "-c", LAUNCHER]
    launcher = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    return launcher, MonitorConfig.from_env({"ROLECALL_CONFIG": launcher.stdout.readline().strip()})


def finish(process: subprocess.Popen[str], timeout: float = 60.0) -> int:
    process.communicate(timeout=timeout)
    return process.returncode


def axis(server: LinesServer, job: Job, writer: str) -> list[int]:
    return [step for step, _ in server.points(job.run_id or "", writer, f"{writer}/step")]


def courier_pids(config: MonitorConfig, writer: str) -> list[int]:
    claim = newest(Layout(config.monitor_dir).delivery("lines", writer))
    owner = claim.owner() if claim else None
    return [owner.pid] if owner is not None and owner.is_running() else []


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_multiprocessing_roles_share_a_run(make_config: MakeConfig, server: LinesServer, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    with launch(make_config(courier="process")) as job:
        children = [context.Process(target=lines_role.explore, args=(job.config, rank)) for rank in range(2)]
        for child in children:
            child.start()
        for child in children:
            child.join(60)
            assert child.exitcode == 0
    assert server.runs() == [job.run_id]
    for rank in range(2):
        assert axis(server, job, f"explorer/{rank}") == list(range(1, 101))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_children_that_close_nothing(make_config: MakeConfig, method: str) -> None:
    """Multiprocessing's forked children end by `os._exit`, without what Python does at its end."""
    context: Any = multiprocessing.get_context(method)
    with launch(make_config(monitor_type="local", monitor_args={})) as job:
        for end in ("returns", "raises", "exits0", "exits3"):
            child = context.Process(target=lines_role.keep_open, args=(job.config, end))
            child.start()
            child.join()
        states = {writer.writer: str(writer.state) for writer in job.writers}
    assert states == {"returns": "finished", "raises": "failed", "exits0": "finished", "exits3": "failed"}


def test_subprocess_roles_share_a_run(make_config: MakeConfig, server: LinesServer) -> None:
    with launch(make_config(courier="process")) as job:
        roles = [start_role(job.config, "explorer", 0), start_role(job.config, "trainer")]
        assert [finish(role) for role in roles] == [0, 0]
    assert axis(server, job, "explorer/0") == list(range(1, 101))
    assert axis(server, job, "trainer") == list(range(1, 101))
    assert len({line["pid"] for line in server.lines()}) == 3, "a courier beside each role, and the launcher's"
    assert os.getpid() not in {line["pid"] for line in server.lines()}


@pytest.mark.parametrize(("end", "status"), [("kill", -signal.SIGKILL), ("exit", 3)])
def test_killed_role_loses_no_row(
    make_config: MakeConfig, server: LinesServer, wait_until: Wait, end: str, status: int
) -> None:
    with launch(make_config(courier="process")) as job:
        assert finish(start_role(job.config, "trainer", steps=2000, end=end)) == status
        wait_until(lambda: any(line.get("by") == "trainer" and "closed" in line for line in server.lines()))
        assert [line["closed"] for line in server.lines() if "closed" in line] == ["killed"]
        wait_until(lambda: not courier_pids(job.config, "trainer"))
    assert axis(server, job, "trainer") == list(range(1, 2001))


def test_killed_role_comes_back(make_config: MakeConfig, server: LinesServer) -> None:
    with launch(make_config(courier="process")) as job:
        finish(start_role(job.config, "trainer", steps=50, end="kill"))
        assert finish(start_role(job.config, "trainer", steps=50)) == 0
    assert server.seqs("trainer") == [(session, seq) for session in (1, 2) for seq in range(1, 51)]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("also_courier", [False, True])
def test_role_killed_while_it_closes(
    make_config: MakeConfig, server: LinesServer, wait_until: Wait, shared: bool, also_courier: bool
) -> None:
    """Its end is recorded and its rows wait: its courier sends them or, if that died too, `deliver`; as finished."""
    with launch(make_config(courier="process", shared_run=shared)) as job:
        server.fail("down")
        role = start_role(job.config, "trainer", stderr=subprocess.DEVNULL)
        session = Session(Layout(job.config.monitor_dir).journal("trainer") / "1.jsonl", 1)
        wait_until(lambda: session.status() == "finished")
        assert role.poll() is None, "it waits for its courier"
        couriers = courier_pids(job.config, "trainer")
        assert len(couriers) == 1
        role.kill()  # first, or it would start its courier again
        role.communicate()
        if also_courier:
            os.kill(couriers[0], signal.SIGKILL)
            wait_until(lambda: not courier_pids(job.config, "trainer"))
        server.fix("down")
    if also_courier:
        assert not server.seqs("trainer")
        deliver = [sys.executable, "-m", "rolecall", "deliver", str(job.config.monitor_dir)]
        done = subprocess.run(deliver, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "all rows are delivered\n"), done.stderr
    wait_until(lambda: [line for line in server.lines() if line.get("by") == "trainer" and "closed" in line])
    assert server.seqs("trainer") == [(1, seq) for seq in range(1, 101)]
    assert {line["closed"] for line in server.lines() if "closed" in line} == {"finished"}


def test_killed_launcher_leaves_roles_alone(make_config: MakeConfig, server: LinesServer, wait_until: Wait) -> None:
    config = make_config(courier="process")
    launcher, handed_on = start_launcher(config)
    role = start_role(handed_on, "trainer", end="wait")
    assert role.stdout is not None
    assert role.stdout.readline() == "logged\n"
    launcher.kill()
    launcher.communicate()
    survivor = start_role(handed_on, "explorer")
    assert finish(survivor) == 0
    assert [line["by"] for line in server.lines() if "closed" in line] == ["explorer"]
    role.kill()
    role.communicate()
    wait_until(lambda: [line for line in server.lines() if "closed" in line and line["by"] is None])
    assert server.lines()[-1] | {"pid": 0} == {"closed": "killed", "by": None, "primary": True, "pid": 0}
    with launch(config) as job:
        assert job.run_id == handed_on.run_id


def test_courier_delivers_after_ctrl_c(make_config: MakeConfig, server: LinesServer) -> None:
    with launch(make_config(courier="process")) as job:
        role = start_role(job.config, "trainer", end="wait", start_new_session=True, stderr=subprocess.DEVNULL)
        assert role.stdout is not None
        assert role.stdout.readline() == "logged\n"
        os.killpg(role.pid, signal.SIGINT)
        assert finish(role) != 0
    assert axis(server, job, "trainer") == list(range(1, 101))


def test_courier_keeps_no_output_open(make_config: MakeConfig, server: LinesServer, wait_until: Wait) -> None:
    with launch(make_config(courier="process")) as job:
        role = start_role(job.config, "trainer", end="wait", stderr=subprocess.PIPE)
        assert role.stdout is not None
        assert role.stdout.readline() == "logged\n"
        wait_until(lambda: server.seqs("trainer"))
        server.fail("down")
        role.kill()
        assert finish(role, timeout=5.0) == -signal.SIGKILL
        assert courier_pids(job.config, "trainer"), "the courier has outlived the role"
        server.fix("down")
    assert axis(server, job, "trainer")[-1] == 100


def test_forked_child_logs_nothing(make_config: MakeConfig, server: LinesServer) -> None:
    with launch(make_config(courier="process")) as job, open_monitor(job.config, "trainer") as monitor:
        monitor.log({"a": 1}, step=1)
        child = os.fork()
        if child == 0:
            monitor.log({"a": 666}, step=666)
            monitor.close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        monitor.log({"a": 2}, step=2)
    assert axis(server, job, "trainer") == [1, 2]


class Forks:
    """A number that forks while it is read, as an `.item()` that starts a process may."""

    child = 0

    def item(self) -> float:
        Forks.child = os.fork()
        return 2.0


def test_fork_amid_a_row(make_config: MakeConfig, server: LinesServer) -> None:
    with launch(make_config(courier="process")) as job, open_monitor(job.config, "trainer") as monitor:
        for step in (1, 2, 3):
            monitor.log({"a": 1.0}, step=step)
        monitor.log({"a": Forks()}, step=4)
        if Forks.child == 0:
            os._exit(0 if monitor.lost == 1 else 1)
        assert os.waitpid(Forks.child, 0)[1] == 0
        monitor.log({"a": 1.0}, step=5)
        assert monitor.lost == 0
    assert axis(server, job, "trainer") == [1, 2, 3, 4, 5]


def test_couriers_secrets_are_nowhere(make_config: MakeConfig, server: LinesServer, wait_until: Wait) -> None:
    args = {"path": server.path, "api_key": "sk-topsecret"}
    with (
        launch(make_config(courier="process", monitor_args=args)) as job,
        open_monitor(job.config, "trainer", run_config={"key": "sk-topsecret", "api_key": "x"}) as monitor,
    ):
        monitor.log({"a": 1}, step=1)
        wait_until(lambda: courier_pids(job.config, "trainer"))
        (pid,) = courier_pids(job.config, "trainer")
        proc = Path(f"/proc/{pid}")
        assert b"topsecret" not in (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
    written = [path for path in server.path.parent.rglob("*") if path.is_file()]
    assert len(written) > 10
    assert not [path for path in written if b"topsecret" in path.read_bytes()]


def test_command_delivers_after_an_outage(
    make_config: MakeConfig, server: LinesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(courier="process")
    job = launch(config)
    server.fail("down")
    role = start_role(job.config, "trainer", end="wait")
    assert role.stdout is not None
    assert role.stdout.readline() == "logged\n"
    for pid in courier_pids(job.config, "trainer"):
        os.kill(pid, signal.SIGKILL)
    role.kill()
    role.communicate()
    job.close("failed", timeout=0.1)
    for pid in courier_pids(job.config, "@launch"):
        os.kill(pid, signal.SIGKILL)
    deliver = [sys.executable, "-m", "rolecall", "deliver", str(config.monitor_dir)]
    first = subprocess.run([*deliver, "--timeout", "1"], capture_output=True, text=True, check=False)
    assert first.returncode == 1
    assert "100 rows are not in lines" in first.stderr
    server.fix("down")
    for _ in range(2):
        again = subprocess.run(deliver, capture_output=True, text=True, check=False)
        assert (again.returncode, again.stdout) == (0, "all rows are delivered\n"), again.stderr
    assert axis(server, job, "trainer") == list(range(1, 101))
    assert [line["closed"] for line in server.lines() if line.get("by") is None and "closed" in line] == ["failed"]


def test_job_is_copied_elsewhere(make_config: MakeConfig, server: LinesServer) -> None:
    config = make_config(courier="process", monitor_type="local", monitor_args={})
    with launch(config) as job:
        assert finish(start_role(job.config, "trainer")) == 0
    args = json.dumps({"path": str(server.path)})
    deliver = [sys.executable, "-m", "rolecall", "deliver", str(config.monitor_dir), "--to", "lines", "--args", args]
    done = subprocess.run(deliver, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "all rows are delivered\n"), done.stderr
    assert axis(server, job, "trainer") == list(range(1, 101))
    assert [line["closed"] for line in server.lines() if line.get("primary") and "closed" in line] == ["finished"]


def test_arguments_from_the_environment(make_config: MakeConfig, server: LinesServer) -> None:
    config = make_config(courier="process", monitor_type="local", monitor_args={})
    with launch(config) as job:
        assert finish(start_role(job.config, "trainer")) == 0
    secret = json.dumps({"path": "/nowhere", "api_key": "sk-topsecret"})
    command = [sys.executable, "-m", "rolecall", "deliver", str(config.monitor_dir), "--to", "lines"]
    done = subprocess.run(
        [*command, "--args", json.dumps({"path": str(server.path)})],
        env={**os.environ, "ROLECALL_ARGS": secret},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "all rows are delivered\n"), done.stderr
    assert axis(server, job, "trainer") == list(range(1, 101))
    broken = subprocess.run(
        command, env={**os.environ, "ROLECALL_ARGS": "[1]"}, capture_output=True, text=True, check=False
    )
    assert broken.returncode == 2
    assert broken.stderr.startswith("rolecall: ROLECALL_ARGS: must be a mapping")


def test_watched_delivery_draws_bars(make_config: MakeConfig, server: LinesServer) -> None:
    config = make_config(courier="process", monitor_type="local", monitor_args={})
    with launch(config) as job:
        assert finish(start_role(job.config, "trainer")) == 0
    script = f"rolecall deliver {config.monitor_dir} --to lines --args '{{path: {server.path}}}'"
    done = subprocess.run(
        [sys.executable, "-c", UNDER_A_TERMINAL, f"{sys.executable} -m {script}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "100/100" in done.stdout
    assert "all rows are delivered" in done.stdout


def test_logging_role_imports_no_sdk(make_config: MakeConfig) -> None:
    script = ROLE + "\nprint(*sys.modules)"
    with launch(make_config(courier="process")) as job:
        role = subprocess.run(
            [sys.executable, "-c", script, "trainer", "", "10", "close"],
            env={**os.environ, **job.config.to_env()},
            capture_output=True,
            text=True,
            check=True,
        )
    loaded = {name.partition(".")[0] for name in role.stdout.split()}
    assert "rolecall" in loaded
    assert loaded & {"wandb", "mlflow", "tensorboardX", "torch", "ray", "numpy", "pandas", "rich"} == set()


def test_hanging_backend_delays_no_end(make_config: MakeConfig, server: LinesServer) -> None:
    with launch(make_config(courier="process")) as job:
        monitor = open_monitor(job.config, "trainer")
        server.fail("hang")
        monitor.log({"a": 1}, step=1)
        start = time.monotonic()
        monitor.close(timeout=1.0)
        assert time.monotonic() - start < 10
        server.fix("hang")


def test_next_launcher_has_the_run(make_config: MakeConfig, server: LinesServer, wait_until: Wait) -> None:
    """The killed one's courier, which waits for a surviving role, makes way and does not end the run."""
    config = make_config(courier="process")
    launcher, first = start_launcher(config)
    survivor = start_role(first, "trainer", end="wait")
    assert survivor.stdout is not None
    assert survivor.stdout.readline() == "logged\n"
    launcher.kill()
    launcher.communicate()
    with launch(config) as job:
        assert job.run_id == first.run_id
        assert job.urls == {"lines": f"lines://{first.run_id}"}
        assert finish(start_role(job.config, "explorer")) == 0
        survivor.kill()
        survivor.communicate()
    ends = [line["closed"] for line in server.lines() if "closed" in line and line["by"] is None]
    assert ends == ["finished"]


@pytest.mark.parametrize("fault", ["down", "none"])
def test_no_courier_outlives_its_directory(
    make_config: MakeConfig, server: LinesServer, wait_until: Wait, fault: str
) -> None:
    job = launch(make_config(courier="process"))
    role = start_role(job.config, "trainer", end="wait")
    assert role.stdout is not None
    assert role.stdout.readline() == "logged\n"
    wait_until(lambda: len(server.seqs("trainer")) == 100)
    pids = [*courier_pids(job.config, "trainer"), *courier_pids(job.config, "@launch")]
    assert len(pids) == 2
    server.fail(fault)
    shutil.rmtree(job.config.monitor_dir)
    role.kill()
    role.communicate()
    job.close(timeout=1.0)
    wait_until(lambda: not [pid for pid in pids if is_running(pid)], 60.0)


def is_running(pid: int) -> bool:
    """Whether it runs; a zombie of ours does not."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(") ")[2][0] not in "ZX"
