"""Nested state as JSON and tensors, and back."""

import json
import math

import pytest
import torch

from darkroom.core.nested import pack, unpack


def through_json(value: object) -> object:
    tensors: dict[str, torch.Tensor] = {}
    packed = json.loads(json.dumps(pack(value, tensors), allow_nan=False))
    return unpack(packed, tensors)


def test_what_goes_in_comes_out() -> None:
    value = {
        "a": [1, 2.5, None, True, "text", ("x", 0.1 + 0.2)],
        3: {"inner": {}, "b": math.inf},
        "empty": [],
    }
    found = through_json(value)
    assert found == value
    assert isinstance(found["a"][5], tuple)  # type: ignore[index]


def test_tensors_come_back_equal_in_memory_of_their_own_and_laid_out_as_they_were() -> None:
    kernel = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    value = {"kernel": kernel, "plain": [torch.arange(6).view(2, 3), torch.tensor(2.0, dtype=torch.bfloat16)]}
    found = through_json(value)
    assert torch.equal(found["kernel"], kernel)  # type: ignore[index]
    assert found["kernel"].stride() == kernel.stride()  # type: ignore[index]
    assert found["kernel"].data_ptr() != kernel.data_ptr()  # type: ignore[index]
    for new, old in zip(found["plain"], value["plain"], strict=True):  # type: ignore[index]
        assert new.dtype == old.dtype
        assert torch.equal(new, old)


def test_anything_else_is_refused_by_its_place() -> None:
    with pytest.raises(TypeError, match="/a/0: object is not a state"):
        pack({"a": [object()]}, {})
