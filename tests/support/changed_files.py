"""A role that logs 100 rows a second while its files are changed: python changed_files.py FILESYSTEM CHANGE SERVER.

Runs in a mount namespace of its own (`unshare --mount`), so that it may mount what it needs. Prints one line of JSON:
what was logged, what the backend got, what the role said, and what `rolecall deliver` says afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROWS = 260
AT = 90
"""The number of rows after which the change is made."""
NOBODY = 65534
SKIPPED = 77

ROLE = """
import json, logging, sys, time
from rolecall import open_monitor

class Counting(logging.Handler):
    messages = []
    def emit(self, record):
        if record.levelno >= logging.WARNING:
            self.messages.append(record.getMessage())

if __name__ == "__main__":
    logging.getLogger("rolecall").addHandler(Counting())
    rows, config = int(sys.argv[1]), json.loads(sys.argv[2])
    taken = 0
    with open_monitor(config, "trainer", primary=True) as monitor:
        begin = time.monotonic()
        for step in range(1, rows + 1):
            monitor.log({"loss": 1 / step, "step_time": 0.01}, step=step)
            print(step, flush=True)
            time.sleep(max(0.0, begin + step / 100 - time.monotonic()))
    print(json.dumps({"lost": monitor.lost, "messages": Counting.messages}), flush=True)
"""


def mounted(kind: str, base: Path) -> Path:
    """A directory on the filesystem; small enough to be filled."""
    if kind == "disk":
        base.mkdir(exist_ok=True)
        return base
    root = Path("/mnt")
    run("mount", "-t", "tmpfs", "-o", "size=64m", "rolecall", str(root))
    if kind == "tmpfs":
        place = root / "small"
        place.mkdir()
        run("mount", "-t", "tmpfs", "-o", "size=2m,mode=777", "rolecall", str(place))
        return place
    if kind == "overlay":
        upper = root / "upper"
        upper.mkdir()
        run("mount", "-t", "tmpfs", "-o", "size=2m,mode=777", "rolecall", str(upper))
        for name in ("lower", "upper/files", "upper/work", "merged"):
            (root / name).mkdir(mode=0o777)
        options = f"lowerdir={root}/lower,upperdir={upper}/files,workdir={upper}/work"
        run("mount", "-t", "overlay", "rolecall", "-o", options, str(root / "merged"))
        (root / "merged").chmod(0o777)
        return root / "merged"
    image, place = root / "image", root / "ext4"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    run("mkfs.ext4", "-q", "-m", "0", str(image))
    run("mount", "-o", "loop,errors=remount-ro", str(image), str(place))
    place.chmod(0o777)
    return place


def run(*command: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode:
        skip(f"{' '.join(command)}: {ran.stderr.strip()}")


def skip(reason: str) -> None:
    print(reason)
    sys.exit(SKIPPED)


def cut(fraction: float) -> Callable[[Path, Path], None]:
    def change(journal: Path, _: Path) -> None:
        os.truncate(journal, int(journal.stat().st_size * fraction))

    return change


def copytruncate(journal: Path, _: Path) -> None:
    shutil.copy(journal, journal.with_suffix(".jsonl.1"))
    os.truncate(journal, 0)


def rename(journal: Path, _: Path) -> None:
    journal.rename(journal.with_suffix(".jsonl.1"))


def rotate(journal: Path, _: Path) -> None:
    """As logrotate's default does."""
    journal.rename(journal.with_suffix(".jsonl.1"))
    journal.touch()


def sed(journal: Path, _: Path) -> None:
    run("sed", "-i", "s/loss/loss/", str(journal))


def rename_directory(_: Path, directory: Path) -> None:
    directory.rename(directory.with_name("moved"))


def remove_directory(_: Path, directory: Path) -> None:
    while directory.exists():  # a courier may write there meanwhile
        shutil.rmtree(directory, ignore_errors=True)


def remove_journal(journal: Path, _: Path) -> None:
    shutil.rmtree(journal.parent)


def back_up(journal: Path, directory: Path) -> None:
    run("cp", "-al", str(directory), str(directory.with_name("backup")))
    time.sleep(0.3)
    journal.unlink()


def chown(_: Path, directory: Path) -> None:
    run("chown", "-R", str(NOBODY), str(directory))


def fill(_: Path, directory: Path) -> None:
    filler = directory.with_name("filler")
    try:
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while file.write(b"x" * size) == size:
                        pass
                except OSError:
                    continue
        time.sleep(1.0)
    finally:
        filler.unlink()


def remount(_: Path, directory: Path) -> None:
    """Read-only, as ext4 does by itself after an error; the kernel refuses it to a person while a file is written."""
    device = subprocess.run(
        ["findmnt", "-n", "-o", "SOURCE", "-T", str(directory)], capture_output=True, text=True, check=True
    ).stdout.strip()
    trigger = Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error")
    try:
        trigger.write_text("test")
    except OSError as error:
        skip(f"{trigger}: {error.strerror}")


CHANGES: dict[str, Callable[[Path, Path], None]] = {
    "truncate_to_0": cut(0),
    "truncate_to_half": cut(0.5),
    "copytruncate": copytruncate,
    "rename": rename,
    "rotate": rotate,
    "sed": sed,
    "rename_directory": rename_directory,
    "remove_directory": remove_directory,
    "remove_journal": remove_journal,
    "hard_link_and_removal": back_up,
    "chown": chown,
    "full_disk": fill,
    "read_only": remount,
}


def main(kind: str, change: str, server: Path, is_slow: bool) -> None:
    base = mounted(kind, server.parent / "disk")
    directory = base / "monitor"
    config = {
        "project": "faults",
        "name": change,
        "monitor_type": "lines",
        "monitor_args": {"path": str(server)},
        "monitor_dir": str(directory),
    }
    # Root without capabilities is a user like any other.
    drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if change == "chown" else []
    role = subprocess.Popen(
        [*drop, sys.executable, "-c", ROLE, str(ROWS), json.dumps(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=base,
    )
    assert role.stdout is not None
    for line in role.stdout:
        if int(line) == AT:
            break
    if is_slow:
        (server / "hang").write_text("log")
        time.sleep(0.5)
    CHANGES[change](directory / "journal" / "trainer" / "1.jsonl", directory)
    if is_slow:
        time.sleep(1.5)
        (server / "hang").unlink()
    out, err = role.communicate(timeout=60)
    said = json.loads(out.splitlines()[-1]) if role.returncode == 0 else {}
    places = [path for path in (directory, directory.with_name("moved")) if (path / "run.json").exists()]
    delivers = [
        subprocess.run(
            [sys.executable, "-m", "rolecall", "deliver", str(path), "--timeout", "20"],
            capture_output=True,
            text=True,
            check=False,
        )
        for path in places
    ]
    steps = [
        json.loads(line)["step"]
        for path in server.glob("*.jsonl")
        for line in path.read_text().splitlines()
        if '"metrics"' in line
    ]
    result = {
        **said,
        "status": role.returncode,
        "errors": err[-2000:],
        "logged": ROWS,
        "steps": steps,
        "delivers": [(ran.returncode, ran.stdout + ran.stderr) for ran in delivers],
        "log": "\n".join(path.read_text()[-1500:] for path in directory.glob("courier/*.log")),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:] == ["slow"])
