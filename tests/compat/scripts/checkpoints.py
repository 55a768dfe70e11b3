"""Files that are kept with the run."""

from pathlib import Path

import wandb

run = wandb.init(project="checkpoints", job_type="train")
folder = Path("out")
(folder / "tokenizer").mkdir(parents=True)
(folder / "tokenizer" / "vocab.txt").write_text("a b c")
for step in range(2):
    Path("model.bin").write_bytes(bytes([step]) * 100)
    run.log({"loss": 1.0 / (step + 1)})
artifact = wandb.Artifact("model", type="model", metadata={"steps": 2})
artifact.add_file("model.bin")
artifact.add_dir("out", name="files")
with artifact.new_file("notes.txt") as file:
    file.write("the last one")
run.log_artifact(artifact)
assert Path(run.dir).is_dir()
run.finish()
