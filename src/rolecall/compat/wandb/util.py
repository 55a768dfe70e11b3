"""`wandb.util`: what scripts use of it."""

import random
import string
from typing import Final

_CHARACTERS: Final = string.ascii_lowercase + string.digits


def generate_id(length: int = 8) -> str:
    """An id for a run."""
    # A generator of its own: the script's random state is not touched.
    return "".join(random.Random().choices(_CHARACTERS, k=length))
