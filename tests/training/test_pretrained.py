"""Training from an imported model: its three networks read back to the bit, the stages that go on from it, refusals."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from darkroom.config.choices import PredictionType
from darkroom.config.denoisers import UNetSpec
from darkroom.config.diffusion import ProcessConfig
from darkroom.config.params import Params, read
from darkroom.core.artifact import content_hash, load_tensors, read_json, save_tensors, write_json
from darkroom.core.errors import DarkroomError
from darkroom.data.prepared_writer import PreparedWriter, Row
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.inference.folder import write_imported
from darkroom.interop.configs import SCALING_FACTOR
from darkroom.interop.pretrained import (
    read_pretrained_autoencoder,
    read_pretrained_text_encoder,
    read_pretrained_unet,
)
from darkroom.interop.source import read_model
from darkroom.planning import demands
from darkroom.runner.stage import Work
from darkroom.tracking import Run
from darkroom.tracking.note import Account
from tests.support import pipelines
from tests.support.diffusion import vp_config

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
FACTOR = 0.7  # of the model's latents
LATENT_SIDE = 4  # of other pictures than the model was made for
Readers = dict[str, Callable[[Path], Any]]
Stage = Callable[..., Any]
IMPORTED = "artifacts/imported/tiny"
SMALL: dict[str, Any] = {  # the recipe, for the model that `parts` makes
    "prepare_data": {"image_size": 16},
    "train_vae": {"path": f"{IMPORTED}/vae"},
    "setup_text_encoder": {"path": f"{IMPORTED}/text_encoder"},
    "train_unet": {
        "init_from": f"{IMPORTED}/unet",
        "unet": {"block_out_channels": [16, 32], "num_attention_heads": [2, 2], "norm_num_groups": 8},
        "objective": {"prediction_type": "v_prediction"},
        "steps": 2,
        "batch_size": 2,
        "accumulation": 2,
        "validate_every": 1,
        "log_every": 1,
        "held_out": 4,
        "sample_every": 2,
        "samples": 1,
        "sampling": {"num_inference_steps": 2},
    },
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `darkroom import` writes, of a model with a scaling factor of its own. Leave it as it is."""
    folder = tmp_path_factory.mktemp("imported")
    ours = pipelines.assembled(folder / "ours")
    write_imported(read_model(ours), ours, folder / "model")
    return folder / "model"


@pytest.fixture
def imported(made: Path, tmp_path: Path) -> Path:
    """A copy of it to work in."""
    shutil.copytree(made, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="module")
def wanted(made: Path) -> UNetSpec:
    """The imported U-Net's shape, for latents of another side."""
    return changed(read_model(made).unet, "sample_size", LATENT_SIDE)


def changed(spec: UNetSpec, key: str, value: Any) -> UNetSpec:
    """The spec with another value of one key, whether of its config or of its sizes."""
    parts = {name: {**part, key: value} if key in part else part for name, part in spec.model_dump().items()}
    return UNetSpec.model_validate(parts)


def tokenizer(made: Path) -> CLIPTokenizer:
    return CLIPTokenizer.read(made / "tokenizer")


@pytest.fixture(scope="module")
def readers(made: Path, wanted: UNetSpec) -> Readers:
    return {
        "unet": lambda folder: read_pretrained_unet(folder, wanted.network, wanted.sizes, CPU, *made_for(folder)),
        "vae": lambda folder: read_pretrained_autoencoder(folder, CPU),
        "text_encoder": lambda folder: read_pretrained_text_encoder(folder, tokenizer(made), CPU),
    }


def made_for(unet: Path) -> tuple[ProcessConfig, PredictionType]:
    """The process and the kind of prediction that an imported U-Net was trained for."""
    pipeline = read_json(unet.parent / "pipeline.json") if (unet.parent / "pipeline.json").is_file() else {}
    process: ProcessConfig = vp_config("linear")
    if "process" in pipeline:
        process = TypeAdapter(ProcessConfig).validate_python(pipeline["process"])
    return process, pipeline.get("prediction_type", "epsilon")


def holds(network: nn.Module, file: Path) -> bool:
    """Whether a network has exactly the weights of a file."""
    return same(network.state_dict(), load_tensors(file))


def same(found: dict[str, Tensor], held: dict[str, Tensor]) -> bool:
    held = {key.removeprefix("text_model."): value for key, value in held.items()}
    return found.keys() == held.keys() and all(torch.equal(found[key], held[key]) for key in found)


def test_the_unet_comes_ready_to_be_trained(made: Path, wanted: UNetSpec) -> None:
    network = read_pretrained_unet(made / "unet", wanted.network, wanted.sizes, CPU, *made_for(made / "unet"))
    assert holds(network, made / "unet" / "diffusion_pytorch_model.safetensors")
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert (network.config, network.sizes) == (wanted.network, wanted.sizes)


def test_the_autoencoder_comes_frozen_and_with_its_own_factor(made: Path) -> None:
    network, factor = read_pretrained_autoencoder(made / "vae", CPU)
    assert holds(network, made / "vae" / "diffusion_pytorch_model.safetensors")
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert factor == read_model(made).scaling_factor == FACTOR
    assert factor != SCALING_FACTOR  # which stands in where a file is silent


def test_the_text_encoder_comes_frozen(made: Path) -> None:
    network = read_pretrained_text_encoder(made / "text_encoder", tokenizer(made), CPU)
    assert holds(network, made / "text_encoder" / "model.safetensors")
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    assert network.config == read_model(made).text.network


@pytest.mark.parametrize(
    ("part", "other", "message"),
    [
        ("unet", "vae", "_class_name = 'AutoencoderKL' is not supported, only UNet2DConditionModel"),
        ("unet", "text_encoder", "_class_name = None is not supported, only UNet2DConditionModel"),
        ("vae", "unet", "_class_name = 'UNet2DConditionModel' is not supported, only AutoencoderKL"),
        ("vae", "text_encoder", "_class_name = None is not supported, only AutoencoderKL"),
        ("text_encoder", "unet", "model_type = None is not supported, only clip_text_model"),
    ],
)
def test_a_part_in_the_place_of_another_is_refused(
    part: str, other: str, message: str, made: Path, readers: Readers
) -> None:
    with pytest.raises(DarkroomError, match=rf"{other}/config\.json: {message}"):
        readers[part](made / other)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_what_was_not_imported_is_refused(part: str, imported: Path, readers: Readers) -> None:
    (imported / "pipeline.json").unlink()
    with pytest.raises(DarkroomError, match=rf"model/{part}: is not part of an imported model; take one in"):
        readers[part](imported / part)
    with pytest.raises(DarkroomError, match=r"nowhere/unet: is not part of an imported model"):
        readers[part](imported / "nowhere" / "unet")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_of_another_shape_or_torn_are_refused(part: str, imported: Path, readers: Readers) -> None:
    (file,) = (imported / part).glob("*.safetensors")
    key, value = max(load_tensors(file).items(), key=lambda item: item[1].numel())
    save_tensors(file, load_tensors(file) | {key: value[:-1]})
    name = re.escape(key.removeprefix("text_model."))
    fault = r"does not fit its config\.json: .*"
    shape, missing = rf"{fault} mismatch for {name}", rf"{fault}[Mm]issing"
    if part == "unet":  # whose weights are read one by one
        fault = "the weights do not fit the network: 1"
        shape, missing = rf"{fault} of another shape \({name} is ", rf"{fault} missing \({name}\)"
    with pytest.raises(DarkroomError, match=rf"{file.name}: {shape}"):
        readers[part](imported / part)
    save_tensors(file, {name: v for name, v in load_tensors(file).items() if name != key})
    with pytest.raises(DarkroomError, match=rf"{file.name}: {missing}"):
        readers[part](imported / part)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(DarkroomError, match=rf"{file.name}: not a readable safetensors file"):
        readers[part](imported / part)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "layers_per_block",
            2,
            r"train_unet\.unet\.layers_per_block = 2, but train_unet\.init_from = .*/unet has 1;",
        ),
        ("block_out_channels", [16, 64], r"train_unet\.unet\.block_out_channels = \[16, 64\], but .* has \[16, 32\]"),
        ("cross_attention_dim", 48, r"has cross_attention_dim = 32, but latents and conditions need 48"),
    ],
)
def test_a_unet_that_the_parameters_describe_otherwise_is_refused(
    key: str, value: Any, message: str, made: Path, wanted: UNetSpec
) -> None:
    other = changed(wanted, key, value)
    with pytest.raises(DarkroomError, match=message):
        read_pretrained_unet(made / "unet", other.network, other.sizes, CPU, *made_for(made / "unet"))


LINEAR = vp_config("linear", times=500)


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        ({}, None, []),
        (
            {"prediction_type": "epsilon"},
            None,
            ["train_unet.objective.prediction_type = 'v_prediction', but {} says 'epsilon'"],
        ),
        (
            {"process": vp_config("linear").model_dump()},
            LINEAR,
            ["train_unet.process.num_train_timesteps = 500, but {} says 1000"],
        ),
        (
            {"process": None},
            LINEAR,
            [
                f"train_unet.process.{key} = "
                for key in ("kind", "num_train_timesteps", "rescale_betas_zero_snr", "schedule")
            ],
        ),
    ],
    ids=["as it was trained", "another prediction", "another process", "a silent file"],
)
def test_a_process_or_prediction_that_is_not_the_imported_models_is_warned_of(
    theirs: dict[str, Any],
    ours: ProcessConfig | None,
    said: list[str],
    imported: Path,
    wanted: UNetSpec,
    caplog: pytest.LogCaptureFixture,
) -> None:
    process, prediction = made_for(imported / "unet")
    file = imported / "pipeline.json"
    write_json(file, read_json(file) | theirs)
    read_pretrained_unet(imported / "unet", wanted.network, wanted.sizes, CPU, ours or process, prediction)
    assert {record.levelname for record in caplog.records} <= {"WARNING"}
    for found, begins in zip(sorted(caplog.messages), sorted(said), strict=True):
        assert found.startswith(begins.format(file))


@pytest.mark.parametrize(("value", "message"), [(None, "lacks scaling_factor"), ("big", "scaling_factor = 'big'")])
def test_an_autoencoder_that_says_no_scaling_factor_is_refused(value: str | None, message: str, imported: Path) -> None:
    file = imported / "vae" / "config.json"
    config = {key: v for key, v in read_json(file).items() if key != "scaling_factor"}
    write_json(file, config if value is None else config | {"scaling_factor": value})
    with pytest.raises(DarkroomError, match=rf"vae/config\.json: {message}"):
        read_pretrained_autoencoder(imported / "vae", CPU)


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    assert changes.keys() <= values.keys()
    return {
        key: merged(value, changes[key]) if isinstance(changes.get(key), dict) else changes.get(key, value)
        for key, value in values.items()
    }


def prepare(channels: int = 3) -> None:
    """A few captioned pictures of noise in data/prepared."""
    rng = np.random.default_rng(0)
    writer = PreparedWriter(Path("data/prepared"), "noise", (), True, pipelines.SIZE, channels)
    for i, caption in enumerate(pipelines.CAPTIONS):
        shape = (pipelines.SIZE, pipelines.SIZE, 3)[: 3 if channels == 3 else 2]
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        writer.add("train" if i % 2 else "validation", Row(pixels, f"{i}.png", caption, (), ()))
    writer.finish()


def small() -> Params:
    recipe = merged(read(ROOT / "recipes" / "sd15-finetune-tiny.yaml"), SMALL)
    recipe["train_unet"]["process"] = pipelines.COSINE
    return Params.model_validate(recipe)


@pytest.fixture
def stage(made: Path, load: Callable[[Path], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Runs a stage in a project with an imported model and pictures."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, IMPORTED)
    prepare()
    params = small()

    def run(name: str) -> Any:
        untracked = Run(Account(name, {}, {}, {}, {}, "", False), tracked=False)
        return load(ROOT / "stages" / f"{name}.py").body(params, Work(CPU, untracked))

    return run


def test_the_stages_go_on_from_where_the_import_ended(stage: Stage) -> None:
    for name in ("train_vae", "cache_latents", "setup_text_encoder", "train_unet"):
        stage(name)
    imported, artifacts = Path(IMPORTED), Path("artifacts")
    for part, artifact in (("vae", "vae"), ("text_encoder", "text_encoder"), ("unet", "unet")):
        recorded = read_json(artifacts / artifact / "provenance.json")["inputs"]
        assert recorded[f"{IMPORTED}/{part}"] == content_hash(imported / part)
    assert content_hash(artifacts / "text_encoder" / "tokenizer") == content_hash(imported / "tokenizer")
    for file in ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        assert same(load_tensors(artifacts / file), load_tensors(imported / file)), file
    assert read_json("artifacts/vae/config.json")["scaling_factor"] == FACTOR
    latents = read_json("data/latents/config.json")
    assert (latents["scaling"], latents["scaling_factor"]) == ("imported", FACTOR)
    before, after = (load_tensors(f / "unet" / "diffusion_pytorch_model.safetensors") for f in (imported, artifacts))
    assert before.keys() == after.keys()
    moved = max(float((before[key] - after[key]).abs().max()) for key in before)
    assert 0 < moved < 3e-5  # two steps of AdamW at 1e-5
    assert read_json("reports/train_unet/metrics.json")["init_from"] == content_hash(imported / "unet")


def test_the_stages_refuse_what_does_not_fit_the_import(stage: Stage) -> None:
    stage("train_vae")
    silent = read_json("artifacts/vae/config.json") | {"scaling_factor": None}
    write_json("artifacts/vae/config.json", silent)
    with pytest.raises(DarkroomError, match=r"scaling = 'imported', but artifacts/vae/config\.json brings no"):
        stage("cache_latents")
    shutil.rmtree("data/prepared")
    prepare(channels=1)
    with pytest.raises(DarkroomError, match=rf"prepare_data\.channels = 1: {IMPORTED}/vae takes 3"):
        demands.met_at_start(small(), "train_vae", [Path("data/prepared")])
