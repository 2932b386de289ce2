"""The most that is taken from outside: what a stranger's file, or a request, may ask for in memory and time.

One table for all: a number beyond its limit is refused in one line before anything is spent on it. Limits with a
variable can be raised by whoever runs the program; the others are far beyond anything that was published.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from darkroom.core.errors import DarkroomError


@dataclass(frozen=True)
class Limit:
    """The most of something.

    unit: what is counted, in the plural. variable: of the environment, in which another number can be given.
    """

    usual: int
    unit: str
    variable: str | None = None

    @property
    def most(self) -> int:
        """The number that holds now."""
        text = os.environ.get(self.variable, "") if self.variable else ""
        if not text:
            return self.usual
        if not (text.isascii() and text.isdecimal() and 0 < len(text) < 19 and int(text)):
            raise DarkroomError(f"{self.variable} = {text!r}: give a whole number from 1 on, such as {self.usual}")
        return int(text)

    def check(self, what: str, value: int, remedy: str = "give less") -> None:
        """Refuse more.

        Args:
            what: the file and key whose value it is.
        """
        if value > (most := self.most):
            raise DarkroomError(f"{what} = {counted(value)}: more than {most:,} {self.unit}; {self.advice(remedy)}")

    def advice(self, remedy: str) -> str:
        """The remedy, and how the limit can be raised."""
        return f"{remedy}, or raise {self.variable}" if self.variable else remedy


def counted(value: int) -> str:
    """A whole number of any length, as a message shows it."""
    return f"{value:,}" if abs(value) < 10**18 else f"about 10^{int((value.bit_length() - 1) * 0.30103)}"


# Drawing.
PIXELS = Limit(2048 * 2048, "pixels of a picture that is drawn or drawn from", "DARKROOM_MAX_PIXELS")
POSITIONS = Limit(256 * 256, "positions of a picture's latents", "DARKROOM_MAX_POSITIONS")  # attention: their square
AT_ONCE = Limit(2**20, "positions of the latents that are drawn together", "DARKROOM_MAX_POSITIONS_AT_ONCE")
STEPS = Limit(10_000, "sampling steps", "DARKROOM_MAX_STEPS")
WORK = Limit(2**36, "pixels times steps", "DARKROOM_MAX_WORK")  # 256 pictures of 512 x 512 in 1000 steps
PICTURES = Limit(4096, "pictures of one record")
FILE_PIXELS = Limit(2**26, "pixels of a picture file that is written")
LETTERS = Limit(10_000, "letters of a prompt")
SEED = Limit(2**63 - 1, "for a seed")

# Files.
JSON_BYTES = Limit(8 << 20, "bytes of JSON")  # the largest published, of tokenizers, have 3.6 million
LIST_BYTES = Limit(16 << 20, "bytes of a list of merges, unpacked")  # CLIP's has 3.2 million
DEPTH = Limit(64, "levels of JSON")
HEADER_BYTES = Limit(16 << 20, "bytes of a safetensors header")  # Stable Diffusion 1.x's has 0.2 million
PICKLE_BYTES = Limit(4 << 20, "bytes of a checkpoint's description of its weights")  # Stable Diffusion 1.x's: 0.5
TENSORS = Limit(2**16, "tensors in a file")

# Models.
TRAIN_TIMES = Limit(100_000, "training times")
NUMBER = Limit(1_000_000, "of anything in a network")  # wider than the vocabularies of text encoders
LAYERS = Limit(256, "layers of a kind in a row")
LEVELS = Limit(16, "levels of a network")
NETWORK_TENSORS = Limit(2**13, "tensors of one network")  # Stable Diffusion XL's U-Net has 1680
NETWORK_WEIGHTS = Limit(4_000_000_000, "weights of one network")  # Stable Diffusion 1.x's U-Net: 0.86, XL's 2.6
TOKENS = Limit(1024, "tokens of a text")

# Keys of configurations that count what is made one by one.
REPEATED = ("layers_per_block", "transformer_layers_per_block", "num_hidden_layers")


def check_network(values: Mapping[str, Any], where: str, remedy: str) -> None:
    """Refuse a configuration with a number no network has, before one is made of it.

    Args:
        values: key -> what the file at `where` says.
    """
    for key, value in values.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        if numbers is value:
            LEVELS.check(f"{where}: number of {key}", len(value), remedy)
        for number in numbers:
            if isinstance(number, int):
                if number < 0:
                    raise DarkroomError(f"{where}: {key} = {counted(number)}: is below 0; {remedy}")
                (LAYERS if key in REPEATED else NUMBER).check(f"{where}: {key}", number, remedy)


def check_sampling(values: Any, where: str, remedy: str) -> None:
    """Refuse numbers of a way of sampling that no drawing needs, before levels are laid out for them.

    Args:
        values: key -> value; other kinds are left to whoever reads them.
    """
    for key, limit in (("num_inference_steps", STEPS), ("steps_offset", TRAIN_TIMES)):
        number = values.get(key) if isinstance(values, Mapping) else None
        if isinstance(number, int):
            limit.check(f"{where}.{key}" if where else key, number, remedy)
