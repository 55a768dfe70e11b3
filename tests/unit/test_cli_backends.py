"""`rolecall backends`: what is installed, whether it shares runs, and if not why."""

from __future__ import annotations

import json
import re
from typing import Any

from inline_snapshot import snapshot
from made_site import Computer

NO = """
@hookimpl
def supports_shared_run(args):
    return SharedRunSupport(supported=False, reason={reason!r})
"""
REASON = (
    "Two processes that write one file tear each other's lines. Set monitor_args.url to a server's address, such as "
    "https://tracker.example.org/a/long/address/that/no/terminal/should/break/in/the/middle, and runs are shared."
)


def listed(computer: Computer) -> dict[str, Any]:
    ran = computer.rolecall("backends", "--json")
    assert (ran.status, ran.err) == (0, "")
    return {one["name"]: one for one in json.loads(ran.out)}


def shown(computer: Computer) -> str:
    ran = computer.rolecall("backends", COLUMNS="80")
    assert (ran.status, ran.err) == (0, "")
    version = listed(computer)["local"]["distribution"].partition(" ")[2]
    text = computer.terminal(ran.out).replace(f"rolecall {version}", "rolecall VERSION")
    return re.sub(r"(?<=\S) {2,}", "  ", text)  # how wide the columns are depends on the version


def test_the_core_alone(computer: Computer) -> None:
    assert shown(computer) == snapshot("""\
console  rolecall VERSION  shared runs
local  rolecall VERSION  shared runs\
""")


def test_every_kind_of_plugin(computer: Computer) -> None:
    computer.site.backend("acme")
    computer.site.backend("alone", supports_shared_run=NO.format(reason=REASON))
    computer.site.backend("old", requires=["old-sdk>=2"])
    computer.site.install("old-sdk", "1.9")
    computer.site.backend("asking", args="class Args(BaseModel):\n    url: str\n    team: str\n    retries: int = 3")
    assert shown(computer) == snapshot("""\
acme  rolecall-acme 1.0  shared runs
alone  rolecall-alone 1.0  no shared runs
         Two processes that write one file tear each other's lines. Set
monitor_args.url to a server's address, such as
https://tracker.example.org/a/long/address/that/no/terminal/should/break/in/the/middle,
and runs are shared.
asking  rolecall-asking 1.0  shared runs: depends
         depends on monitor_args.url, monitor_args.team; set them in a config,
and `rolecall check` says what it does
console  rolecall VERSION  shared runs
local  rolecall VERSION  shared runs
old  rolecall-old 1.0  broken
         backend 'old': rolecall-old 1.0 needs old-sdk>=2, but 1.9 is installed.
To fix it, run: pip install 'old-sdk>=2'\
""")


def test_a_reason_is_one_line(computer: Computer) -> None:
    """The terminal wraps it, so that a command or an address in it can be copied."""
    computer.site.backend("alone", supports_shared_run=NO.format(reason=REASON))
    lines = computer.rolecall("backends", COLUMNS="72").out.splitlines()
    assert [line.strip() for line in lines].count(REASON) == 1


def test_for_scripts_the_reason_is_whole(computer: Computer) -> None:
    computer.site.backend("alone", supports_shared_run=NO.format(reason=REASON))
    assert listed(computer)["alone"] == {
        "name": "alone",
        "distribution": "rolecall-alone 1.0",
        "shared_run": False,
        "reason": REASON,
    }


def test_one_broken_plugin_hides_no_other(computer: Computer) -> None:
    computer.site.backend("acme")
    computer.site.backend("broken", head="raise RuntimeError('half installed')")
    computer.site.backend("doubled")
    computer.site.install("other-doubled", backends={"doubled": "elsewhere"})
    found = listed(computer)
    assert found["acme"]["shared_run"] is True
    assert "RuntimeError: half installed" in found["broken"]["error"]
    assert found["doubled"]["distribution"] in (
        "rolecall-doubled 1.0 and other-doubled 1.0",
        "other-doubled 1.0 and rolecall-doubled 1.0",
    )
    assert "pip uninstall" in found["doubled"]["error"]


def test_name_that_means_none(computer: Computer) -> None:
    computer.site.backend("none")
    assert shown(computer) == snapshot("""\
console  rolecall VERSION  shared runs
local  rolecall VERSION  shared runs
none  rolecall-none 1.0  broken
         nobody can choose it, as monitor_type 'none' turns monitoring off; its
authors must rename it\
""")


def test_default_arguments_that_break_a_hook(computer: Computer) -> None:
    computer.site.backend(supports_shared_run="@hookimpl\ndef supports_shared_run(args): return args.port")
    assert "supports_shared_run failed: AttributeError" in listed(computer)["acme"]["error"]


def test_no_sdk_is_imported(computer: Computer) -> None:
    computer.site.install("acme-sdk", "2.0", acme_sdk="import sys; sys.stderr.write('the SDK was imported')")
    computer.site.backend(
        requires=["acme-sdk>=2"],
        open_run="@hookimpl\ndef open_run(ticket, args):\n    import acme_sdk\n    return acme_sdk.run()",
    )
    assert listed(computer)["acme"]["shared_run"] is True
