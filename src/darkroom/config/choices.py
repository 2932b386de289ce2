"""The names of choices that parameters offer and layers implement, and which go together."""

from typing import Literal

PredictionType = Literal["epsilon", "v_prediction", "sample", "score", "flow_prediction"]
NOISE_PREDICTIONS: tuple[PredictionType, ...] = ("epsilon", "score")  # tell of the noise: nothing of x0 at alpha = 0
LossName = Literal["l2", "l1"]
Reduction = Literal["mean", "sum"]
Spacing = Literal["leading", "linspace", "trailing"]
CONTINUOUS_SPACINGS: tuple[Spacing, ...] = ("linspace", "trailing")  # that need no discrete times
InitialScale = Literal["one", "sigma"]

USUAL_TIMES = 1000  # discrete times that betas are usually given for; networks are told times of this range
