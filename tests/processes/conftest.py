"""What of this folder runs in each change; `nox -s processes` runs all of it, for minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

KEPT = (
    "test_cell_that_is_run_again",
    "test_command_delivers_after_an_outage",
    "test_courier_delivers_after_ctrl_c",
    "test_couriers_secrets_are_nowhere",
    "test_fork_amid_a_row",
    "test_forked_child_logs_nothing",
    "test_hanging_backend_delays_no_other[log-thread]",
    "test_killed_courier_loses_no_acknowledgement",
    "test_killed_launcher_leaves_roles_alone",
    "test_killed_role_comes_back",
    "test_killed_role_loses_no_row",
    "test_killed_writer_loses_no_row",
    "test_logging_role_imports_no_sdk",
    "test_multiprocessing_roles_share_a_run",
    "test_roles_go_on_without_their_launcher",
    *(
        f"test_rows_arrive_or_are_counted[ext4-{change}]"
        for change in ("truncate_to_half", "sed", "rename_directory", "remove_journal")
    ),
    "test_rows_of_a_killed_role_are_mirrored",
    "test_samples_are_delivered",
    "test_show_on_a_terminal",
    "test_spooled_rows_are_relayed",
    "test_subprocess_roles_share_a_run",
)
"""The kinds of death, end and change that jobs meet most; `faults_smoke` and the docs start processes, too."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.name.startswith(KEPT):
            item.add_marker(pytest.mark.servers)
