"""Batches and epochs: what is validated is drawn over the epoch."""

import wandb

wandb.init(project="mnist", name="over-epochs", config={"batch_size": 64, "optimizer": {"name": "adam", "lr": 1e-3}})
wandb.define_metric("epoch")
wandb.define_metric("val/*", step_metric="epoch")
for epoch in range(3):
    for batch in range(4):
        wandb.log({"train/loss": 1 / (1 + 4 * epoch + batch), "train/lr": 1e-3 * 0.9**epoch})
    wandb.log({"epoch": epoch, "val/loss": 0.5 / (epoch + 1), "val/accuracy": 0.8 + epoch / 20})
wandb.finish()
