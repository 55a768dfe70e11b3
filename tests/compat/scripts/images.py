"""Images, histograms and HTML."""

import numpy as np
import wandb
from PIL import Image as Pillow

rng = np.random.default_rng(0)
wandb.init(project="images", config={"size": 16})
for step in range(3):
    pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
    wandb.log(
        {
            "sample": wandb.Image(pixels, caption=f"step {step}"),
            "batch": [wandb.Image(rng.random((16, 16))), wandb.Image(Pillow.fromarray(pixels))],
            "gradients/layer1": wandb.Histogram(np.arange(100) * (step + 1)),
            "weights": wandb.Histogram(np_histogram=np.histogram([1, 2, 2, 3], bins=4)),
            "loss": float(pixels.mean()),
        }
    )
wandb.log({"report": wandb.Html("<b>done</b>", inject=False)})
wandb.finish()
