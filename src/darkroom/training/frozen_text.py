"""The frozen text encoder beside the denoiser's training, where captions are kept as tokens."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from darkroom.config.networks import TextSpec
from darkroom.core.artifact import CONFIG, REPRO, read_json
from darkroom.core.weights import WEIGHTS, load_weights
from darkroom.nn.text.clip import CLIPTextModel

EMBED_BATCH = 256  # captions of a pass, so that memory does not grow with the batch


@dataclass(frozen=True)
class FrozenTextEncoder:
    """Token ids (n, L) -> the states (n, L, D) that cross-attention reads, float32 on `device`, without gradients.

    They are those that a cache of states has rounded to fp16: computed in float32, whatever the training's precision.
    """

    model: CLIPTextModel
    device: torch.device

    @classmethod
    def read(cls, folder: Path, device: torch.device) -> "FrozenTextEncoder":
        """artifacts/text_encoder.

        Raises:
            DarkroomError: a file is missing, torn, or of another kind.
        """
        spec = TextSpec.read(read_json(folder / CONFIG), str(folder / CONFIG), REPRO)
        with torch.random.fork_rng(devices=[]):  # a network gets random weights before it is given its own
            return cls(load_weights(CLIPTextModel(spec.network, spec.sizes), folder / WEIGHTS, device), device)

    @torch.no_grad()
    def __call__(self, ids: Tensor) -> Tensor:
        split = torch.split(ids.to(self.device), EMBED_BATCH)
        return torch.cat([self.model(some).last_hidden_state.float() for some in split])
