"""The metrics of a job as people look at them: the ranks of a role together, what matters first."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from rolecall.cli.view.chart import Curve
from rolecall.errors import ConfigError
from rolecall.job.history import JobHistory, MetricHistory, Statistics, WriterHistory
from rolecall.store.layout import is_node

_FIRST: Final = ("reward", "return", "loss")
"""What people look at first, in this order, on the screen and on the page."""
_WORD: Final = re.compile(rf"(?<![a-z])({'|'.join(_FIRST)})(?:e?s)?(?![a-z])")
"""One of them as a whole word: `rewards/format` is a reward, and `lossless` is no loss."""
_MEANS: Final = 256
"""Points of the mean of several ranks."""
_LAST: Final = re.compile(r"(^|[/_.])(time|timing|perf|system|gpu|cpu|memory)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Metric:
    """One key of a role.

    Attributes:
        role: the role.
        key: the key.
        ranks: its history by writer; several ranks are drawn into one chart.
    """

    role: str
    key: str
    ranks: dict[str, MetricHistory]

    @property
    def name(self) -> str:
        """`explorer/*/reward` of several ranks, `explorer/0/reward` of one."""
        writer = next(iter(self.ranks)) if len(self.ranks) == 1 else f"{self.role}/*"
        return f"{writer}/{self.key}"

    def curves(self) -> list[Curve]:
        """A curve for each rank, labelled with it."""
        names = ((writer.removeprefix(f"{self.role}/"), each) for writer, each in self.ranks.items())
        return [Curve(name, each.steps, each.values) for name, each in names]

    def mean_curve(self, label: str) -> Curve:
        """The mean of all ranks, as one curve; a single rank as it is."""
        if len(self.ranks) == 1:
            (only,) = self.ranks.values()
            return Curve(label, only.steps, only.values)
        points = [pair for each in self.ranks.values() for pair in zip(each.steps, each.values, strict=True)]
        first = min(step for step, _ in points)
        # Not step by step: of a long history, each rank keeps points of its own.
        width = -(-(max(step for step, _ in points) - first + 1) // _MEANS)
        means: dict[int, list[tuple[int, float]]] = defaultdict(list)
        for step, value in points:
            means[(step - first) // width].append((step, value))
        groups = [means[at] for at in sorted(means)]
        steps = [sum(step for step, _ in group) // len(group) for group in groups]
        return Curve(label, steps, [mean([value for _, value in group]) for group in groups])

    def statistics(self) -> list[Statistics]:
        """Of each rank."""
        return [each.statistics() for each in self.ranks.values()]

    def last(self) -> float:
        """The last value; of several ranks the mean of theirs."""
        return mean([each.last for each in self.statistics()])


def role_of(writer: str) -> str:
    """The role of `explorer/0`."""
    return writer.partition("/")[0]


def by_rank(writers: Iterable[WriterHistory]) -> list[WriterHistory]:
    """Writers by role and rank: `explorer/10` comes behind `explorer/9`. Nodes come last, by name."""

    def order(each: WriterHistory) -> tuple[bool, str, int]:
        if is_node(each.writer):
            return True, each.writer, 0
        role, _, rank = each.writer.partition("/")
        return False, role, int(rank or -1)

    return sorted(writers, key=order)


def standing(key: str) -> int:
    """A metric's place by the words of its key: rewards, returns and losses, then others, and timings last."""
    lowered = key.lower()
    late = len(_FIRST) + (_LAST.search(lowered) is not None)
    return min(map(_FIRST.index, _WORD.findall(lowered)), default=late)


def metrics_of(jobs: Sequence[JobHistory], patterns: Sequence[str] = ()) -> list[list[Metric]]:
    """The metrics of each job whose `{writer}/{key}` matches a pattern, or all; those that matter most come first.

    Raises:
        ConfigError: none matches in any job.
    """
    found = [_matching(job, patterns or ("*",)) for job in jobs]
    if patterns and not any(found):
        names = (f"{each.writer}/{key}" for job in jobs for each in job.writers for key in sorted(each.metrics))
        known = ", ".join(dict.fromkeys(names)) or "none yet"
        raise ConfigError(f"--metric {' '.join(patterns)}: no metric matches; the metrics are {known}")
    return [_in_order(metrics) for metrics in found]


def _matching(job: JobHistory, patterns: Sequence[str]) -> list[Metric]:
    found: dict[tuple[str, str], dict[str, MetricHistory]] = defaultdict(dict)
    for each in by_rank(job.writers):
        for key, history in each.metrics.items():
            if any(fnmatchcase(f"{each.writer}/{key}", pattern) for pattern in patterns):
                found[role_of(each.writer), key][each.writer] = history
    return [Metric(role, key, ranks) for (role, key), ranks in found.items()]


def mean(values: Sequence[float]) -> float:
    """The mean of finite values; one that is not finite if there is no other. A single value stays as it is."""
    finite = [value for value in values if math.isfinite(value)] or values
    if len(set(finite)) == 1:
        return finite[0]
    return math.fsum(value / len(finite) for value in finite)


def _in_order(metrics: list[Metric]) -> list[Metric]:
    # A mean before a minimum, `loss` before `loss/policy`.
    plain = sorted(metrics, key=lambda each: ("mean" not in each.key, each.key.count("/"), each.key, each.role))
    counts: dict[tuple[str, int], int] = defaultdict(int)
    ranked = []
    for at, each in enumerate(plain):
        word = standing(each.key)
        is_first = word < len(_FIRST)
        # The first reward of each role, the first return, the first loss, and only then the second ones.
        nth = counts[each.role, word] if is_first else 0
        counts[each.role, word] += 1
        is_point = all(len(rank.steps) == 1 for rank in each.ranks.values())  # is no curve
        is_of_nodes = all(map(is_node, each.ranks))  # nobody looks at those first
        ranked.append(((is_of_nodes, is_point, not is_first, nth, word, at), each))
    return [each for _, each in sorted(ranked, key=lambda pair: pair[0])]
