"""What a picture is known by: a hash of its pixels, from which its split and its half follow."""

import hashlib

import numpy as np
import numpy.typing as npt


def fingerprint(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Of decoded, conformed pixels uint8 (H, W) or (H, W, 3): 16 bytes."""
    return hashlib.blake2b(repr(pixels.shape).encode() + pixels.tobytes(), digest_size=16).digest()


def position(of: bytes) -> float:
    """A number in [0, 1), uniform over pixels and fixed for those with this fingerprint; splits are dealt by it."""
    return int.from_bytes(of[:8], "big") / 2**64


def half(of: bytes) -> int:
    """The half, 0 or 1, of the pixels with this fingerprint: its last bit, so halves and splits are independent."""
    return of[-1] & 1
