"""A run that somebody else made: `python wandb_theirs.py ID MODE`, which ends it once a line comes: its exit code."""

from __future__ import annotations

import sys

import wandb


def main(run_id: str, mode: str) -> None:
    run = wandb.init(
        project="gsm8k",
        id=run_id,
        name="mine",
        notes="theirs",
        tags=["theirs"],
        config={"lr": 0.1, "owner": "me"},
        settings=wandb.Settings(mode=mode),
    )
    run.log({"old": 1.0})
    print("open", flush=True)
    run.finish(exit_code=int(sys.stdin.readline()))


if __name__ == "__main__":
    main(*sys.argv[1:])
