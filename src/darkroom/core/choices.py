"""The names of choices that parameters offer and layers implement; nothing else spells them as a list."""

from typing import Literal

ScheduleName = Literal["linear", "scaled_linear", "cosine"]
PredictionType = Literal["epsilon", "v_prediction", "sample"]
OptimizerName = Literal["adamw", "muon"]
Weighting = Literal["uniform", "min_snr"]
SamplerName = Literal["ddpm", "ddim", "euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_2m_sde", "pndm"]
EPSILON_ONLY: tuple[SamplerName, ...] = ("pndm",)  # samplers defined on a predicted epsilon alone
Spacing = Literal["leading", "linspace", "trailing"]
Variance = Literal["beta_tilde", "beta"]
NetworkKind = Literal["unet_2d_condition", "score_unet", "layer_norm_unet", "batch_norm_unet"]
ScoreVariant = Literal["concat", "residual", "transformer"]
InitialScale = Literal["one", "sigma"]
Precision = Literal["fp32", "bf16"]
NullCondition = Literal["empty_prompt", "zeros"]
