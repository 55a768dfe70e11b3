"""The one process beside `rolecall.init`."""

from __future__ import annotations

import pytest
from made_site import PARTS, Computer

pytestmark = pytest.mark.processes

NOTED = """
        import atexit, os, sys, time

        def note(word):
            with open("noted", "a") as file:
                file.write(f"{word} {os.getpid()}\\n")

        @hookimpl
        def prepare(ticket, args):
            note("prepared")
            sys.stdout.write("said at the end of a line")  # buffered, as standard output is a file

        def end():
            time.sleep(0.5)
            note("ended")
"""


def test_it_prepares_and_opens_and_ends_as_the_sdk_wants(computer: Computer) -> None:
    opened = PARTS["open_run"].replace("return Run()", 'note("opened"); atexit.register(end); return Run()')
    computer.site.backend(prepare=NOTED, open_run=opened)
    code = 'import rolecall; run = rolecall.init("p", monitor_type="acme", monitor_dir="job"); run.finish()'
    ran = computer.python("-c", code, ROLECALL_LOG="debug")
    assert ran.status == 0, ran.err
    noted = [line.split() for line in (computer.home / "noted").read_text().splitlines()]
    assert [word for word, _ in noted] == ["prepared", "opened", "ended"]
    assert len({process for _, process in noted}) == 1
    assert "said at the end of a line" in (computer.home / "job/courier/main.log").read_text()
    assert not (computer.home / "job/courier/@launch.log").exists()
