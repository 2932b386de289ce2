"""Sections of params.yaml for tests, with usual values for what does not matter there."""

from typing import Any

from darkroom.config.sections import Preparation
from darkroom.config.training import Optimization


def preparation(**changes: Any) -> Preparation:
    """How to prepare 16-pixel RGB pictures; name what differs."""
    usual: dict[str, Any] = {
        "seed": 0,
        "image_size": 16,
        "buckets": None,
        "channels": 3,
        "resize": "crop",
        "validation_fraction": 0.1,
        "test_fraction": 0.1,
        "validation_from": "train",
        "limit": None,
        "max_bad_fraction": 0.01,
        "repeats": "keep",
        "crops": 1,
    }
    return Preparation.model_validate(usual | changes)


def optimization(**changes: Any) -> Optimization:
    """AdamW at a constant rate; name what differs, the keys of the schedule too, kinds as optimizer and lr_schedule."""
    optimizer: dict[str, Any] = {
        "kind": changes.pop("optimizer", "adamw"),
        "learning_rate": 1e-2,
        "betas": [0.9, 0.99],
        "weight_decay": 0.0,
        "clip_norm": None,
    }
    optimizer |= {key: changes.pop(key) for key in list(changes) if key in optimizer}
    schedule = {"kind": changes.pop("lr_schedule", "constant"), "warmup_steps": 0, **changes}
    return Optimization.model_validate({"optimizer": optimizer, "lr_schedule": schedule})
