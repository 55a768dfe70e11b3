"""A real Slurm cluster of two nodes on this machine: munged, slurmctld and two slurmd, all on loopback."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
NODES = ("n1", "n2")
# `config_overrides`: a node takes the CPUs that it is told, not those of this machine.
# `cred_expire` is also how long a job waits after `scontrol requeue`: 120 s by default, plus one (Slurm 22.05).
CONF = """\
ClusterName=rolecall
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
SlurmdTimeout=300
MessageTimeout=60
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4 State=UNKNOWN
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """Which of Slurm's programs are not on this machine."""
    return [program for program in PROGRAMS if _path(program) is None]


@dataclass(frozen=True, slots=True)
class Slurm:
    """A running cluster.

    Attributes:
        folder: its configuration, state and logs.
    """

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What Slurm's commands need to find it."""
        # A job of Slurm's has these, and `sbatch` would take its options from them.
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        return {**clean, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def run(self, *command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
        """What one of its commands prints."""
        done = subprocess.run(
            command,
            cwd=cwd,
            env={**self.environment, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}"
        return done.stdout

    def submit(self, script: str, cwd: Path, env: Mapping[str, str] | None = None) -> str:
        """The number of a job that runs a script."""
        return self.run("sbatch", "--parsable", script, cwd=cwd, env=env).strip()

    def state(self, job: str) -> str:
        """`PENDING`, `RUNNING`, `COMPLETED` and so on."""
        return self._field(f"job {job}", "JobState")

    def wait_ended(self, job: str) -> None:
        """Wait until a job has ended."""
        self.wait(lambda: self.state(job) not in ("PENDING", "RUNNING", "COMPLETING"))

    def wait(self, until: Callable[[], bool], timeout: float = 300.0) -> None:
        """Wait for a condition, with a deadline; fails with what the daemons logged."""
        deadline = time.monotonic() + timeout
        while not until():
            assert time.monotonic() < deadline, self._logs()
            time.sleep(0.2)

    def is_up(self) -> bool:
        """Whether both nodes wait for work."""
        try:
            return all(self._field(f"node {node}", "State") == "IDLE" for node in NODES)
        except AssertionError:  # slurmctld does not answer yet
            return False

    def _field(self, of: str, name: str) -> str:
        words = self.run("scontrol", "show", "--oneliner", *of.split()).split()
        return next(word.partition("=")[2] for word in words if word.startswith(f"{name}="))

    def _logs(self) -> str:
        return "\n".join(f"--- {path}\n{path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))


@contextmanager
def cluster(folder: Path) -> Iterator[Slurm]:
    """Start one, and stop it with all its jobs. The folder's path is at most 80 characters, as sockets are there."""
    folder.chmod(0o755)  # munged refuses a socket that not everybody can reach
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    text = CONF.format(host=host, user=getpass.getuser(), folder=folder, ports=_ports(3))
    (folder / "slurm.conf").write_text(text)
    slurm = Slurm(folder)
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
    with ExitStack() as daemons:
        _start(slurm, daemons, "munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge)
        slurm.wait((folder / "munge.socket").exists)
        _start(slurm, daemons, "slurmctld", "-D")
        for node in NODES:
            (folder / f"spool-{node}").mkdir()
            _start(slurm, daemons, "slurmd", "-D", "-N", node)
        slurm.wait(slurm.is_up)
        yield slurm
        slurm.run("scancel", f"--user={getpass.getuser()}")


def _start(slurm: Slurm, daemons: ExitStack, program: str, *arguments: str) -> None:
    path = _path(program)
    assert path is not None
    name = "-".join((program, *(argument for argument in arguments if argument in NODES)))
    log = daemons.enter_context((slurm.folder / f"{name}.log").open("w"))
    daemon = subprocess.Popen([path, *arguments], env=slurm.environment, stdout=log, stderr=subprocess.STDOUT)
    daemons.callback(_stop, daemon)


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(20.0)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _path(program: str) -> str | None:
    # Debian has the daemons in /usr/sbin, which is not on every user's path
    return shutil.which(program, path=os.pathsep.join((os.environ["PATH"], "/usr/sbin")))


def _ports(count: int) -> list[int]:
    """Free ones, all different."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
