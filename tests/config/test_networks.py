"""Parameters of the networks of pixels: what goes together, and every fault in one line."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from darkroom.config.params import problems, read

ROOT = Path(__file__).parents[2]
PIXELS = {  # of the default recipe, what pictures of 28 pixels without an autoencoder need
    "prepare_data": {"image_size": 28},
    "train_vae": {"kind": "identity", "range": [0.0, 1.0], "batch_size": 8},
    "setup_text_encoder": {"kind": "none"},
}
CLIP = {"setup_text_encoder": read(ROOT / "recipes" / "scenes.yaml")["setup_text_encoder"]}
CLASSES = {"prepare_data": {"source": {"kind": "image_folder", "root": "set", "manifest": None, "caption": ""}}}
SCORE = {"kind": "score_unet", "variant": "concat"}
TRANSFORMER = {"kind": "score_unet", "variant": "transformer"}
LAYERS = {"kind": "layer_norm_unet"}
BATCHES = {"kind": "batch_norm_unet", "widths": [16, 32, 64]}
FAULTS: dict[str, tuple[dict[str, Any], list[dict[str, Any]], str]] = {
    "sound score_unet": (SCORE, [], ""),
    "sound score_unet of classes": (TRANSFORMER, [CLASSES, {"setup_text_encoder": {"kind": "class"}}], ""),
    "sound layer_norm_unet": (LAYERS, [], ""),
    "sound batch_norm_unet": (BATCHES, [], ""),
    "sound flips": (SCORE, [{"train_unet": {"horizontal_flip": True}}], ""),
    "kind": (
        {"kind": "score"},
        [],
        "train_unet.unet.kind = 'score': give unet_2d_condition or score_unet or layer_norm_unet or batch_norm_unet; "
        "did you mean score_unet?",
    ),
    "variant": (
        {**SCORE, "variant": "concatenated"},
        [],
        "train_unet.unet.variant = 'concatenated': give concat or residual or transformer; did you mean concat?",
    ),
    "side of a score_unet": (
        SCORE,
        [{"prepare_data": {"image_size": 32}}],
        "train_unet.unet.kind = 'score_unet' takes sides of 8 n + 4 from 20 on, not 32, the latents' side; "
        "give another prepare_data.image_size",
    ),
    "side of a layer_norm_unet": (
        LAYERS,
        [{"prepare_data": {"image_size": 24}}],
        "train_unet.unet.kind = 'layer_norm_unet' takes sides of 8 n + 4 from 12 on, not 24, the latents' side; "
        "give another prepare_data.image_size",
    ),
    "side of a batch_norm_unet": (
        {**BATCHES, "widths": [16, 16, 16, 16]},
        [],
        "train_unet.unet.kind = 'batch_norm_unet' of this depth takes sides divisible by 8, not 28, the latents' side; "
        "give another prepare_data.image_size",
    ),
    "a single width": (
        {**BATCHES, "widths": [16]},
        [],
        "train_unet.unet.widths = [16]: give a list of 2 to 8, each a whole number >= 1 and <= 8192",
    ),
    "words that are not heard": (
        LAYERS,
        [CLIP],
        "train_unet.unet.kind = 'layer_norm_unet' of this variant takes the condition 'none', not 'text', as "
        "setup_text_encoder.kind = 'clip' makes; use another one, or another network",
    ),
    "classes that are not heard": (
        SCORE,
        [CLASSES, {"setup_text_encoder": {"kind": "class"}}],
        "train_unet.unet.kind = 'score_unet' of this variant takes the condition 'none', not 'class', as "
        "setup_text_encoder.kind = 'class' makes; use another one, or another network",
    ),
    "classes that are not there": (
        TRANSFORMER,
        [],
        "train_unet.unet.kind = 'score_unet' of this variant takes the condition 'class', not 'none', as "
        "setup_text_encoder.kind = 'none' makes; use another one, or another network",
    ),
    "times that are not in the table": (
        LAYERS,
        [{"train_unet": {"process": {"num_train_timesteps": 2000}}}],
        "train_unet.process.num_train_timesteps = 2000 is above the 1000 times that "
        "train_unet.unet.kind = 'layer_norm_unet' knows; lower it",
    ),
    "a negative for the pictures": (
        SCORE,
        [{"train_vae": {"range": [1.0, 0.0]}}],
        "train_vae.range = [1.0, 0.0] does not rise; give black, then white",
    ),
    "imported weights of another network": (
        SCORE,
        [{"train_unet": {"init_from": "artifacts/imported/set/unet"}}],
        "train_unet.init_from does not go with unet.kind = 'score_unet'; give null",
    ),
}


def merged(values: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """A change of single keys; a section with a kind of its own is replaced as a whole."""
    nested = {
        key: merged(values[key], value) if isinstance(value, dict) and "kind" not in value else value
        for key, value in change.items()
    }
    return {**values, **nested}


@pytest.mark.parametrize(("network", "changes", "said"), FAULTS.values(), ids=list(FAULTS))
def test_a_fault_is_said_in_one_line(
    network: dict[str, Any], changes: list[dict[str, Any]], said: str, tmp_path: Path
) -> None:
    values = read(ROOT / "recipes" / "scenes.yaml")
    each: list[dict[str, Any]] = [PIXELS, {"train_unet": {"unet": network}}, *changes]
    for change in each:
        values = merged(values, change)
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    assert problems(file) == ([f"{file}: {said}"] if said else [])
