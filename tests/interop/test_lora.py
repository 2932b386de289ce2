"""Adapters between tools: what is written here draws the same in diffusers, and theirs the same here."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from darkroom.core.artifact import load_tensors
from darkroom.core.errors import DarkroomError
from darkroom.inference.adapters import merge
from darkroom.inference.pipeline import Pipeline
from darkroom.interop.diffusers import read_text_encoder, read_unet
from darkroom.interop.lora import FILE, LoRA
from darkroom.interop.lora_scale import scale_of
from darkroom.nn.denoiser.adapted import AdaptedDenoiser
from darkroom.nn.layers.lora import adapted_layers
from tests.support import adapters, pipelines
from tests.support.diffusion import make_sampling

CPU = torch.device("cpu")
PROMPTS, SEEDS = ["a small red circle", "a large blue square"], [0, 1]
DDIM = make_sampling("ddim", 4, 3.0, "trailing")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pipelines.assembled(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="module")
def adapted(folder: Path) -> AdaptedDenoiser:
    """Both networks of the pipeline with adapters."""
    tokenizer = Pipeline.from_pretrained(folder, device="cpu").text
    assert tokenizer is not None
    text = read_text_encoder(folder / "text_encoder", tokenizer[0], CPU)
    return adapters.random_adapters(read_unet(folder / "unet", CPU, "fp32"), text)


@pytest.fixture(scope="module")
def file(adapted: AdaptedDenoiser, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return adapters.write(tmp_path_factory.mktemp("lora") / FILE, adapted)


@pytest.fixture
def theirs(folder: Path, diffusers: Any) -> Any:
    """diffusers' pipeline of the folder, fresh."""
    pytest.importorskip("peft", reason="adapters in diffusers need peft, of the test extras")
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def ours(folder: Path, *loras: LoRA) -> Tensor:
    """Latents (N, c, h, w)."""
    pipeline = Pipeline.from_pretrained(folder, device="cpu", lora=loras)
    request = pipeline.request(PROMPTS, {"seeds": SEEDS, "sampling": DDIM})
    with torch.no_grad():
        return pipeline.latents(request, pipeline.prompts(PROMPTS), slice(0, 2))


def drawn(theirs: Any, folder: Path) -> Tensor:
    start = Pipeline.from_pretrained(folder, device="cpu").start(SEEDS)
    call = {"num_inference_steps": 4, "guidance_scale": 3.0, "latents": start, "height": 16, "width": 16}
    found: Tensor = theirs(PROMPTS, output_type="latent", **call).images
    return found


def decibels(found: Tensor, expected: Tensor) -> float:
    peak = float(expected.max() - expected.min())
    return 10 * math.log10(peak**2 / max(float((found - expected).square().mean()), 1e-30))


def test_diffusers_draws_the_same_with_what_is_written_here(folder: Path, file: Path, theirs: Any) -> None:
    """Names, alpha and layers of both networks: fails if diffusers takes another scale or leaves out a factor."""
    theirs.load_lora_weights(file)
    found = ours(folder, LoRA(file))
    assert decibels(found, drawn(theirs, folder)) >= 100
    assert decibels(found, ours(folder)) < 30


def test_strengths_of_two_adapters_are_those_of_diffusers(
    folder: Path, file: Path, theirs: Any, tmp_path: Path
) -> None:
    other = adapters.write(
        tmp_path / FILE, adapters.random_adapters(read_unet(folder / "unet", CPU, "fp32"), None, seed=1)
    )
    for name, path in (("first", file), ("second", other)):
        theirs.load_lora_weights(path, adapter_name=name)
    theirs.set_adapters(["first", "second"], [0.8, -0.5])
    theirs.text_encoder.set_adapter("first")
    assert decibels(ours(folder, LoRA(file, 0.8), LoRA(other, -0.5)), drawn(theirs, folder)) >= 100


def peft_written(theirs: Any, destination: Path, **patterns: dict[str, float]) -> Path:
    """A file by diffusers' own saving of PEFT's adapters; patterns: alpha_pattern of each network."""
    import peft
    from diffusers.training_utils import _collate_lora_metadata

    names = {"unet": ["to_q", "to_k", "to_v", "to_out.0", "conv2"], "text_encoder": ["q_proj", "fc1"]}
    for network, targets in names.items():
        how = {"target_modules": targets, "alpha_pattern": patterns.get(network, {})}
        config = peft.LoraConfig(r=2, lora_alpha=5, init_lora_weights=False, **how)
        getattr(theirs, network).add_adapter(config)
    layers = {f"{name}_lora_layers": peft.get_peft_model_state_dict(getattr(theirs, name)) for name in names}
    metadata = _collate_lora_metadata({name: getattr(theirs, name) for name in names})
    type(theirs).save_lora_weights(destination, **layers, **metadata)
    return destination / FILE


def test_what_peft_wrote_draws_the_same_here(folder: Path, theirs: Any, tmp_path: Path) -> None:
    """Fails if lora_alpha of the metadata is overlooked, a convolution's adapter or one of the text encoder is."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        path = peft_written(theirs, tmp_path)
    found = ours(folder, LoRA(path))
    assert decibels(found, drawn(theirs, folder)) >= 100
    assert decibels(found, ours(folder)) < 40


def test_alphas_by_pattern_are_those_of_peft(folder: Path, theirs: Any, tmp_path: Path) -> None:
    """Fails if the last key that matches wins, if a key is not a regular expression, or if a layer of the text encoder
    does not go by the name that PEFT sees: as it was until keys were compared as plain ends."""
    fc1 = next(name for name, _ in theirs.text_encoder.named_modules() if name.endswith("fc1"))
    unet = {"attn1.to_q": 9.0, "to_q": 1.0, r"down_blocks\.\d\..*attn2\.to_[kv]": 8.0, "to_out.0|conv2": 3.0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        path = peft_written(theirs, tmp_path, unet=unet, text_encoder={f"^{fc1}": 12.0, ".*q_proj": 1.0})
    assert decibels(ours(folder, LoRA(path)), drawn(theirs, folder)) >= 100


@pytest.mark.parametrize("prefix", ["", "text_model."])
def test_a_pattern_names_a_layer_of_the_text_encoder_with_its_prefix_or_without(prefix: str) -> None:
    """transformers gives the layers a prefix or none, by its version."""
    names = ["encoder.layers.0.mlp.fc1", "text_model.encoder.layers.0.mlp.fc1"]
    patterns = {"alpha_pattern": {f"^{prefix}encoder.layers.0.mlp.fc1": 8}, "lora_alpha": 2}
    assert scale_of(Path("x"), patterns, names, None, 2) == 4.0


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"alpha_pattern": {"to_(q": 1}}, r"to_\(q is no regular expression"),
        ({"alpha_pattern": {"(.+)+x": 1}}, "too intricate"),
        ({"alpha_pattern": {".*.*.*.*x": 1}}, "too intricate"),
        ({"alpha_pattern": {"a" * 201: 1}}, "too intricate"),
        ({"alpha_pattern": [1]}, "is no mapping"),
        ({"lora_alpha": True}, "is not a number"),
        ({"lora_alpha": math.nan}, "is not a number"),
        ({"use_dora": True}, "DoRA"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(DarkroomError, match=says):
        scale_of(Path("x"), config, ["mid.to_q"], None, 2)


@pytest.mark.parametrize("how", [{"alpha_pattern": {"attn1.to_q": 3}}, {"use_rslora": True}], ids=["alphas", "rslora"])
def test_what_peft_itself_saved_is_read_with_its_configuration(
    folder: Path, theirs: Any, tmp_path: Path, how: dict[str, Any]
) -> None:
    """Also beside a .bin, found by its folder: until its configuration was looked for by the file's stem, it was passed
    over there, and every layer drawn at scale 1."""
    import peft

    config = peft.LoraConfig(r=2, lora_alpha=6, init_lora_weights=False, target_modules=["to_q"], **how)
    model = peft.get_peft_model(theirs.unet, config)
    model.save_pretrained(str(tmp_path))
    expected, saved = drawn(theirs, folder), tmp_path / "adapter_model.safetensors"
    assert decibels(ours(folder, LoRA(tmp_path)), expected) >= 100
    torch.save(load_file(saved), saved.with_suffix(".bin"))
    saved.unlink()
    assert decibels(ours(folder, LoRA(tmp_path)), expected) >= 100
    assert decibels(ours(folder, LoRA(saved.with_suffix(".bin"))), expected) >= 100


def test_kohyas_names_are_the_same_adapter(
    folder: Path, file: Path, adapted: AdaptedDenoiser, theirs: Any, tmp_path: Path
) -> None:
    path = adapters.write_as_kohya(tmp_path / "kohya.safetensors", adapted)
    assert torch.equal(ours(folder, LoRA(path)), ours(folder, LoRA(file)))
    theirs.load_lora_weights(path)
    assert decibels(ours(folder, LoRA(path)), drawn(theirs, folder)) >= 100


def test_what_diffusers_exports_for_kohyas_tools_is_read(folder: Path, file: Path, theirs: Any, tmp_path: Path) -> None:
    """Fails if an integer alpha is refused, or the text encoder called te1, as they were."""
    from diffusers.utils import convert_state_dict_to_kohya

    path = tmp_path / "kohya.safetensors"
    tensors = {key: value.contiguous() for key, value in convert_state_dict_to_kohya(load_file(file)).items()}
    assert {value.dtype for key, value in tensors.items() if key.endswith(".alpha")} == {torch.int64}
    assert any(key.startswith("lora_te1_") for key in tensors)
    save_file(tensors, path)
    theirs.load_lora_weights(path)
    assert decibels(ours(folder, LoRA(path)), drawn(theirs, folder)) >= 100
    twice = {key.replace("lora_te1_", "lora_te_"): value.clone() for key, value in tensors.items()}
    save_file(tensors | twice, path)
    with pytest.raises(DarkroomError, match="give it once"):
        ours(folder, LoRA(path))


def test_kohyas_names_of_a_text_encoder_of_transformers_5_are_read(folder: Path, theirs: Any, tmp_path: Path) -> None:
    """Which has no text_model in them: lora_te1_encoder_layers_…, as diffusers exports what it trained."""
    from diffusers.utils import convert_state_dict_to_kohya

    with torch.random.fork_rng():
        torch.manual_seed(0)
        tensors = load_file(peft_written(theirs, tmp_path))
    if any("text_model" in key for key in tensors):
        pytest.skip("transformers before 5")
    save_file(tensors, tmp_path / "at-scale-1.safetensors")
    named = {key: value.contiguous() for key, value in convert_state_dict_to_kohya(tensors).items()}
    assert any(key.startswith("lora_te1_encoder_layers_") for key in named)
    save_file(named, tmp_path / "kohya.safetensors")
    found = ours(folder, LoRA(tmp_path / "kohya.safetensors"))
    assert torch.equal(found, ours(folder, LoRA(tmp_path / "at-scale-1.safetensors")))


def test_the_oldest_names_of_the_text_encoder_are_the_same_adapter(
    folder: Path, file: Path, theirs: Any, tmp_path: Path
) -> None:
    """self_attn.to_q_lora.up.weight, which was refused."""
    text = {key: value for key, value in load_file(file).items() if key.startswith("text_encoder.")}
    older = {}
    for key, value in text.items():
        layer, _, part = key.partition(".lora_")
        attention, _, projection = layer.removesuffix("_proj").rpartition(".")
        end = f"to_{projection}_lora.{'down' if part.startswith('A') else 'up'}.weight"
        older[f"{attention}.{end}"] = value
    assert any(key.endswith(".self_attn.to_out_lora.up.weight") for key in older)
    save_file(older, tmp_path / "older.safetensors")
    save_file(text, tmp_path / "text.safetensors")
    found = ours(folder, LoRA(tmp_path / "older.safetensors"))
    assert torch.equal(found, ours(folder, LoRA(tmp_path / "text.safetensors")))
    theirs.load_lora_weights(tmp_path / "older.safetensors")
    assert decibels(found, drawn(theirs, folder)) >= 100
    assert decibels(found, ours(folder)) < 40


def test_older_names_of_diffusers_are_the_same_adapter(folder: Path, tmp_path: Path) -> None:
    unet = adapters.random_adapters(read_unet(folder / "unet", CPU, "fp32"), None, targets=["to_q", "to_out.0"])
    tensors = unet.state_dict()
    older = {}
    for key, value in tensors.items():
        layer, _, part = key.partition(".lora_")
        end = f"_lora.{'down' if part.startswith('A') else 'up'}.weight"
        attention, _, projection = layer.removesuffix(".0").rpartition(".")
        older[f"{attention}.processor.{projection}{end}"] = 2 * value if part.startswith("B") else value
    save_file(older, tmp_path / "older.safetensors")
    path = adapters.write(tmp_path / FILE, unet)
    assert decibels(ours(folder, LoRA(tmp_path / "older.safetensors")), ours(folder, LoRA(path))) >= 100


def test_the_merged_pipeline_is_base_plus_adapter(
    folder: Path, file: Path, adapted: AdaptedDenoiser, tmp_path: Path
) -> None:
    """And strength 0 is the base, to the bit."""
    merge(folder, tmp_path / "merged", [LoRA(file, 0.7)])
    with_adapter = ours(folder, LoRA(file, 0.7))
    assert torch.equal(ours(tmp_path / "merged"), with_adapter)
    assert torch.equal(ours(folder, LoRA(file, 0.0)), ours(folder))
    weights = load_tensors(tmp_path / "merged" / "unet" / "diffusion_pytorch_model.safetensors")
    base = read_unet(folder / "unet", CPU, "fp32").double()
    layers = AdaptedDenoiser(base, None, adapters.TARGETS, adapters.RANK, adapters.ALPHA, halved=False)
    layers.load_state_dict({k: v for k, v in adapted.state_dict().items() if k.startswith("unet.")})
    for layer in adapted_layers(layers):
        layer.strength = 0.7
    x, t, words = torch.randn(2, 4, 8, 8).double(), torch.tensor([3.0, 700.0]).double(), torch.randn(2, 5, 32).double()
    plain = read_unet(folder / "unet", CPU, "fp32")
    plain.load_state_dict(weights)
    plain.double()
    with torch.no_grad():
        beside = layers.double()(x, t, layers.prepare_context(words))
        inside = plain(x, t, plain.prepare_context(words))
    assert decibels(inside, beside) >= 100


def test_files_of_equal_adapters_are_equal(adapted: AdaptedDenoiser, file: Path, tmp_path: Path) -> None:
    """Fails if the metadata's keys, which safetensors writes in any order, are not put in one."""
    assert all(adapters.write(tmp_path / FILE, adapted).read_bytes() == file.read_bytes() for _ in range(8))


def alphas(tensors: dict[str, Tensor], alpha: Tensor) -> dict[str, Tensor]:
    """An alpha for each layer."""
    return {f"{key.partition('.lora_')[0]}.alpha": alpha for key in tensors}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t | {"unet.down_blocks.7.conv.lora_A.weight": torch.ones(3, 4)}, "down_blocks.7.conv.lora_A"),
        (lambda t: t | {"lora_unet_mid_block.hada_w1_a": torch.ones(3, 4)}, "lora_unet_mid_block.hada_w1_a"),
        (lambda t: {k: v for i, (k, v) in enumerate(sorted(t.items())) if i != 1}, "lora_A.weight has no up"),
        (lambda t: {k: v[:, :-1] if "lora_A" in k else v for k, v in t.items()}, "for a weight of"),
        (lambda t: t | {k.replace("lora_A", "lora_down"): v for k, v in t.items() if "lora_A" in k}, "give it once"),
        (lambda t: {k: v * float("nan") for k, v in t.items()}, "not finite"),
        (lambda t: {k: v.flatten() if "lora_A" in k else v for k, v in t.items()}, "layers do not fit"),
        (lambda t: {k: v.flatten() if "lora_B" in k else v for k, v in t.items()}, "layers do not fit"),
        (lambda t: {k: v.sum() for k, v in t.items()}, "layers do not fit"),
        (lambda t: {k: v[:0] if "lora_A" in k else v[:, :0] for k, v in t.items()}, "layers do not fit"),
        (lambda t: t | alphas(t, torch.ones(0)), r"alpha is \[0\], not one number"),
        (lambda t: t | alphas(t, torch.ones(2)), r"alpha is \[2\], not one number"),
        (lambda t: t | alphas(t, torch.tensor(True)), "bool"),
    ],
    ids=[
        "unknown layer",
        "unknown kind",
        "half",
        "shape",
        "twice",
        "nan",
        "down of one dimension",
        "up of one dimension",
        "numbers",
        "rank 0",
        "no alpha",
        "two alphas",
        "alpha of bools",
    ],
)
def test_what_does_not_fit_is_named(
    folder: Path, file: Path, tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], says: str
) -> None:
    changed = {key: value.clone().contiguous() for key, value in change(load_file(file)).items()}
    save_file(changed, tmp_path / "changed.safetensors")
    with pytest.raises(DarkroomError, match=says):
        ours(folder, LoRA(tmp_path / "changed.safetensors"))


@pytest.mark.parametrize("text", ["a:b", "a:11", "a:nan"])
def test_a_strength_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(DarkroomError, match="a:"):
        LoRA.parse(text)


def test_a_strength_is_what_follows_the_last_colon(tmp_path: Path) -> None:
    there = tmp_path / "odd:0.5"
    there.touch()
    assert LoRA.parse("c:file:0.5") == (Path("c:file"), 0.5)
    assert LoRA.parse("file") == (Path("file"), 1.0)
    assert LoRA.parse(str(there)) == (there, 1.0)
