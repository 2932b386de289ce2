"""Darkroom: train latent diffusion models from scratch, stage by stage, every artifact accounted for."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from darkroom.inference.pipeline import Pipeline
    from darkroom.interop.lora import LoRA

__all__ = ["LoRA", "Pipeline", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what is named here on first use, so that `import darkroom` costs nothing beyond the standard library."""
    if name == "Pipeline":
        from darkroom.inference.pipeline import Pipeline

        return Pipeline
    if name == "LoRA":
        from darkroom.interop.lora import LoRA

        return LoRA
    raise AttributeError(f"module 'darkroom' has no attribute {name!r}")
