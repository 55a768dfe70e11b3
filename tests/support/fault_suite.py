"""Puts faults into jobs of real processes, and counts what became of the rows.

    python tests/support/fault_suite.py [--kills 200] [--backend local ...] [--fault kills ...] [--seed 0]
                                               [--json FILE]

For each fault and backend: how often it came, the rows for which `log` returned, how many of them the backend lacks and
how many it has more than once in the end (after `rolecall deliver`), and the longest `log` beside the longest pause of
the control, a loop in the same process that only reads the clock. In scenes with images, each row has a picture, whose
pixels say its step: how many the backend lacks, has more than once, and has damaged or at another step.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from fault_gate import FAULTS
from fault_page import Page
from fault_pictures import Pictures, count_pictures
from fault_places import PLACES, Place
from fault_role import DEATHS, FORKED, SPOILED
from local_postgresql import DATABASE_FAULTS, NotHere

from rolecall import Job, MonitorConfig, launch
from rolecall.store.layout import LAUNCH, Layout
from rolecall.store.lease import newest

__all__ = ["SCENES", "Line", "Scene", "job_on", "main", "run", "table"]

ROLE = Path(__file__).parent / "fault_role.py"
ROOM = 1000
"""Steps of one session."""
PICTURES = 40
"""Rows of a session whose rows have a picture each."""
PHASES = ("append", "send", "acknowledge", "close")


@dataclass(frozen=True, slots=True)
class Line:
    """One fault, in one backend. Times are in ms."""

    fault: str
    backend: str
    times: int
    acknowledged: int
    lost: int
    doubled: int
    longest_log: float
    longest_control: float
    pictures: Pictures | None = None


@dataclass(slots=True)
class Scene:
    """A job on a backend, whose only role may be started again and again, and may log a picture in each row."""

    place: Place
    job: Job
    folder: Path
    rng: random.Random
    media: bool = False
    pages: list[Page] = field(default_factory=list)

    @property
    def config(self) -> MonitorConfig:
        """What roles get."""
        return self.job.config

    def start(self, *options: str, count: int | None = None) -> subprocess.Popen[bytes]:
        """The role's next session."""
        # Pictures take a courier longer: some backends make three requests for each.
        count = count or (PICTURES if self.media else 200)
        number = len(self.pages)
        path = self.folder / f"page{number}"
        self.pages.append(Page(path, count))
        first = str(1 + number * ROOM) if count <= ROOM else "1"
        options = (*options, *(["--media"] if self.media else []))
        command = [sys.executable, str(ROLE), str(path), "--first", first, "--count", str(count), *options]
        return subprocess.Popen(command, env={**os.environ, **self.config.to_env()}, stderr=subprocess.DEVNULL)

    def acknowledged(self) -> set[int]:
        """The steps for which `log` returned."""
        return {1 + at * ROOM + row for at, page in enumerate(self.pages) for row in page.acknowledged()}

    def deliver(self) -> None:
        """Send what is left, as a person would."""
        command = [sys.executable, "-m", "rolecall", "deliver", str(self.config.monitor_dir)]
        deadline = time.monotonic() + 600
        while self.place.monitor_type != "local":
            done = subprocess.run([*command, "--timeout", "120"], capture_output=True, text=True, check=False)
            if "some rows are left" not in done.stdout:  # those that a full disk lost are not
                return
            assert time.monotonic() < deadline, done.stderr

    def line(self, fault: str, times: int) -> Line:
        """Deliver, and count."""
        self.job.close(timeout=60.0)
        self.deliver()
        logged = self.acknowledged()
        held = Counter(self.place.read(self.config))
        assert not [step for step in held if step >= FORKED], "a forked child's rows are there"
        logs, controls = zip(*((page.head()[1], page.head()[2]) for page in self.pages), strict=True)
        return Line(
            fault=f"{fault}, with images" if self.media else fault,
            backend=self.place.name,
            times=times,
            acknowledged=len(logged),
            lost=len(logged - held.keys()),
            doubled=held.total() - len(held),
            longest_log=max(logs) / 1e6,
            longest_control=max(controls) / 1e6,
            pictures=count_pictures(self.place.images(self.config), logged) if self.media else None,
        )


@contextmanager
def job_on(place: Place, folder: Path, seed: int, *, media: bool = False, **settings: Any) -> Iterator[Scene]:
    """A job of its own on a backend."""
    folder.mkdir(parents=True, exist_ok=True)
    directory = Path(str(settings.pop("monitor_dir", folder / "monitor")))
    before = dict(os.environ)
    os.environ.update(place.environment)
    try:
        config = MonitorConfig(
            project="faults",
            name=folder.name,
            monitor_type=place.monitor_type,
            monitor_args=place.args(folder),
            shared_run=place.shared_run,
            monitor_dir=directory,
            **settings,
        )
        with launch(config) as job:
            yield Scene(place, job, folder, random.Random(seed), media)
    finally:
        os.environ.clear()
        os.environ.update(before)


# ----------------------------------------------------------------------- kills


def kills(place: Place, folder: Path, seed: int, times: int, *, media: bool = False) -> Line:
    """SIGKILL of the role, its courier, or both with all their children; spread over four phases."""
    with job_on(place, folder, seed, media=media) as scene:
        for _ in range(times):
            _kill_once(scene)
        role = scene.start()
        role.wait(120)
        return scene.line("SIGKILL", times)


def kills_amid_images(place: Place, folder: Path, seed: int, times: int) -> Line:
    """SIGKILL of the role while it stores a picture: amid its file, before it has its name, and before its row."""
    with job_on(place, folder, seed, media=True) as scene:
        for at in range(times):
            role = scene.start("--die", list(DEATHS)[at % len(DEATHS)])
            assert role.wait(120) == -signal.SIGKILL
        scene.start().wait(120)
        return scene.line("SIGKILL while an image is stored", times)


def spoiled_images(place: Place, folder: Path, seed: int, times: int) -> Line:
    """Files of pictures are removed, cut short and altered after `log` and before they are delivered.

    Their numbers and all other rows are delivered, and each command says what is missing.
    """
    with job_on(place, folder, seed, media=True) as scene:
        assert scene.start("--spoil").wait(120) == 0
        line = scene.line("file removed, cut short, altered", SPOILED)
    said = _command("show", scene)
    assert said.count("its attachment maze-") == SPOILED, said
    if place.monitor_type != "local":
        lost = f"trainer: {SPOILED} rows are not in its journal and may not be in {place.monitor_type}"
        assert lost in (said := _command("deliver", scene)), said
        assert "its attachment maze-" in (said := _command("verify", scene)), said
    assert line.pictures is not None
    assert line.pictures.lost == SPOILED
    return replace(line, pictures=replace(line.pictures, lost=0))


def _command(name: str, scene: Scene) -> str:
    """What a command prints about the job."""
    command = [sys.executable, "-m", "rolecall", name, str(scene.config.monitor_dir)]
    env = {**os.environ, **scene.place.environment}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _kill_once(scene: Scene) -> None:
    phases = PHASES if scene.place.monitor_type != "local" else ("append", "close")
    phase, victim = scene.rng.choice(phases), scene.rng.choice(("role", "courier", "both"))
    role = scene.start()
    _reach(scene, phase, role)
    time.sleep(scene.rng.uniform(0.0, _SPREAD[phase]))
    family = list(_descendants(role.pid))
    for pid in {"role": [role.pid], "courier": family or [role.pid], "both": [role.pid, *family]}[victim]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    role.wait(120)


_SPREAD: Mapping[str, float] = {"append": 0.002, "send": 0.2, "acknowledge": 0.005, "close": 0.2}


def _reach(scene: Scene, phase: str, role: subprocess.Popen[bytes]) -> None:
    """Wait until role or courier is where it is to be killed, and rows are logged; a role that is quicker has ended."""
    page, layout = scene.pages[-1], Layout(scene.config.monitor_dir)
    carrying = layout.delivery(scene.place.monitor_type, "trainer")
    wanted = scene.rng.randrange(1, page.count // 2)
    _wait(lambda: len(page.acknowledged()) >= (1 if phase == "close" else wanted), role)
    said = _size(carrying)
    # the courier looks for rows each 0.1 s, so it sends what was logged just now
    reached: Mapping[str, Callable[[], bool]] = {
        "acknowledge": lambda: _size(carrying) > said,
        "close": lambda: page.head()[0] == 1,
    }
    _wait(reached.get(phase, lambda: True), role)


def _wait(condition: Callable[[], bool], role: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60.0
    while not condition() and role.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)


def _size(directory: Path) -> int:
    session = newest(directory)
    with suppress(FileNotFoundError):
        return session.path.stat().st_size if session else 0
    return 0


def _descendants(pid: int) -> Iterator[int]:
    with suppress(OSError):
        for task in list(Path(f"/proc/{pid}/task").iterdir()):
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from _descendants(child)


# ----------------------------------------------------------------------- relay


def relay_kills(place: Place, folder: Path, seed: int, times: int) -> Line | None:
    """SIGKILL of the role, of the relay that delivers its rows, or of both; another relay is started at once."""
    if place.monitor_type == "local":
        return None
    with job_on(replace(place, shared_run="relay"), folder, seed, courier="none") as scene:
        relay = _start_relay(scene)
        for _ in range(times):
            role, victim = scene.start(), scene.rng.choice(("role", "relay", "both"))
            _reach(scene, "append", role)
            # As long as a relay takes for a look and an acknowledgement.
            time.sleep(scene.rng.uniform(0.0, 1.5))
            if victim != "relay":
                role.kill()
            if victim != "role":
                _signal([relay.pid, *_descendants(relay.pid)], signal.SIGKILL)
                relay.wait()
                relay = _start_relay(scene)
            role.wait(120)
        scene.start().wait(120)
        scene.job.close(timeout=120.0)  # waits for the relay
        relay.wait(120)
        return scene.line("SIGKILL, with a relay", times)


def _start_relay(scene: Scene) -> subprocess.Popen[bytes]:
    """A relay that has begun its work."""
    command = [sys.executable, "-m", "rolecall", "relay", str(scene.config.monitor_dir)]
    relay = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lease = Layout(scene.config.monitor_dir).delivery(scene.place.monitor_type, LAUNCH)

    def is_there() -> bool:
        session = newest(lease)
        owner = session.owner() if session is not None else None
        return owner is not None and owner.pid == relay.pid

    _wait(is_there, relay)
    return relay


# --------------------------------------------------------------------- outages


def outage(fault: str, seconds: float = 5.0, *, media: bool = False) -> Callable[[Place, Path, int, int], Line | None]:
    """A backend that misbehaves several times while a role logs, for a few seconds each time."""

    def scene(place: Place, folder: Path, seed: int, times: int) -> Line | None:
        if fault not in place.faults:
            return None
        rounds, count = max(1, times // 50), 100 if media else 800
        with job_on(place, folder, seed, media=media) as scene:
            for _ in range(rounds):
                role = scene.start("--pace", str(seconds * 1.6 / count), count=count)
                _reach(scene, "append", role)
                with place.faults[fault]():
                    time.sleep(scene.rng.uniform(1.0, 1.2) * seconds)
                role.wait(120)
            return scene.line(fault if fault in DATABASE_FAULTS else f"backend {fault}", rounds)

    return scene


# ---------------------------------------------------------------------- others


def fork(place: Place, folder: Path, seed: int, times: int) -> Line:
    """A child that is forked from a role, logs and ends."""
    rounds = max(1, times // 50)
    with job_on(place, folder, seed) as scene:
        for _ in range(rounds):
            scene.start("--fork").wait(120)
        return scene.line("fork", rounds)


def preempted(place: Place, folder: Path, seed: int, times: int) -> Line | None:
    """SIGTERM to the role and its courier while they drain into a backend that hangs, then SIGKILL."""
    if "hanging" not in place.faults:
        return None
    rounds = max(1, times // 100)
    with job_on(place, folder, seed) as scene:
        for _ in range(rounds):
            role = scene.start()
            _reach(scene, "append", role)
            with place.faults["hanging"]():
                _reach(scene, "close", role)
                family = [role.pid, *_descendants(role.pid)]
                _signal(family, signal.SIGTERM)
                time.sleep(2.0)
                _signal(family, signal.SIGKILL)
            role.wait(120)
        return scene.line("SIGTERM mid-drain", rounds)


def _signal(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def full_disk(place: Place, folder: Path, seed: int, times: int, *, media: bool = False) -> Line | None:
    """The journal's disk is full, amid a picture if there are any, and has room again: rows are acknowledged before and
    after.
    """
    count, pace = (200, "0.05") if media else (8000, "0.001")
    disk = folder / "disk"
    disk.mkdir(parents=True)
    if not _mount("-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)):
        return None
    try:
        with job_on(place, folder, seed, media=media, monitor_dir=disk / "monitor") as scene:
            role = scene.start("--pace", pace, count=count)
            _reach(scene, "append", role)
            filler = disk / "filler"
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            if media:  # room for the start of one
                os.truncate(filler, max(0, filler.stat().st_size - 5 * 4096))
            _until_rows_are_lost(scene)
            filler.unlink()
            role.wait(120)
            assert not all(mark in scene.acknowledged() for mark in range(1, count + 1)), "the disk was never full"
            return scene.line("full disk", 1)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def _until_rows_are_lost(scene: Scene) -> None:
    """Room that a journal had before its disk was full takes some more rows."""
    deadline, before = time.monotonic() + 60, -1
    while (found := len(scene.acknowledged())) != before:
        assert time.monotonic() < deadline, "the disk was never full"
        before = found
        time.sleep(1.0)


def frozen_directory(place: Place, folder: Path, seed: int, times: int, *, relayed: bool = False) -> Line | None:
    """`monitor_dir` is on sshfs, whose server is stopped for some seconds; rows are spooled on the node.

    A role whose rows are relayed has no courier: the node's agent copies what it spooled.
    """
    if relayed:
        if place.monitor_type == "local":
            return None
        place = replace(place, shared_run="relay")
    with mounted_sshfs(folder) as mounted:
        if mounted is None:
            return None
        directory, server = mounted
        with job_on(place, folder, seed, monitor_dir=directory, spool_dir=folder / "spool") as scene:
            role = scene.start("--pace", "0.01", count=800)
            _reach(scene, "append", role)
            server.send_signal(signal.SIGSTOP)
            time.sleep(5.0)
            server.send_signal(signal.SIGCONT)
            role.wait(120)
            role = scene.start("--close", "5")
            _reach(scene, "append", role)
            server.send_signal(signal.SIGSTOP)
            try:
                role.wait(60)  # it ends though the directory does not answer
            finally:
                server.send_signal(signal.SIGCONT)
            return scene.line(f"frozen network directory{', with a relay' if relayed else ''}", 2)


@contextmanager
def mounted_sshfs(folder: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]] | None]:
    """A directory on a network filesystem, and the process that serves it; `None` if sshfs is not there."""
    sftp = Path("/usr/lib/openssh/sftp-server")
    there, here = folder / "served", folder / "mounted"
    for path in (there, here):
        path.mkdir(parents=True)
    try:
        ours, theirs = os.pipe(), os.pipe()
        server = subprocess.Popen([str(sftp)], stdin=ours[0], stdout=theirs[1])
        command = ["sshfs", f":{there}", str(here), "-f", "-o", "passive,attr_timeout=1,entry_timeout=1"]
        client = subprocess.Popen(command, stdin=theirs[0], stdout=ours[1])
    except FileNotFoundError:
        yield None
        return
    try:
        deadline = time.monotonic() + 10.0
        while not os.path.ismount(here) and time.monotonic() < deadline:
            time.sleep(0.05)
        yield (here / "monitor", server) if os.path.ismount(here) else None
    finally:
        subprocess.run(["umount", "-l", str(here)], check=False)
        for process in (client, server):
            process.kill()
            process.wait()


def _mount(*options: str) -> bool:
    return subprocess.run(["mount", *options], capture_output=True, check=False).returncode == 0


# ------------------------------------------------------------------------ table

SCENES: Mapping[str, Callable[[Place, Path, int, int], Line | None]] = {
    "kills": kills,
    "relay kills": relay_kills,
    "kills with images": partial(kills, media=True),
    "kills amid images": kills_amid_images,
    "spoiled images": spoiled_images,
    **{fault: outage(fault) for fault in FAULTS},
    **{fault: outage(fault) for fault in DATABASE_FAULTS},
    "table locked": outage("table locked", 30.0),
    "lost answers with images": outage("lost answers", media=True),
    "full disk": full_disk,
    "full disk with images": partial(full_disk, media=True),
    "frozen directory": frozen_directory,
    "relay frozen directory": partial(frozen_directory, relayed=True),
    "fork": fork,
    "preempted": preempted,
}


def run(backends: Sequence[str], faults: Sequence[str], times: int, seed: int, folder: Path) -> Iterator[Line]:
    """Every fault in every backend that is here, one after the other."""
    for backend in backends:
        home = folder / backend.replace(" ", "-")
        home.mkdir(parents=True)
        with ExitStack() as stack:
            try:
                place = stack.enter_context(PLACES[backend](home))
            except NotHere as why:
                print(f"{backend} is not run: {why}")
                continue
            for fault in faults:
                line = SCENES[fault](place, home / fault.replace(" ", "-"), seed, times)
                if line is None:
                    print(f"{backend}, {fault}: not run; this backend has no such fault, or it needs a mount or sshfs")
                else:
                    yield line


def table(lines: Sequence[Line]) -> str:
    """For the docs."""
    head = "| fault | backend | times | rows acknowledged | lost | doubled | longest `log` | control | pictures |"
    rows = [
        f"| {one.fault} | {one.backend} | {one.times} | {one.acknowledged:,} | {one.lost} | {one.doubled} "
        f"| {one.longest_log:.1f} ms | {one.longest_control:.1f} ms | {one.pictures or ''} |"
        for one in lines
    ]
    return "\n".join([head, "|---|---|" + "---:|" * 7, *rows])


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="how often; other faults come less often")
    parser.add_argument("--backend", nargs="+", choices=PLACES, default=list(PLACES))
    parser.add_argument("--fault", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the lines there too")
    args = parser.parse_args()
    logging.getLogger("rolecall").setLevel(logging.CRITICAL)
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="rolecall-faults-") as folder:
        for line in run(args.backend, args.fault, args.kills, args.seed, Path(folder)):
            lines.append(line)
            print(table([line]).splitlines()[-1], flush=True)
    print("\n" + table(lines))
    if args.json:
        args.json.write_text(json.dumps([asdict(line) for line in lines], indent=1))


if __name__ == "__main__":
    main()
