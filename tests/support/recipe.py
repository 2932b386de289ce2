"""scenes-quick made so small that most of its time goes into starting the stages."""

from pathlib import Path
from typing import Any

import yaml

from darkroom.config.merging import complete_text

STEPS, CHECKPOINT_EVERY = 16, 4
QUIET = {"tracking": "off", "threads": "1", "checkpoint_steps": str(CHECKPOINT_EVERY)}  # DARKROOM_… variables
TRAINED = ("train_vae", "setup_text_encoder", "train_unet", "train_evaluator")
SHORT = {"steps": STEPS, "batch_size": 16, "lr_schedule": {"warmup_steps": 2}, "validate_every": 8}
SAMPLING = {"num_inference_steps": 2}
CHANGES: dict[str, Any] = {
    "prepare_data": {"source": {"n_train": 120, "n_validation": 24, "n_test": 24, "n_novel": 8}},
    "train_vae": SHORT,
    "setup_text_encoder": {**SHORT, "hard_negatives": {"start_step": 6, "every": 5, "group_size": 4, "neighbours": 4}},
    "train_unet": {
        **SHORT,
        "unet": {"block_out_channels": [16, 32]},
        "held_out": 16,
        "sample_every": STEPS,
        "sampling": SAMPLING,
    },
    "train_evaluator": SHORT,
    "evaluate": {"n_test": 24, "n_novel": 8, "n_grid": 2, "sampling": SAMPLING, "n_sweep": 2, "bootstrap": 100},
}


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with the changes, key by key."""
    nested = {key: merged(values[key], value) if isinstance(value, dict) else value for key, value in changes.items()}
    return {**values, **nested}


def write(quick: Path, params: Path, changes: dict[str, Any] = CHANGES) -> None:
    """Write the recipe `quick` with the changes."""
    params.write_text(yaml.safe_dump(merged(yaml.safe_load(complete_text(quick)), changes)))
