"""The step of `darkroom params upgrade` for the noise process, the objective and sampling."""

from copy import deepcopy
from typing import Any

BETAS = ("beta_start", "beta_end", "scale_betas")
WEIGHTINGS: dict[str, dict[str, float]] = {"min_snr": {"gamma": 5.0}, "p2": {"k": 1.0}, "edm": {"sigma_data": 0.5}}
# What a sampler takes, of keys that once stood beside it, and what held where there was no key.
OPTIONS: dict[str, tuple[str, Any]] = {
    "ddpm": ("variance", "beta_tilde"),
    "ddim": ("eta", 0.0),
    "predictor_corrector": ("snr", 0.16),
    "ode": ("tolerance", 1e-5),
}
OBJECTIVE = ("prediction_type", "weighting", "loss", "reduction")


def upgrade_diffusion(values: dict[str, Any]) -> dict[str, Any]:
    """Schedules, weightings and samplers become components of a kind with keys of their own; the objective a section.

    Keys that nothing read, such as the betas of a cosine schedule, are gone. What has today's form stays as it is.
    """
    upgraded = deepcopy(values)
    trained = upgraded.get("train_unet")
    if isinstance(trained, dict):
        if isinstance(process := trained.get("process"), dict):
            _upgrade_process(process)
        if "objective" not in trained and "prediction_type" in trained:
            trained["objective"] = {key: trained.pop(key) for key in OBJECTIVE if key in trained}
            if isinstance(weighting := trained["objective"].get("weighting"), str):
                trained["objective"]["weighting"] = {"kind": weighting, **WEIGHTINGS.get(weighting, {})}
            trained["objective"]["times"] = {"kind": "stratified"}
    for section in (trained, upgraded.get("evaluate")):
        if isinstance(section, dict) and isinstance(sampling := section.get("sampling"), dict):
            _upgrade_sampling(sampling)
    return upgraded


def _upgrade_process(process: dict[str, Any]) -> None:
    if isinstance(kind := process.get("schedule"), str):
        betas = {key: process.pop(key) for key in BETAS if key in process}
        process["schedule"] = {"kind": kind, **({} if kind == "cosine" else betas)}


def _upgrade_sampling(sampling: dict[str, Any]) -> None:
    if isinstance(name := sampling.get("sampler"), str):
        stated = {key: sampling.pop(key) for key, _ in OPTIONS.values() if key in sampling}
        key, published = OPTIONS.get(name, (None, None))
        sampling["sampler"] = {"kind": name, **({key: stated.get(key, published)} if key else {})}
