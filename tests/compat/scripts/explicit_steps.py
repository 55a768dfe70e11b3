"""Steps that the script counts itself, and lines that are made of several calls."""

import wandb

config = {"accumulate": 2}
with wandb.init(project="steps", config=config) as run:
    for step in range(0, 50, 10):
        run.log({"loss": 100.0 - step}, step=step)
        if step % 20 == 0:
            run.log({"eval/score": step / 50}, step=step)
    run.log({"after": 1})
    run.log({"half": 0.5}, commit=False)
    run.log({"whole": 1.0})
    run.log({"last": 3}, commit=True)
    assert run.step == 43, run.step
