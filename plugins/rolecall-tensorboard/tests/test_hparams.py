"""What TensorBoard's HParams tab lists, asked of TensorBoard itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams.api_pb2 import (
    STATUS_FAILURE,
    STATUS_RUNNING,
    STATUS_SUCCESS,
    STATUS_UNKNOWN,
    ListSessionGroupsRequest,
)
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler

from rolecall import MonitorConfig, Row, RunTicket, launch, open_monitor
from rolecall_tensorboard import plugin
from rolecall_tensorboard.args import TensorBoardArgs
from rolecall_tensorboard.records.hparams import LONGEST, hyperparameters
from rolecall_tensorboard.run import TensorBoardRun

STATES = [STATUS_UNKNOWN, STATUS_SUCCESS, STATUS_FAILURE, STATUS_RUNNING]
OpenRun = Callable[..., TensorBoardRun]
MakeRow = Callable[..., Row]


def listed(directory: Path) -> dict[str, tuple[dict[str, Any], dict[str, float]]]:
    """The hyperparameters and the metrics of each line of the tab."""
    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(directory))
    multiplexer.Reload()
    context = Context(TBContext(data_provider=MultiplexerDataProvider(multiplexer, str(directory))))
    request = ListSessionGroupsRequest(allowed_statuses=STATES, start_index=0, slice_size=100, include_metrics=True)
    answer = Handler(RequestContext(), context, "", request).run()
    return {
        group.name: (
            {key: getattr(value, value.WhichOneof("kind")) for key, value in group.hparams.items()},
            {metric.name.tag: metric.value for metric in group.metric_values},
        )
        for group in answer.session_groups
    }


def test_tab_lists_jobs_and_roles(tmp_path: Path) -> None:
    """Two jobs in one directory, with the config of each and the last value of what they logged."""
    logs = tmp_path / "logs"
    for name, rate in (("grpo-1", 1e-6), ("grpo-2", 2e-6)):
        config = MonitorConfig(
            project="gsm8k",
            name=name,
            monitor_type="tensorboard",
            monitor_args={"tensorboard": {"log_dir": str(logs)}},
            monitor_dir=tmp_path / name,
            courier="thread",
        )
        with launch(config, run_config={"optim": {"lr": rate}}) as job:
            with open_monitor(job.config, "explorer", 0, run_config={"temperature": 0.5}) as monitor:
                monitor.log({"reward": 0.25}, 1)
            with open_monitor(job.config, "trainer") as monitor:
                monitor.log({"loss": 0.5}, 1)
    assert listed(logs) == {
        f"{name}/{role}": ({"job": name, "role": role, "optim.lr": rate, **own}, metrics)
        for name, rate in (("grpo-1", 1e-6), ("grpo-2", 2e-6))
        for role, own, metrics in (
            ("explorer/0", {"temperature": 0.5}, {"reward": 0.25}),
            ("trainer", {}, {"loss": 0.5}),
        )
    }


def test_config_survives_a_restart(open_run: OpenRun, row: MakeRow, folder: Path) -> None:
    """TensorBoard drops what was before a restart, and the config with it."""
    for session in (1, 2):
        run = open_run(lr=0.5)
        run.log([row(seq, session=session) for seq in (1, 2)])
        run.flush(1.0)
        run.close("failed")
    assert [found["lr"] for found, _ in listed(folder).values()] == [0.5]


def test_rows_after_a_restart_are_counted(open_run: OpenRun, row: MakeRow) -> None:
    """The record of the config is none of the rows."""
    for session in (1, 2):
        run = open_run()
        run.log([row(seq, session=session) for seq in (1, 2, 3)])
        run.close("failed")
    assert open_run().held("explorer/0", 1) == open_run().held("explorer/0", 2) == [(1, 3)]


@pytest.mark.parametrize(
    ("config", "shown"),
    [
        ({"optim": {"lr": 0.1, "betas": [0.9, 0.95]}}, {"optim.lr": 0.1, "optim.betas": "[0.9, 0.95]"}),
        ({"batch": 8, "amp": True, "model": "qwen"}, {"batch": 8.0, "amp": True, "model": "qwen"}),
        ({"nothing": None, "empty": {}}, {"empty": "{}"}),
        ({"seed": 10**400}, {"seed": str(10**400)[:LONGEST]}),
        ({"limit": float("inf")}, {"limit": "inf"}),
        ({"prompt": "x" * 1000, "half": "\ud800"}, {"prompt": "x" * LONGEST, "half": "\\ud800"}),
        ({"role": "ours"}, {"role": "ours"}),
        ({}, {}),
    ],
)
def test_values_of_a_config(config: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
    labels = {"job": "grpo-1", "role": "trainer"}
    assert hyperparameters(config, labels) == {**labels, **shown}


def test_odd_config_warns_of_nothing(
    ticket: Callable[..., RunTicket], folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        plugin.open_run(ticket(nan=float("nan"), half="\ud800", **{"": 1}), TensorBoardArgs()).close("finished")
    assert not caplog.messages
    ((shown, _),) = listed(folder).values()
    assert shown == {"job": "grpo-1_explorer_0", "role": "explorer/0", "nan": "nan", "half": "\\ud800", "": 1.0}
