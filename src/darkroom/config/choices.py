"""The names of choices that parameters offer and layers implement, and which go together; nothing else lists them."""

from typing import Literal

ScheduleName = Literal["linear", "scaled_linear", "cosine", "sigmoid"]
PredictionType = Literal["epsilon", "v_prediction", "sample", "score", "flow_prediction"]
NOISE_PREDICTIONS: tuple[PredictionType, ...] = ("epsilon", "score")  # tell of the noise: nothing of x0 at alpha = 0
Weighting = Literal["uniform", "min_snr", "p2", "edm"]
LossName = Literal["l2", "l1"]
Reduction = Literal["mean", "sum"]
SamplerName = Literal[
    "ddpm",
    "ddim",
    "euler",
    "euler_ancestral",
    "heun",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "pndm",
    "euler_maruyama",
    "predictor_corrector",
    "ode",
]
SNR = 0.16  # of predictor_corrector: Song et al. 2021, for variance-exploding processes
TOLERANCE = 1e-5  # of ode
# Options of one sampler alone, with what all others take.
SAMPLER_OPTIONS: dict[str, tuple[SamplerName, float | str]] = {
    "eta": ("ddim", 0.0),
    "variance": ("ddpm", "beta_tilde"),
    "snr": ("predictor_corrector", SNR),
    "tolerance": ("ode", TOLERANCE),
}
EPSILON_ONLY: tuple[SamplerName, ...] = ("pndm",)  # samplers defined on a predicted noise alone
Spacing = Literal["leading", "linspace", "trailing"]
CONTINUOUS_SPACINGS: tuple[Spacing, ...] = ("linspace", "trailing")  # that need no discrete times
Variance = Literal["beta_tilde", "beta"]
InitialScale = Literal["one", "sigma"]

USUAL_TIMES = 1000  # discrete times that betas are usually given for; networks are told times of this range
