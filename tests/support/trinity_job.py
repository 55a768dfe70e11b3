"""Starts Trinity-RFT as `trinity run` does, with an explorer and a trainer that need no model.

`python trinity_job.py CONFIG...` starts it with one config after the other.

Trinity's own are its command line's `run`, its loading of the config, its registry of monitors, the monitors and its
launcher's modes, which start Ray actors and call them. These are replaced, as they need GPUs or a model's files:

==========================================  =========================================================================
`Explorer` and `Trainer`                    those below: async actors with the same methods, which open and call a
                                            monitor as Trinity's do
`check_and_run_task_pipeline`               nothing to prepare, as in a config without a `task_pipeline`
`Synchronizer`                              nothing: without NCCL, the launcher only imports it
validators of the config                    those in `VALIDATORS` stay; the others look for a model and GPUs
==========================================  =========================================================================
"""

from __future__ import annotations

import os
import signal
import sys
from types import ModuleType
from typing import Any, Final

import pandas as pd
import ray
from framework_shapes import SHAPES, TABLE
from ray.cluster_utils import Cluster
from ray_roles import add_node

SHAPE: Final = SHAPES["trinity"]
DIES: Final = "TRINITY_JOB_DIES"
"""Variable of the environment: the role that is killed behind its second step."""
VALIDATORS: Final = ("GlobalConfigValidator", "MonitorConfigValidator", "SynchronizerConfigValidator")


class Role:
    """A monitor, opened and called as Trinity 0.6.0 does in `Explorer` and `Trainer`."""

    def __init__(self, config: Any) -> None:
        from trinity.utils.monitor import MONITOR
        from trinity.utils.plugin_loader import load_plugins

        load_plugins()
        self.role = self.name_in(config)
        self.monitor = MONITOR.get(config.monitor.monitor_type)(
            project=config.project, group=config.group, name=config.name, role=self.role, config=config
        )

    @staticmethod
    def name_in(config: Any) -> str:
        """The role's name."""
        raise NotImplementedError

    @classmethod
    def get_actor(cls, config: Any) -> Any:
        """The actor, as Trinity's own method makes it."""
        made = ray.remote(cls).options(name=cls.name_in(config), namespace=config.ray_namespace, num_cpus=0.1)
        return made.remote(config)

    async def prepare(self) -> None:
        """There is no model to load."""

    async def sync_weight(self) -> None:
        """There are no weights."""

    async def shutdown(self) -> None:
        """As in Trinity: whether something raised or not."""
        self.monitor.close()

    def work(self, writer: str) -> str:
        """Log all steps of one of the shape's writers."""
        for call in SHAPE.of(writer):
            if call.table:
                self.monitor.log_table(TABLE, pd.DataFrame(call.table), call.step)
            else:
                self.monitor.log(dict(call.metrics), call.step)
            if call.step == 2 and os.environ.get(DIES) == self.role:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.role


class Explorer(Role):
    """In place of `trinity.explorer.explorer.Explorer`."""

    @staticmethod
    def name_in(config: Any) -> str:
        """The role's name."""
        return str(config.explorer.name)

    async def explore(self) -> str:
        """Explore."""
        return self.work("explorer")

    async def benchmark(self) -> bool:
        """Evaluate."""
        self.monitor.log({"bench/math/acc@4": 0.5}, step=0)
        return True


class Trainer(Role):
    """In place of `trinity.trainer.trainer.Trainer`."""

    @staticmethod
    def name_in(config: Any) -> str:
        """The role's name."""
        return str(config.trainer.name)

    async def train(self) -> str:
        """Train."""
        return self.work("trainer")


def replace() -> None:
    """Put all that is replaced in its place."""
    import trinity_job  # not `__main__`, so that Ray's workers import the classes by name

    replaced: dict[str, dict[str, Any]] = {
        "trinity.explorer.explorer": {"Explorer": trinity_job.Explorer},
        "trinity.trainer.trainer": {"Trainer": trinity_job.Trainer},
        "trinity.manager.synchronizer": {"Synchronizer": None},
        "trinity.buffer.pipelines.task_pipeline": {"check_and_run_task_pipeline": lambda _: {}},
    }
    for name, found in replaced.items():
        # the packages around them import what they need in turn
        package = name.rpartition(".")[0]
        while package != "trinity":
            sys.modules[package] = ModuleType(package)
            package = package.rpartition(".")[0]
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(found)

    from trinity.common import config_validator

    config_validator.validators = [each for each in config_validator.validators if type(each).__name__ in VALIDATORS]


def main(*configs: str) -> None:
    """Run one config after the other on a cluster that Trinity's launcher finds by itself."""
    replace()
    from trinity.cli import launcher

    cluster = Cluster()
    try:
        add_node(cluster)
        os.environ["RAY_ADDRESS"] = cluster.address
        for config in configs:
            launcher.run(config)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
