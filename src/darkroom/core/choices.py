"""The names of choices that parameters offer and layers implement; nothing else spells them as a list."""

from typing import Literal

ScheduleName = Literal["linear", "scaled_linear", "cosine"]
PredictionType = Literal["epsilon", "v_prediction", "sample"]
OptimizerName = Literal["adamw", "muon"]
Weighting = Literal["uniform", "min_snr"]
SamplerName = Literal["ddpm", "ddim", "euler", "heun", "dpmpp_2m"]
Spacing = Literal["leading", "linspace", "trailing"]
Precision = Literal["fp32", "bf16"]
NullCondition = Literal["empty_prompt", "zeros"]
