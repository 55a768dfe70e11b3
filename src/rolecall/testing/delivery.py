"""Rows: each is held, once, whatever becomes of the courier."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from rolecall.testing.author import Contract
from rolecall.testing.builders import TIME, row
from rolecall.testing.children.nursery import BackendRaised
from rolecall.testing.compare import agree, differences, expected, is_axis, shown
from rolecall.testing.stage import Stage
from rolecall.testing.team import Mode, Team

STEPS = range(1, 41)
MANY_STEPS = range(1, 301)
GONE = "0123456789abcdef0123456789abcdef"


class Delivery(Contract):
    """Tests of rows, in each of the ways in which runs are written."""

    @pytest.fixture(params=["separate", "many", "shared"])
    def team(self, request: pytest.FixtureRequest, stage: Stage) -> Team:
        """Two writers, whose runs are still to be opened."""
        mode: Mode = request.param
        if mode != "separate":
            self.needs(mode)
        return Team(stage, mode)

    def test_holds_every_row_of_every_writer(self, team: Team) -> None:
        """However many come at once."""
        team.open()
        rows = team.rows(MANY_STEPS)
        for part in (MANY_STEPS[:1], MANY_STEPS[1:20], MANY_STEPS[20:]):
            team.deliver([each for each in rows if each.step in part])
        team.close()
        team.holds(rows)

    def test_holds_rows_when_flush_returns(self, team: Team) -> None:
        """What is only in the courier's memory is not held: its process may be killed at any moment."""
        team.open()
        rows = team.rows(STEPS)
        team.deliver([each for each in rows if each.step in STEPS[:20]])
        team.holds([each for each in rows if each.step in STEPS[:20]])
        team.deliver([each for each in rows if each.step in STEPS[20:]])
        team.kill()
        team.holds(rows)

    def test_holds_each_row_once_after_resending(self, team: Team) -> None:
        """Rows come again whose acknowledgement was lost: with `progress` each is there once, else once or more."""
        team.open()
        rows = team.rows(STEPS)
        team.deliver([each for each in rows if each.step in STEPS[:20]])
        team.deliver([each for each in rows if each.step in STEPS[10:20]])
        team.kill()
        team.open()
        team.deliver(rows)
        team.close()
        team.holds(rows, once="progress" in self.can)

    def test_holds_rows_after_its_courier_was_killed(self, team: Team) -> None:
        team.open()
        rows = team.rows(STEPS)
        team.deliver([each for each in rows if each.step in STEPS[:20]])
        team.log([each for each in rows if each.step in STEPS[20:30]])
        team.kill()
        team.open()
        team.deliver([each for each in rows if each.step in STEPS[20:]])
        team.close()
        team.holds(rows, once="progress" in self.can)

    def test_goes_on_in_the_same_run_after_a_restart(self, team: Team) -> None:
        """Also if the run has ended: it has not any more, until it ends again."""
        team.open()
        first, second = team.rows(STEPS[:20]), team.rows(STEPS[20:], session=2)
        team.deliver(first)
        team.close("failed")
        team.open()
        team.log(second)
        if "status" in self.can:
            team.has_status(None)
        team.flush(second)
        team.close()
        team.holds([*first, *second])
        if "status" in self.can:
            team.has_status("finished")

    def test_one_run_takes_rows_of_many_writers(self, stage: Stage) -> None:
        """Numbers of rows and steps repeat from one writer to the other, and from one session to the next."""
        self.needs("many")
        team = Team(stage, "many", ("explorer/0", "explorer/1", "trainer"))
        team.open()
        rows = []
        for session, later in ((1, STEPS[10:20]), (2, STEPS[20:30])):
            # After a restart from a checkpoint steps come again, if the backend takes that.
            made = team.rows(STEPS[:10] if "steps" not in self.cannot else later, session=session)
            rows += made
            for at in (0, 5):
                team.deliver([each for each in made if at < each.seq <= at + 5])
        team.holds(rows)
        team.close()
        team.holds(rows)

    def test_separate_runs_are_apart(self, stage: Stage) -> None:
        team = Team(stage, "separate")
        team.open()
        first, second = (run.id for run in team.runs())
        assert first != second, f"expected two runs, held {first!r} twice"
        rows = team.rows(STEPS[:5])
        team.deliver(rows)
        team.close()
        team.holds(rows)

    def test_a_job_is_delivered(self, stage: Stage) -> None:
        """With `launch`, `open_monitor` and `Monitor.log`, as a user runs it; `rolecall verify` finds all of it."""
        # Two monitors close, each within this, and the job around them returns within the patience of a call.
        shared, patience = "shared" in self.can, self.patience * 0.4
        given = {"folder": str(stage.root / "job"), "shared": shared, "steps": len(STEPS), "patience": patience}
        found = stage.ask("job", is_bare=False, **given)
        left = {writer: rows for writer, rows in found["left"].items() if rows}
        assert not left, f"expected every row to be delivered, held back {left}"
        assert found["problems"] == [], f"rolecall verify: {'; '.join(found['problems'])}"
        for writer, run_id in found["runs"].items():
            run = stage.run(run_id, directory=found["directory"], shared=shared, writers=[*found["runs"]])
            held = stage.points(run)
            metrics = {"reward/mean": [step / 8 for step in STEPS], "loss": [1 / step for step in STEPS]}
            for name, values in metrics.items():
                key = f"{writer}/{name}" if shared else name
                agree(self, {key: held.get(key, [])}, {key: list(zip(STEPS, values, strict=True))})

    def test_confirms_what_it_holds(self, stage: Stage) -> None:
        self.needs("confirmation")
        team = Team(stage, "separate", ("trainer",))
        team.open()
        rows = team.rows(STEPS)
        team.log(rows)
        courier = team.courier("trainer")
        confirmed = stage.until(lambda: courier.call("tend") or courier.call("confirmed", "trainer", 1))
        assert 0 < confirmed <= len(rows), f"expected at most {len(rows)} rows to be confirmed, held {confirmed}"
        courier.child.kill()
        (run,) = team.runs()
        held = stage.points(run)
        for key, points in expected(self, rows[:confirmed]).items():
            lacking, _ = differences(held.get(key, []), points, self.tolerance)
            assert not lacking, f"{key}: confirmed and not held: {shown(lacking)}"

    def test_readback_agrees(self, stage: Stage) -> None:
        """`open_readback` finds what your reader finds, and expects of rows what is there; it changes nothing."""
        self.needs("readback")
        team = Team(stage, "many" if "many" not in self.cannot else "separate", ("trainer",))
        team.open()
        rows = [*team.rows(STEPS), team.row("trainer", {"only once": 0.25}, seq=41, step=41, time=TIME + 41.0625)]
        team.deliver(rows)
        team.close()
        (run,) = team.runs()
        before = stage.points(run)
        ticket = replace(team.courier("trainer").ticket, backend_run_id=run.id)
        found = stage.ask("readback", is_bare=False, ticket=ticket, rows=rows)
        agree(self, _points(found["points"]), before)
        agree(self, _by_key(found["expected"]), before)
        if found["scanned"] is not None:
            scanned = [(key, step, value) for key, (step, value, _) in found["scanned"]]
            agree(self, _by_key(scanned), before)
        agree(self, stage.points(run), before)

    def test_readback_says_what_is_gone(self, stage: Stage) -> None:
        """So that `rolecall verify` does not take a deleted run for one that it cannot read at the moment."""
        self.needs("readback")
        courier = stage.courier()
        courier.open(stage.ticket())
        courier.deliver([row()])
        courier.close()
        known = str(courier.run.id)  # that an id is no string is for another test to say
        gone = known.replace(known[-8:], GONE[:8])
        assert known != gone
        with pytest.raises(BackendRaised) as raised:
            stage.ask(
                "readback", is_bare=False, ticket=replace(courier.ticket, backend_run_id=gone, run_id=GONE), rows=[]
            )
        assert "RunGone" in raised.value.kinds, f"expected RunGone, held {raised.value}"


def _points(found: Mapping[str, Any]) -> dict[str, Any]:
    return {key: [(step, value) for step, value, _ in points] for key, points in found.items() if not is_axis(key)}


def _by_key(found: Any) -> dict[str, Any]:
    points: dict[str, Any] = {}
    for key, step, value in found:
        if not is_axis(key):
            points.setdefault(key, []).append((step, value))
    return points
