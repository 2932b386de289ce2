"""How strongly a file's factors of a layer act: alpha / rank, with alpha from the file or from PEFT's configuration."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable

MOST_CHARACTERS, MOST_REPEATS, MOST_CHOICES = 200, 3, 12  # of a pattern: others could take for ever to match
REPEATED_GROUP = re.compile(r"\)[*+{]")  # which can take for ever by itself


def scale_of(path: Path, config: Mapping[str, Any], names: Sequence[str], alpha: float | None, rank: int) -> float:
    """alpha / rank of a layer: by its own alpha, else PEFT's configuration, else 1; rsLoRA divides by the rank's root.

    Args:
        names: of the layer, as PEFT may see them.

    Raises:
        DarkroomError: a configuration of another kind of adapter, or one that makes no sense; names the key.
    """
    if config.get("use_dora"):
        raise DarkroomError(f"{path}: use_dora = true: DoRA's magnitudes are not read; give a plain LoRA")
    if alpha is None:
        alpha = _by_pattern(path, config.get("alpha_pattern") or {}, names, config.get("lora_alpha", rank))
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise DarkroomError(f"{path}: lora_alpha = {printable(repr(alpha))}: is not a number; fetch it again")
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _by_pattern(path: Path, patterns: Any, names: Sequence[str], usual: Any) -> Any:
    """The value of the first pattern that is the end of a name, as PEFT's `get_pattern_key` finds it, or the usual."""
    if not isinstance(patterns, Mapping):
        raise DarkroomError(f"{path}: alpha_pattern = {printable(repr(patterns))}: is no mapping; fetch it again")
    for pattern, value in patterns.items():
        repeats, choices = sum(map(pattern.count, "*+?{")), sum(map(pattern.count, "(|"))
        if (
            len(pattern) > MOST_CHARACTERS
            or repeats > MOST_REPEATS
            or choices > MOST_CHOICES
            or REPEATED_GROUP.search(pattern)
        ):
            raise DarkroomError(
                f"{path}: alpha_pattern: {printable(pattern)} is too intricate to be matched safely; name the layers"
            )
        try:
            if any(re.match(rf"(.*\.)?({pattern})$", name) for name in names):
                return value
        except (re.error, OverflowError) as error:
            raise DarkroomError(
                f"{path}: alpha_pattern: {printable(pattern)} is no regular expression ({error}); correct it"
            ) from None
    return usual
