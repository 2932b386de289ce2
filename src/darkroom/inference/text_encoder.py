"""Text encoders as prompts know them: texts in, plain tensors out. CLIP's is the one there is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.nn.text.clip import CLIPTextModel

EMBED_BATCH = 256


class Encoded(NamedTuple):
    """N texts: tokens (N, L, D); mask (N, L) bool, which of them count, None: all; pooled (N, D'), None: none."""

    tokens: Tensor
    mask: Tensor | None
    pooled: Tensor | None


class TextEncoder(Protocol):
    """What conditions a model on text."""

    @property
    def max_length(self) -> int:
        """Tokens of a text that are seen."""
        ...

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Texts as the denoiser was trained to read them."""
        ...

    def cut(self, text: str) -> str:
        """The end of a text that is not seen; empty for most."""
        ...


@dataclass(frozen=True)
class CLIPEncoder:
    """CLIP's tokenizer and text transformer; all tokens count, those that fill a text up too."""

    tokenizer: CLIPTokenizer
    model: CLIPTextModel
    device: torch.device

    @property
    def max_length(self) -> int:
        """Tokens of a text, start and end among them."""
        return self.tokenizer.max_length

    def encode(self, texts: Sequence[str]) -> Encoded:
        """See `TextEncoder`."""
        ids = self.tokenizer(list(texts)).to(self.device)
        outputs = [self.model(part) for part in torch.split(ids, EMBED_BATCH)]
        tokens = torch.cat([output.last_hidden_state for output in outputs])
        return Encoded(tokens, None, torch.cat([output.pooled for output in outputs]))

    def cut(self, text: str) -> str:
        """See `TextEncoder`."""
        return self.tokenizer.cut(text)
