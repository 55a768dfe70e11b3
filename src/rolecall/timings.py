"""Every time-out, interval and bound of rolecall, in one table.

Times are in seconds. Where OpenTelemetry's SDK has a name for the same thing, it is used here too
(`SCHEDULE_DELAY`, `EXPORT_TIMEOUT`, `MAX_QUEUE_SIZE`).
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to wait before the next try: doubling, up to a limit.

    Attributes:
        initial: the first wait.
        maximum: the longest wait.
        maximum_draining: the longest wait once the writer has ended.
    """

    initial: float
    maximum: float
    maximum_draining: float


# ------------------------------------------------------------------ the role

FILE_CHECK_INTERVAL: Final = 1.0
"""Between a writer's looks whether its file is still where it was, and as long as it was."""
HANDOVER_INTERVAL: Final = 0.001
"""Between a second thread's looks whether the first one has written its row."""
LOSS_INTERVAL: Final = 60.0
"""Without a row that could not be written, until the next one is warned of again."""
NOTICE: Final = 2.0
"""Of waiting, until a process says what it waits for."""
DRAW_INTERVAL: Final = 0.2
"""Between two drawings of a progress bar."""
OPEN_TIMEOUT: Final = 30.0
"""For `launch` and `open_monitor`, to hear of each backend before they go on without; `open_timeout` changes it."""
JOIN_TIMEOUT: Final = 60.0
"""For a role without the launcher's config, to find a launcher, unless `open_timeout` is longer or given to it."""
CLOSE_TIMEOUT: Final = 30.0
"""For `close`, until the couriers have drained."""
FORGOTTEN_TIMEOUT: Final = 5.0
"""The same, for a monitor or job that nobody closed."""
DIRECTORY_TIMEOUT: Final = 5.0
"""For `Job.close`, to read from `monitor_dir` what became of the roles."""
QUIET_TIMEOUT: Final = 10.0
"""For `launch`, until the couriers of an earlier job in the same directory have ended."""

# --------------------------------------------------------------- the courier

POLL_INTERVAL: Final = 0.1
"""Between looks at a journal that had nothing new."""
RELAY_INTERVAL: Final = 0.5
"""The same for a relay, which looks at the journals of all roles. A row is with its backend about that much later."""
ROSTER_INTERVAL: Final = 1.0
"""Between a relay's looks for roles that came or came back."""
LIVENESS_INTERVAL: Final = 2.0
"""Between a relay's looks whether a role is alive."""
SCHEDULE_DELAY: Final = 1.0
"""Between two acknowledgements, at most."""
EXPORT_TIMEOUT: Final = 60.0
"""For a backend, to confirm that it holds what it took."""
READ_BYTES: Final = 1 << 19
"""Of a journal, handed to a backend at once. Between two such batches a courier looks at the time that is left."""
MAX_QUEUE_SIZE: Final = 10_000
"""Rows that are handed over and not acknowledged."""
MAX_QUEUE_BYTES: Final = 64 << 20
"""The same in bytes of a journal, for backends that confirm rows seconds later (wandb: after 5 to 17 s). What is handed
over in that time must fit, or the courier waits; and what its SDK keeps in memory while a server takes nothing must not
hurt."""
RESTART: Final = RetryPolicy(initial=0.5, maximum=30.0, maximum_draining=0.5)
"""Of a courier's process that died, while its role lives."""
RESTART_RESET: Final = 60.0
"""Of life, until the next restart waits as little as the first."""
RETRY: Final = RetryPolicy(initial=0.25, maximum=60.0, maximum_draining=2.0)
DRAIN_TIMEOUT: Final = 120.0
"""For a courier after its writer has ended, while its backend takes nothing."""
PREEMPTION_TIMEOUT: Final = 25.0
"""The same after SIGTERM: schedulers send SIGKILL after 30 s (Slurm's KillWait, Kubernetes' grace period)."""
STATUS_INTERVAL: Final = 0.3
"""Between a launcher's looks at what every role and its courier does."""
SYNC_TIMEOUT: Final = 20.0
"""For the last `fsync`; a slower disk does not hold up the courier's end."""

# ----------------------------------------------------------------- the node

SAMPLE_INTERVAL: Final = 15.0
"""Between two samples of a node, as in wandb's SDK (`x_stats_sampling_interval`, 0.31.0)."""
FIRST_SAMPLE: Final = 1.0
"""Until the first one, so that a short job has some: rates are over that time."""
AGENT_INTERVAL: Final = 0.5
"""Between an agent's looks at the roles of its node, and between two copies of what they spooled."""

# ------------------------------------------------------- without a shared disk

FORWARD_INTERVAL: Final = 0.2
"""Between a forwarder's looks at the journals of its node, while they have nothing new."""
FORWARDER_IDLE: Final = 10.0
"""Without a session on its node, until a forwarder ends."""
HUB_INTERVAL: Final = 1.0
"""Between the hub's looks at what became of nodes and of the launcher."""
HUB_TIMEOUT: Final = 60.0
"""For `launch`, until the hub answers, which has a process of its own to start, unless `open_timeout` is longer."""
HUB_ALONE: Final = 600.0
"""After the death of a launcher, until hub and forwarders give up, if roles still run or rows still wait."""
DYING: Final = 5.0
"""For a process that is about to die, before another one that wants its name is refused."""

# ----------------------------------------------------------------- the lease

HEARTBEAT: Final = 5.0
"""Between two touches of the files of what this process owns."""
STALE: Final = 60.0
"""Without a touch, until an owner on another host counts as dead."""
