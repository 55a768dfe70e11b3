"""A first script: a config, and a loss that falls."""

import random

import wandb

random.seed(0)
run = wandb.init(project="quickstart", config={"learning_rate": 0.02, "architecture": "CNN", "epochs": 10})
offset = random.random() / 5
for epoch in range(2, run.config.epochs):
    acc = 1 - 2**-epoch - random.random() / epoch - offset
    loss = 2**-epoch + random.random() / epoch + offset
    run.log({"acc": acc, "loss": loss})
run.finish()
