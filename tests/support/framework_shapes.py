"""What jobs of three frameworks log. `framework_calls` logs it as their own code does, `framework_jobs` as roles.

=============  ========================================================================================================
slime          624b824: `slime/observability/logging_utils.py`, `wandb_utils.py`, `tensorboard_utils.py`,
               `rollout_metrics.py`; `slime/backends/megatron_utils/model.py`. One key space; steps begin at 0
prime-rl       559b447: `src/prime_rl/monitors/wandb/monitor.py`, `orchestrator/orchestrator.py`, `periodic_logger.py`,
               `trainer/rl/train.py`. One key space, in which two processes log `time/step`; rows without a step
Trinity-RFT    0.6.0: `trinity/utils/monitor.py`, `trainer/trainer.py`, `explorer/explorer.py`. A run for each role; a
               table before the metrics of its step
=============  ========================================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

__all__ = ["SHAPES", "TABLE", "Call", "Shape"]

TABLE: Final = "rollout_examples"
"""What Trinity-RFT calls its table."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call: metrics without their step, or a table."""

    writer: str
    metrics: Mapping[str, float]
    step: int | None = None
    axis: str | None = None
    table: tuple[Mapping[str, str | float], ...] = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """What all processes of a job log, each in its order.

    Attributes:
        name: of the framework.
        calls: what they log.
        prefix: that roles are opened with.
        stepless_axis: where rows without a step are in rolecall.
    """

    name: str
    calls: tuple[Call, ...]
    prefix: str | None
    stepless_axis: str = ""

    @property
    def writers(self) -> list[str]:
        """The processes; the first one opens the framework's own run."""
        return list(dict.fromkeys(call.writer for call in self.calls))

    def of(self, writer: str) -> list[Call]:
        """The calls of a process."""
        return [call for call in self.calls if call.writer == writer]

    def axis_key(self, call: Call) -> str:
        """The metric that has the call's steps, in wandb."""
        return f"{call.axis}/step" if call.axis else "step"

    def stepless_keys(self) -> set[str]:
        """The keys of rows without a step."""
        return {key for call in self.calls if call.step is None for key in call.metrics}


def _slime() -> list[Call]:
    calls = []
    for rollout in range(5):
        calls += [
            Call("actor", {"rollout/raw_reward": rollout / 7, "rollout/response_len/mean": 100.0}, rollout, "rollout"),
            # `compute_perf_metrics_from_samples` and `gather_log_data`: another process, on the same axis
            Call("perf", {"perf/rollout_time": 10 + rollout / 3}, rollout, "rollout"),
            Call("perf", {"perf/tokens_per_gpu_per_sec": 1000.5 * rollout}, rollout, "rollout"),
            # once more at that step, as `log_dict`s of several places are
            Call("actor", {"rollout/log_probs": -rollout / 9}, rollout, "rollout"),
        ]
        calls += [
            Call("actor", {"train/loss": 1 / (step + 1), "train/lr-pg_0": 1e-6}, step, "train")
            for step in range(4 * rollout, 4 * rollout + 4)
        ]
        if rollout % 2 == 0:
            calls.append(Call("actor", {"eval/aime": rollout / 8, "eval/aime-truncated_ratio": 0.0}, rollout, "eval"))
    return calls


def _prime() -> list[Call]:
    calls = []
    for step in range(5):
        calls += [
            Call(
                "orchestrator", {"event_loop_lag/mean": step / 1000, "dispatcher/errored/train": 0.0}, axis="pipeline"
            ),
            Call("orchestrator", {"progress/tokens": 4096.0 * step, "time/step": 30 + step / 3}, step),
            Call("trainer", {"perf/throughput": 1e4 + step, "perf/mfu": 40.5}, step),
            Call("trainer", {"optim/lr": 1e-6, "optim/grad_norm": 1 / (step + 1)}, step),
            Call("trainer", {"time/step": 20 + step / 3, "time/load_data": 0.5}, step),
        ]
    return calls


def _trinity() -> list[Call]:
    calls = []
    examples: tuple[Mapping[str, str | float], ...]
    for step in range(1, 5):
        examples = tuple({"prompt": f"{step} + {at}", "response": "ünï", "reward": at / step} for at in range(2))
        calls += [
            Call("explorer", {"rollout/model_version": step - 1, "rollout/reward/mean": step / 7}, step),
            Call("explorer", {"eval/math/acc@4": step / 9, "time/eval": 3.5}, step),
            Call("trainer", {}, step, table=examples),
            Call("trainer", {"actor/pg_loss": -1 / step, "actor/kl": 0.0}, step),
        ]
    return calls


SHAPES: Final = {
    shape.name: shape
    for shape in (
        Shape("slime", tuple(_slime()), prefix=""),
        Shape("prime-rl", tuple(_prime()), prefix="", stepless_axis="pipeline/step"),
        Shape("trinity", tuple(_trinity()), prefix=None),
    )
}
