"""The best of a run, arguments of the command line as its config, and a config that changes."""

import argparse

import wandb

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--layers", type=int, default=2)
args = parser.parse_args([])

run = wandb.init(project="summaries", config=args, tags=["baseline", "summary"])
run.define_metric("loss", summary="min")
run.define_metric("acc", summary="max,mean")
run.define_metric("noise", summary="none")
for step, acc in enumerate([0.5, 0.75, 0.625]):
    run.log({"acc": acc, "loss": 1 - acc, "noise": step, "plain": step})
wandb.config.update({"dropout": 0.2})
wandb.config["seed"] = 7
wandb.config.update({"lr": 0.01}, allow_val_change=True)
try:
    run.config.layers = 3
except Exception:  # noqa: BLE001 - of wandb, a private class
    run.summary["layers_kept"] = run.config.layers
wandb.summary["best_acc"] = run.summary["acc"]["max"]
run.summary.update({"note": "done", "nested": {"a": 1, "b": 2.5}})
run.finish()
