"""Replaces what is under test by the same that is watched."""

from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor

from darkroom.data.sources.base import Reader, Sample, Skipped

Result = TypeVar("Result")
Value = TypeVar("Value")


def noted(seen: list[Value], value: Value, result: Result) -> Result:
    """`result`, once `value` has been put down in `seen`; for a lambda in the place of a function."""
    seen.append(value)
    return result


def samples_of(source: Reader | Sequence[Sample | Skipped]) -> list[Sample]:
    """What a source gives, none of which may be left out."""
    found = list(source)
    samples = [item for item in found if isinstance(item, Sample)]
    assert len(samples) == len(found)
    return samples


def gradient(weight: Tensor) -> Tensor:
    """The gradient that a weight must have."""
    assert weight.grad is not None
    return weight.grad
