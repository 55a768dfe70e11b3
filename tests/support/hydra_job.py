"""A job whose config Hydra composes: gradient descent on a parabola, in one role."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from rolecall import launch, open_monitor
from rolecall.integrations.hydra import register

register()
STEPS = 5


def losses(rate: float) -> list[float]:
    """The losses of gradient descent."""
    x, found = 1.0, []
    for _ in range(STEPS):
        x -= rate * 2 * x
        found.append(x * x)
    return found


@hydra.main(version_base=None, config_path="hydra_conf", config_name="config")  # type: ignore[untyped-decorator]
def main(config: DictConfig) -> None:
    """Train."""
    with launch(config) as job, open_monitor(job.config, "trainer", run_config=config.model) as monitor:
        for loss in losses(config.model.rate):
            monitor.log({"loss": loss})


if __name__ == "__main__":
    main()
