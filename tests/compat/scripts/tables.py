"""Predictions as tables."""

import wandb

wandb.init(project="tables")
columns = ["id", "prediction", "truth", "score"]
for epoch in range(2):
    table = wandb.Table(columns=columns)
    for number in range(3):
        table.add_data(number, f"cat {epoch}", "dog", number / 4)
    wandb.log({"predictions": table, "epoch": epoch})
rows = [["a", 1.5, True], ["b", None, False]]
texts = wandb.Table(data=rows, columns=["text", "value", "flag"])
texts.add_column("length", [1, 1])
assert texts.get_column("length") == [1, 1]
wandb.log({"eval/texts": texts})
wandb.finish()
