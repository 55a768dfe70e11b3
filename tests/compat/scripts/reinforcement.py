"""Two clocks: updates and episodes; and metrics in nested mappings, of numpy."""

import numpy as np
import wandb

run = wandb.init(project="cartpole", name="ppo-1", config={"env": "CartPole-v1", "gamma": 0.99, "clip": None})
wandb.define_metric("train/step")
wandb.define_metric("train/*", step_metric="train/step")
wandb.define_metric("episode/*", step_metric="episode/step")
episode = 0
for update in range(1, 6):
    for _ in range(update):
        episode += 1
        wandb.log({"episode/step": episode, "episode/return": np.float32(episode * 1.5), "episode/length": np.int64(9)})
    losses = {"policy": -0.5 / update, "value": {"mean": 2.0 / update, "max": np.float64(3.0)}}
    wandb.log({"train/step": update * 2048, "train/kl": 0.01 * update, "losses": losses})
run.finish()
