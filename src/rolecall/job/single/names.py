"""Names for runs that nobody named."""

import random
from typing import Final

_ADJECTIVES: Final = ("bold", "brisk", "calm", "clear", "deft", "eager", "fair", "keen", "lucid", "mild", "quiet")
_NOUNS: Final = ("basin", "birch", "cliff", "crane", "delta", "ember", "fjord", "grove", "heron", "larch")


def memorable_name() -> str:
    """A name such as `calm-heron-042`. Not unique: there are 110,000 of them."""
    # A generator of its own: the job's random state is not touched.
    chance = random.Random()
    return f"{chance.choice(_ADJECTIVES)}-{chance.choice(_NOUNS)}-{chance.randrange(1000):03}"
