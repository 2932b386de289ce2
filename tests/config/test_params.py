"""params.yaml: every fault is one line that names the key, the value, what is allowed and the remedy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from darkroom.config.denoisers import LayerNormUNetConfig
from darkroom.config.params import load, problems
from darkroom.config.yaml_file import read as read_yaml
from darkroom.core.errors import DarkroomError
from darkroom.nn.denoiser.layer_norm_unet import TIMES
from tests.support.params import SOUND, changed, faults

ROOT = Path(__file__).parents[2]
CRITIC = (
    "{weight: 0.5, start_step: 10, channels: 16, n_layers: 2, lr_schedule: {kind: constant, warmup_steps: 0}, "
    "optimizer: {kind: adamw, learning_rate: 0.01, betas: [0.5, 0.9], weight_decay: 0.0, clip_norm: null}}"
)


def test_the_default_recipe_is_sound(tmp_path: Path) -> None:
    assert faults(SOUND, tmp_path) == []


ONE_FAULT = {
    "a word that is none of those allowed, where null is too": (
        ("register", "fid_below", "fid_below: mean_color"),
        "register.fid_below = 'mean_color': give blurred or mean_colour or noise or null; did you mean mean_colour?",
    ),
    "no threshold": (
        ("register", "valid_judge", ""),
        "register.valid_judge is missing; add it (darkroom recipe show scenes has one)",
    ),
    "unknown key": (
        ("train_vae", "perceptual", "perceptual: null\n  perseptual: 1"),
        "train_vae.perseptual = 1 is an unknown key; did you mean perceptual?",
    ),
    "unknown key like no other": (
        ("cache_latents", "scaling", "scaling: measured\n  zzz: 1"),
        "cache_latents.zzz = 1 is an unknown key; remove it; known keys: batch_size, mirror, precision, scaling",
    ),
    "unknown key of a source": (
        ("prepare_data", "n_test", "n_test: 10\n    n_tests: 10"),
        "prepare_data.source.n_tests = 10 is an unknown key; did you mean n_test?",
    ),
    "key that is no text": (
        ("cache_latents", "scaling", "scaling: measured\n  3: 1"),
        "cache_latents.3 is an unknown key; remove it; known keys: batch_size, mirror, precision, scaling",
    ),
    "missing key": (
        ("train_unet", "prediction_type", ""),
        "train_unet.objective.prediction_type is missing; add it (darkroom recipe show scenes has one)",
    ),
    "missing kind": (
        ("prepare_data", "kind", ""),
        "prepare_data.source.kind is missing; add it (darkroom recipe show scenes has one)",
    ),
    "too small": (
        ("train_unet", "learning_rate", "learning_rate: -1.0"),
        "train_unet.optimizer.learning_rate = -1.0: give a number > 0 and <= 1",
    ),
    "too large": (
        ("train_unet", "condition_dropout", "condition_dropout: 1.5"),
        "train_unet.condition_dropout = 1.5: give a number >= 0 and <= 1",
    ),
    "too small where null is allowed": (
        ("train_vae", "clip_norm", "clip_norm: 0"),
        "train_vae.optimizer.clip_norm = 0: give a number > 0 and <= 1e+06, or null",
    ),
    "no number": (
        ("train_vae", "learning_rate", "learning_rate: .nan"),
        "train_vae.optimizer.learning_rate = nan: give a number > 0 and <= 1",
    ),
    "part of a list": (
        ("train_vae", "betas", "betas: [0.9, 1.0]"),
        "train_vae.optimizer.betas.1 = 1.0: give a number >= 0 and < 1",
    ),
    "length of a list": (
        ("train_vae", "betas", "betas: [0.9]"),
        "train_vae.optimizer.betas = [0.9]: give a list of 2, each a number >= 0 and < 1",
    ),
    "text for a number": (
        ("train_vae", "learning_rate", "learning_rate: fast"),
        "train_vae.optimizer.learning_rate = 'fast': give a number > 0 and <= 1",
    ),
    "fraction for a count": (
        ("train_vae", "steps", "steps: 100.5"),
        "train_vae.steps = 100.5: give a whole number >= 1 and <= 100000000",
    ),
    "truth for a count": (
        ("train_vae", "steps", "steps: true"),
        "train_vae.steps = true: give a whole number >= 1 and <= 100000000",
    ),
    "number for a list": (
        ("train_vae", "betas", "betas: 0.9"),
        "train_vae.optimizer.betas = 0.9: give a list of 2, each a number >= 0 and < 1",
    ),
    "none of a choice that truth is part of": (
        ("cache_latents", "mirror", "mirror: perhaps"),
        "cache_latents.mirror = 'perhaps': give true or false or always",
    ),
    "number for a section": (
        ("train_vae", "adversarial", "adversarial: 3"),
        "train_vae.adversarial = 3: give a section of keys, or null",
    ),
    "null": (
        ("train_vae", "seed", "seed: null"),
        "train_vae.seed = null: give a whole number >= 0 and < 9223372036854775808",
    ),
    "choice": (
        ("train_unet", "prediction_type", "prediction_type: v_predicton"),
        "train_unet.objective.prediction_type = 'v_predicton': give epsilon or v_prediction or sample or score or "
        "flow_prediction; did you mean v_prediction?",
    ),
    "choice of numbers": (("prepare_data", "channels", "channels: 4"), "prepare_data.channels = 4: give 1 or 3"),
    "choice of a split": (
        ("prepare_data", "validation_from", "validation_from: validation"),
        "prepare_data.validation_from = 'validation': give train or test",
    ),
    "kind": (
        ("prepare_data", "kind", "kind: scene"),
        "prepare_data.source.kind = 'scene': give scenes or torchvision or image_folder or captioned_folder or "
        "webdataset; did you mean scenes?",
    ),
    "image size that does not divide": (
        ("prepare_data", "image_size", "image_size: 30"),
        "prepare_data.image_size = 30 is not divisible by the downscale factor of "
        "train_vae.autoencoder.block_out_channels = 4; give a multiple of 4",
    ),
    "latents that do not divide": (
        ("prepare_data", "image_size", "image_size: 36"),
        "train_unet.unet.kind = 'unet_2d_condition' of this depth takes sides divisible by 2, not 9, the "
        "latents' side; give another prepare_data.image_size",
    ),
    "groups that do not divide": (
        ("train_vae", "norm_num_groups", "norm_num_groups: 5"),
        "train_vae.autoencoder.block_out_channels.0 = {p.train_vae.autoencoder.block_out_channels[0]} is not divisible "
        "by norm_num_groups = 5; give a multiple of 5",
    ),
    "heads that do not divide": (
        ("setup_text_encoder", "num_attention_heads", "num_attention_heads: 3"),
        "setup_text_encoder.text.hidden_size = {p.setup_text_encoder.text.hidden_size} is not divisible "
        "by num_attention_heads = 3; give a multiple of 3",
    ),
    "heads of the U-Net that do not divide": (
        ("train_unet", "num_attention_heads", "num_attention_heads: [7, 4]"),
        "train_unet.unet.block_out_channels.0 = {p.train_unet.unet.block_out_channels[0]} is not divisible "
        "by num_attention_heads.0 = 7; give a multiple of 7",
    ),
    "width of a tower": (
        ("train_evaluator", "width", "width: 24"),
        "train_evaluator.image.width = 24 is not divisible by the channels per group of its norms = 16; "
        "give a multiple of 16",
    ),
    "lists of different lengths": (
        ("train_unet", "down_block_types", "down_block_types: [CrossAttnDownBlock2D]"),
        "train_unet.unet.down_block_types has not 2 entries, one per level as block_out_channels; give so many",
    ),
    "no levels": (
        ("train_unet", "block_out_channels", "block_out_channels: []"),
        "train_unet.unet.block_out_channels = []: give a list of 1 to 8, each a whole number >= 1 and <= 8192",
    ),
    "a kind of autoencoder": (
        ("train_vae", "kind", "kind: identiy"),
        "train_vae.kind = 'identiy': give kl or pretrained or identity; did you mean identity?",
    ),
    "a warm-up longer than the training": (
        ("train_vae", "warmup_steps", "warmup_steps: 999999"),
        "train_vae.lr_schedule.warmup_steps = 999999 is above steps = {p.train_vae.steps}; lower it, or raise steps",
    ),
    "an end beyond the last step": (
        ("train_unet", "stop_at", "stop_at: 999999"),
        "train_unet.stop_at = 999999 is above steps = {p.train_unet.steps}; lower it, or raise steps",
    ),
    "a critic that never starts": (
        ("train_vae", "adversarial", f"adversarial: {CRITIC.replace('start_step: 10', 'start_step: 99999999')}"),
        "train_vae.adversarial.start_step = 99999999 is above steps = {p.train_vae.steps}; lower it, or raise steps",
    ),
    "a decay that is not used": (
        ("train_unet", "warmup_steps", "warmup_steps: 1\n    factor: 0.98"),
        "train_unet.lr_schedule.factor = 0.98 is an unknown key; remove it; known keys: kind, warmup_steps",
    ),
    "a critic that sees nothing": (
        ("train_vae", "adversarial", f"adversarial: {CRITIC.replace('n_layers: 2', 'n_layers: 4')}"),
        "train_vae.adversarial.n_layers = 4 leaves no patch of 32 pixels; lower it",
    ),
    "falling noise": (
        ("train_unet", "schedule", "schedule: {kind: linear, beta_start: 0.5, beta_end: 0.02, scale_betas: false}"),
        "train_unet.process.schedule.beta_start = 0.5 is above beta_end = 0.02; lower it",
    ),
    "more steps than times": (
        ("evaluate", "num_inference_steps", "num_inference_steps: 1001"),
        "evaluate.sampling.num_inference_steps = 1001 is above train_unet.process.num_train_timesteps = 1000; "
        "lower it, or raise train_unet.process.num_train_timesteps",
    ),
    "parts of a batch of nothing": (
        ("train_unet", "accumulation", "accumulation: 4096"),
        "train_unet.accumulation = 4096 is above batch_size = {p.train_unet.batch_size}; lower it, or raise batch_size",
    ),
    "groups of confusable captions that do not fill a batch": (
        ("setup_text_encoder", "group_size", "group_size: 7"),
        "setup_text_encoder.batch_size = {p.setup_text_encoder.batch_size} is not divisible "
        "by hard_negatives.group_size = 7; give a multiple of 7",
    ),
    "groups larger than their choice": (
        ("setup_text_encoder", "neighbours", "neighbours: 2"),
        "setup_text_encoder.hard_negatives.group_size = 8 needs neighbours >= 7, not 2; lower it, or raise neighbours",
    ),
    "a scale that nobody brings": (
        ("cache_latents", "scaling", "scaling: imported"),
        "cache_latents.scaling = 'imported', but train_vae.kind = 'kl' brings no factor; use measured",
    ),
    "mirrored latents": (
        ("train_unet", "horizontal_flip", "horizontal_flip: true"),
        "train_unet.horizontal_flip = true needs train_vae.kind = 'identity', not 'kl': "
        "a picture's latents, mirrored, are not those of the mirrored picture; use cache_latents.mirror",
    ),
    "a sampler for another prediction": (
        ("evaluate", "sampler", "sampler: {kind: pndm}"),
        "evaluate.sampling.sampler.kind = 'pndm' needs train_unet.objective.prediction_type = 'epsilon', "
        "not 'v_prediction'; use dpmpp_2m",
    ),
}


@pytest.mark.parametrize(("change", "said"), ONE_FAULT.values(), ids=list(ONE_FAULT))
def test_a_fault_is_said_in_one_line(change: tuple[str, str, str], said: str, tmp_path: Path) -> None:
    sound = load(ROOT / "recipes" / "scenes.yaml")
    said = said.format(p=sound)
    assert faults(changed(*change), tmp_path) == [said]
    with pytest.raises(DarkroomError) as error:
        load(tmp_path / "params.yaml")
    assert str(error.value) == f"{tmp_path / 'params.yaml'}: {said}"


PATH = "artifacts/imported/set/vae"
STAIRS = {"kind": "exponential", "warmup_steps": 0, "factor": 0.98, "every": 59, "floor": 0.2}
OTHER_KINDS: dict[str, tuple[str, object, str]] = {
    "no section": ("train_unet.process", 3, "train_unet.process = 3: give a section with kind: vp or ve or flow"),
    "sound stairs": ("train_unet.lr_schedule", STAIRS, ""),
    "stairs without a floor": (
        "train_unet.lr_schedule",
        {key: value for key, value in STAIRS.items() if key != "floor"},
        "train_unet.lr_schedule.floor is missing; add it (darkroom recipe show mnist-score-residual has one)",
    ),
    "stairs that rise": (
        "train_unet.lr_schedule",
        STAIRS | {"factor": 1.02},
        "train_unet.lr_schedule.factor = 1.02: give a number > 0 and < 1",
    ),
    "classes of data without": (
        "setup_text_encoder",
        {"kind": "class"},
        "setup_text_encoder.kind = 'class' needs labels, but a scenes source has none; use clip",
    ),
    "sound imported autoencoder": ("train_vae", {"kind": "pretrained", "path": PATH, "batch_size": 8}, ""),
    "an imported autoencoder that is trained": (
        "train_vae",
        {"kind": "pretrained", "path": PATH, "batch_size": 8, "steps": 5},
        "train_vae.steps = 5 is an unknown key; remove it; known keys: batch_size, kind, path",
    ),
    "a range that does not rise": (
        "train_vae",
        {"kind": "identity", "range": [1.0, 1.0], "batch_size": 8},
        "train_vae.range = [1.0, 1.0] does not rise; give black, then white",
    ),
}


@pytest.mark.parametrize(("key", "section", "said"), OTHER_KINDS.values(), ids=list(OTHER_KINDS))
def test_a_kind_has_its_own_keys(key: str, section: object, said: str, tmp_path: Path) -> None:
    """Fails where a kind takes keys that only others read, or its faults are told of another place."""
    values = yaml.safe_load(SOUND)
    *parents, last = key.split(".")
    place = values
    for parent in parents:
        place = place[parent]
    place[last] = section
    assert faults(yaml.safe_dump(values), tmp_path) == ([said] if said else [])


def test_several_faults_are_all_listed_and_the_first_is_told_with_their_number(tmp_path: Path) -> None:
    text = SOUND.replace("learning_rate:", "learning_rte:")
    lines = faults(text, tmp_path)
    assert len(lines) == 2 * SOUND.count("learning_rate:")
    assert "did you mean learning_rate?" in lines[0]
    with pytest.raises(DarkroomError, match=rf"\(and {len(lines) - 1} more: darkroom params check\)"):
        load(tmp_path / "params.yaml")


def test_a_misspelt_section_is_named_before_the_one_it_should_be(tmp_path: Path) -> None:
    first, second = faults(SOUND.replace("\ntrain_vae:", "\ntrain_vea:"), tmp_path)
    assert first.startswith("train_vea = {")
    assert first.endswith("is an unknown key; did you mean train_vae?")
    assert len(first) < 200
    assert second == "train_vae is missing; add it (darkroom recipe show scenes has one)"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"train_vae: [1, 2", "line 1: not valid YAML: expected ',' or ']'"),
        (b"a: 1\nb: 2\na: 3\n", "line 3: not valid YAML: the key a stands here twice"),
        (b"a: {x: 1, x: 2}\n", "line 1: not valid YAML: the key x stands here twice"),
        (b"\ttrain_vae: 1", "line 1: not valid YAML"),
        (b"- a list", "holds no keys; write one with: darkroom recipe use scenes"),
        (b"", "holds no keys; write one with: darkroom recipe use scenes"),
        (b"caption: \xff", "not UTF-8 (invalid start byte at byte 9); save it as UTF-8"),
        (b"day: 2001-99-99", "not valid YAML: month must be in 1..12; fix it"),
        (b"? [a]\n: 3\n", "line 1: not valid YAML: found unhashable key; fix that line"),
        (b"a: !!python/object/apply:os.system [true]", "not valid YAML: could not determine a constructor"),
    ],
)
def test_a_file_that_is_no_params_file_is_refused_in_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    file.write_bytes(content)
    for read in (load, problems):
        with pytest.raises(DarkroomError) as error:
            read(file)
        assert str(error.value).startswith(f"{file}")
        assert said in str(error.value)
        assert "\n" not in str(error.value)


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(
        DarkroomError, match=r"gone\.yaml: no such file here; write one with: darkroom recipe use scenes"
    ):
        load(tmp_path / "gone.yaml")
    with pytest.raises(DarkroomError, match="cannot be read"):
        load(tmp_path)


def test_numbers_are_read_as_dvc_reads_them(tmp_path: Path) -> None:
    """YAML 1.1, which PyYAML speaks, takes 1e-3 for text; DVC and everybody else for a number."""
    (tmp_path / "params.yaml").write_text(changed("train_unet", "learning_rate", "learning_rate: 1e-3"))
    assert load(tmp_path / "params.yaml").train_unet.optimizer.learning_rate == 0.001


def test_text_that_begins_as_a_number_is_text(tmp_path: Path) -> None:
    """As hashes do, one in fifteen."""
    (tmp_path / "params.yaml").write_text("hash: 2e21029eb52d.dir\nfolder: 1e5_pictures\nnumber: 1e5\n")
    assert read_yaml(tmp_path / "params.yaml") == {"hash": "2e21029eb52d.dir", "folder": "1e5_pictures", "number": 1e5}


def test_what_the_networks_have_built_in_is_known() -> None:
    assert LayerNormUNetConfig.times == TIMES


def test_a_bad_value_stops_a_stage_before_it_touches_anything(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(changed("train_vae", "steps", "steps: 0"))
    done = subprocess.run(
        [sys.executable, str(ROOT / "stages" / "train_vae.py")],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    said = "darkroom: train_vae: params.yaml: train_vae.steps = 0: give a whole number >= 1 and <= 100000000\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
