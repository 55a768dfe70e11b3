"""Two nodes on one machine: network namespaces with a cable between them, each with a name and mounts of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path


def missing() -> str:
    """What this machine lacks for it, or nothing."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    absent = [program for program in ("ip", "unshare") if shutil.which(program) is None]
    return f"no {', '.join(absent)} on this machine: `apt-get install iproute2 util-linux`" if absent else ""


@dataclass(frozen=True, slots=True)
class Node:
    """One of the two.

    Attributes:
        name: its host's name, and its namespace's.
        address: of its end of the cable.
        hosts: its /etc/hosts, in which both find each other by name.
    """

    name: str
    address: str
    hosts: Path

    def start(
        self, command: Sequence[str], cwd: Path, env: Mapping[str, str], own: Path | None = None
    ) -> subprocess.Popen[str]:
        """Start a command on this node.

        Args:
            command: the command.
            cwd: where.
            env: its environment.
            own: a directory that no other node sees: another filesystem is mounted there.
        """
        mounts = 'mount --bind "$2" /etc/hosts; test -z "$3" || mount -t tmpfs tmpfs "$3"'
        script = f'hostname "$1"; {mounts}; shift 3; exec "$@"'
        shell = ["sh", "-euc", script, "sh", self.name, str(self.hosts), str(own or ""), *command]
        return subprocess.Popen(
            ["ip", "netns", "exec", self.name, "unshare", "--uts", "--mount", *shell],
            cwd=cwd,
            env=dict(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@contextmanager
def two_nodes() -> Iterator[list[Node]]:
    """Make them, and remove them afterwards."""
    # Other tests of this machine may have theirs; a network interface's name has at most 15 characters.
    names = {f"rc{os.getpid()}n{at}": f"10.213.0.{at}" for at in (1, 2)}
    with ExitStack() as undo:
        hosts = Path(undo.enter_context(tempfile.TemporaryDirectory())) / "hosts"
        hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{at} {name}\n" for name, at in names.items()))
        first, second = nodes = [Node(name, address, hosts) for name, address in names.items()]
        for node in nodes:
            _ip("netns", "add", node.name)
            undo.callback(_ip, "netns", "delete", node.name)
        cable = ("name", "cable", "netns", first.name, "type", "veth", "peer", "name", "cable", "netns", second.name)
        _ip("link", "add", *cable)
        for node in nodes:
            _ip("-n", node.name, "address", "add", f"{node.address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                _ip("-n", node.name, "link", "set", device, "up")
        yield nodes


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
