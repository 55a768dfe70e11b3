"""Runs on a server: an emulator, as there is no other on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from swanlab_server import API_KEY, SwanlabServer

from rolecall import BackendRefused, Media, Row, RunGone, RunTicket, TableData, Unavailable
from rolecall_swanlab import plugin
from rolecall_swanlab.args import SwanlabArgs

pytestmark = pytest.mark.processes

Open = Callable[..., Any]
MakeRow = Callable[..., Row]


def test_flushed_rows_are_on_the_server(online: Open, server: SwanlabServer, row: MakeRow) -> None:
    run = online()
    run.log([row(seq, {"reward": seq / 2, "nan": float("nan")}) for seq in range(1, 101)])
    run.flush(20.0)
    held = server.experiments["k3x9"]
    assert held.points("reward") == [(seq, seq / 2) for seq in range(1, 101)]
    assert held.points("nan")[0] == (1, "nan")
    assert held.scalars[0]["create_time"] == "2023-11-14T22:13:21Z"
    assert held.state == "RUNNING"


def test_run_has_name_config_and_address(online: Open, server: SwanlabServer) -> None:
    run = online(tags=("a",))
    run.merge_config({"explorer/0": {"lr": 0.2}})
    run.close("failed")
    held = server.experiments["k3x9"]
    assert (held.body["name"], held.body["cluster"], held.body["labels"]) == ("grpo-1", "grpo", [{"name": "a"}])
    assert {key: each["value"] for key, each in held.config.items()} == {"lr": 0.1, "explorer/0": {"lr": 0.2}}
    assert held.state == "CRASHED"
    assert run.url == f"{server.url}/@ada/gsm8k/runs/k3x9"


def test_only_the_primary_ends_a_shared_run(online: Open, server: SwanlabServer, row: MakeRow) -> None:
    primary = online(shared=True, writer=None)
    joined = online(shared=True, primary=False, backend_run_id="k3x9")
    joined.log([row(1, {"explorer/0/reward": 0.5})])
    joined.close("failed")
    held = server.experiments["k3x9"]
    assert (held.points("explorer/0/reward"), held.state) == ([(1, 0.5)], "RUNNING")
    primary.close("finished")
    assert held.state == "FINISHED"


def test_axes_are_on_the_server(online: Open, server: SwanlabServer, row: MakeRow) -> None:
    run = online(shared=True)
    run.define({"trainer/loss": "trainer/step"})
    run.log([row(1, {"trainer/loss": 0.5, "trainer/step": 1, "other": 1.0})])
    run.flush(20.0)
    assert server.series["trainer/loss"]["xAxis"] == "trainer/step"
    assert "xAxis" not in server.series["other"]


def test_media_and_tables_are_uploaded(online: Open, server: SwanlabServer, row: MakeRow, tmp_path: Path) -> None:
    file = tmp_path / "image"
    file.write_bytes(b"some bytes")
    run = online()
    run.log_media(row(1, {}, media=(Media(key="m", kind="image", path=file, mime="image/png", caption="one"),)))
    run.log_table(row(2, {}, table=TableData(name="t", columns=("a",), rows=((1,),))))
    run.flush(20.0)
    image, table = server.experiments["k3x9"].media
    assert (image["key"], image["index"], image["more"]) == ("m", 1, [{"caption": "one"}])
    assert server.files[image["data"][0]] == b"some bytes"
    assert b'"rowData"' in server.files[table["data"][0]]


def test_rows_that_come_again_are_there_once(online: Open, server: SwanlabServer, row: MakeRow) -> None:
    """After a kill, say: the SDK asks the server for the last step of each key."""
    for last in (10, 15):
        run = online()
        run.log([row(seq) for seq in range(1, last + 1)])
        run.flush(20.0)
    assert server.experiments["k3x9"].points("reward") == [(seq, seq / 2) for seq in range(1, 16)]


def test_rows_are_sent_after_an_outage(online: Open, server: SwanlabServer, row: MakeRow) -> None:
    run = online()
    server.refuse = 503
    run.log([row(1)])
    with pytest.raises(Unavailable, match="did not take all rows"):
        run.flush(0.5)
    server.refuse = 0
    run.log([row(1), row(2)])
    run.flush(60.0)
    assert server.experiments["k3x9"].points("reward") == [(1, 0.5), (2, 1.0)]


@pytest.mark.parametrize(("method", "argument"), [("flush", 20.0), ("log", []), ("merge_config", {})])
def test_refused_rows_are_no_held_rows(
    online: Open, server: SwanlabServer, row: MakeRow, method: str, argument: Any
) -> None:
    """The SDK counts them as uploaded; here, the run is opened again and they are sent again."""
    run = online()
    run.log([row(1)])
    run.flush(20.0)
    server.refuse = 401
    run.log([row(2)])
    with pytest.raises(Unavailable, match="refused rows: HTTP 401"):  # noqa: PT012 - whichever call notices it
        while True:
            time.sleep(0.1)
            getattr(run, method)(argument)
    server.refuse = 0
    run.log([row(2), row(3)])
    run.flush(20.0)
    assert server.experiments["k3x9"].points("reward") == [(1, 0.5), (2, 1.0), (3, 1.5)]
    assert server.logins == 2


def test_wrong_key_is_refused(ticket: Callable[..., RunTicket], server: SwanlabServer) -> None:
    with pytest.raises(BackendRefused, match="check if the provided API key is correct"):
        plugin.open_run(ticket(), SwanlabArgs(api_host=server.url, api_key="wrong"))


def test_no_key_is_refused(ticket: Callable[..., RunTicket], server: SwanlabServer) -> None:
    with pytest.raises(BackendRefused, match="API key is required"):
        plugin.open_run(ticket(), SwanlabArgs(api_host=server.url))


def test_server_that_is_away(ticket: Callable[..., RunTicket]) -> None:
    with pytest.raises(Unavailable):
        plugin.open_run(ticket(), SwanlabArgs(api_host="http://127.0.0.1:9", api_key=API_KEY))


def test_deleted_run_is_gone(online: Open, server: SwanlabServer) -> None:
    online().close("finished")
    server.experiments.clear()
    with pytest.raises(RunGone, match="k3x9 does not exist"):
        online(backend_run_id="k3x9")


def test_offline_processes_become_one_run(
    open_run: Open, server: SwanlabServer, row: MakeRow, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `swanlab sync`, also after a role was killed and its last rows were sent again."""
    for writer, last in (("explorer", 10), ("trainer", 20), ("explorer", 15)):
        run = open_run(shared=True, primary=False)
        run.log([row(seq, {f"{writer}/reward": seq / 2}) for seq in range(1, last + 1)])
        run.flush(10.0)
    primary = open_run(shared=True, writer=None)
    primary.close("finished")
    monkeypatch.setenv("SWANLAB_API_KEY", API_KEY)
    monkeypatch.setenv("SWANLAB_API_HOST", server.url)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    subprocess.run(primary.url, shell=True, check=True, timeout=120.0)
    assert list(server.experiments) == ["k3x9"]
    held = server.experiments["k3x9"]
    assert held.points("explorer/reward") == [(seq, seq / 2) for seq in range(1, 16)]
    assert held.points("trainer/reward") == [(seq, seq / 2) for seq in range(1, 21)]
