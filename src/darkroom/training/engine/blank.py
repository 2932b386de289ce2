"""Passes of the networks over blank inputs of the size that training has, to count what they cost.

All return what a loss would be made of. x: (channels, height, width) of one sample. Inputs lie where the weights do.
Networks are known by what is called of them, so that no stage depends on those of another.
"""

from typing import Any

import torch
from torch import Tensor, nn

Size = tuple[int, ...]


def denoised(unet: Any, n: int, x: Size, words: Size | None) -> Tensor:
    """Through a `DenoisingNetwork`. words: (tokens, width) of a text condition; None: there is none."""
    like = next(unet.parameters())
    context = unet.prepare_context(like.new_zeros(n, *words)) if words is not None and unet.takes_text else None
    classes = torch.zeros(n, dtype=torch.int64, device=like.device) if unet.takes_classes else None
    out: Tensor = unet(like.new_zeros(n, *x), like.new_zeros(n), context, classes)
    return out


def reconstructed(vae: Any, n: int, x: Size) -> Tensor:
    """Through an `AutoencoderKL` and its posterior, as training goes."""
    moments = vae.encode(next(vae.parameters()).new_zeros(n, *x))
    out: Tensor = vae.decode(moments.sample(torch.zeros_like(moments.mean)))
    return out


def matched(towers: Any, n: int, x: Size, tokens: int) -> Tensor:
    """The logits of n pictures against n captions, from `Towers`."""
    like = next(towers.parameters())
    captions = torch.zeros(n, tokens, dtype=torch.int64, device=like.device)
    out: Tensor = towers.compare(towers.embed_images(like.new_zeros(n, *x)), towers.embed_texts(captions))
    return out


def judged(judge: nn.Module, n: int, x: Size) -> Tensor:
    """The logits of all heads of a `Classifier` or `SelfSupervised`."""
    out = judge(next(judge.parameters()).new_zeros(n, *x))
    return torch.cat(out, dim=1) if isinstance(out, list) else out
