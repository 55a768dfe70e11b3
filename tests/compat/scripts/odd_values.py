"""Strings, flags, numbers that are none, sounds and pictures that move; and a name from the environment."""

import os
import wave

import wandb
from PIL import Image as Pillow

os.environ["WANDB_PROJECT"] = "odd"
os.environ["WANDB_NAME"] = "from-the-environment"

with wave.open("tone.wav", "wb") as sound:
    sound.setnchannels(1)
    sound.setsampwidth(2)
    sound.setframerate(8000)
    sound.writeframes(b"\0\1" * 800)
frames = [Pillow.new("RGB", (16, 16), (40 * number, 0, 0)) for number in range(4)]
frames[0].save("clip.gif", save_all=True, append_images=frames[1:])

wandb.init()
assert wandb.run.name == "from-the-environment"
wandb.log({"phase": "warm-up", "is_best": True, "nothing": None})
wandb.log({"loss": float("nan"), "bound": float("inf"), "big": 2**40})
wandb.log({"phase": "training", "is_best": False, "loss": 0.5})
wandb.log({"tone": wandb.Audio("tone.wav", caption="beep"), "clip": wandb.Video("clip.gif", format="gif")})
wandb.finish()
