"""A small grid: one run after the other in one process."""

import wandb

for lr in (0.1, 0.01):
    for seed in (1, 2):
        config = {"lr": lr, "seed": seed}
        with wandb.init(project="grid", group="lr", name=f"lr-{lr}-{seed}", config=config, reinit="finish_previous"):
            assert wandb.run is not None
            for step in range(3):
                wandb.log({"score": lr * seed * step})
            wandb.run.summary["final"] = lr * seed
assert wandb.run is None
