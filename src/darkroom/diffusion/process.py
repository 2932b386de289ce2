"""The noise processes that models are trained on.

All order noise levels by a time, which is what the network is told: 0 is clean (or, where times are discrete, nearly)
and `latest` the noisiest. Networks are made for times up to 1000: discrete processes tell their own, continuous ones
1000 t.

    levels(t), level(t)       the level at a time, of tensors in training and of a float in sampling
    timestep(level)           the time of a level's sigma / alpha, the inverse of `level`
    at_ratio(ratio)           the level of this sigma / alpha
    training_times(position)  where times are drawn: positions (N,) uniform in [0, 1) -> times (N,)
    spread                    the standard deviation of the noise that sampling begins with, unless
                              `Sampling.initial_scale` says otherwise
"""

from darkroom.config.choices import NOISE_PREDICTIONS, PredictionType
from darkroom.config.diffusion import FlowProcess, VEProcess, VPProcess
from darkroom.core.errors import DarkroomError
from darkroom.diffusion.continuous import VE, Continuous, Flow
from darkroom.diffusion.schedule import DiscreteVP

Process = DiscreteVP | Continuous


def process_of(config: VPProcess | VEProcess | FlowProcess) -> Process:
    """The process that params.yaml and pipeline.json describe."""
    if isinstance(config, VPProcess):
        return DiscreteVP(config)
    return VE(config) if isinstance(config, VEProcess) else Flow(config)


def starts_without_signal(process: Process) -> bool:
    """Whether alpha is 0 at the latest time, so that sigma / alpha is infinite."""
    return float(process.level(process.latest).alpha) == 0


def check_prediction(process: Process, prediction_type: PredictionType) -> None:
    """Refuse a prediction that leaves x0 undetermined where the process is noise alone.

    For any model, also imported ones; `config.diffusion.check_objective` says it of params.yaml's keys.

    Raises:
        DarkroomError: names the prediction and others.
    """
    if prediction_type in NOISE_PREDICTIONS and starts_without_signal(process):
        raise DarkroomError(
            f"prediction_type = {prediction_type!r}: says nothing of the picture where alpha is 0, as at this process' "
            "last time; choose v_prediction, sample or flow_prediction"
        )
