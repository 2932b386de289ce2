"""What a pipeline returns."""

from dataclasses import dataclass
from functools import cached_property

from PIL import Image
from torch import Tensor

from darkroom.core.tensors import to_pil


@dataclass(frozen=True)
class PipelineOutput:
    """The pictures of one call.

    tensor: uint8 (N, C, H, W), on the CPU.
    prompts, seeds: of each picture.
    network_evaluations: calls of the denoising network, each for a whole batch, guided or not.
    """

    tensor: Tensor
    prompts: list[str]
    seeds: list[int]
    network_evaluations: int

    @cached_property
    def images(self) -> list[Image.Image]:
        """The pictures as PIL images, of mode RGB or L; made when first asked for."""
        return [to_pil(picture) for picture in self.tensor]
