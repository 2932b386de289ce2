"""What a network may predict, and the range of times that it is told: of parameters, mathematics and formats alike."""

from typing import Literal

PredictionType = Literal["epsilon", "v_prediction", "sample", "score", "flow_prediction"]
NOISE_PREDICTIONS: tuple[PredictionType, ...] = ("epsilon", "score")  # tell of the noise: nothing of x0 at alpha = 0
USUAL_TIMES = 1000  # discrete times that betas are usually given for; networks are told times of this range
