"""The laws of drawing from pictures, of sizes, negatives and options."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.core.errors import DarkroomError
from darkroom.inference.editing import as_mask
from darkroom.inference.options import Options
from darkroom.inference.pipeline import Pipeline
from darkroom.nn.autoencoder import tiling as memory
from tests.support.noting import noted

PROMPTS = ["a small red circle", "a large blue square", "a small green square"]
SAMPLERS = ["ddim", "ddpm", "heun", "dpmpp_2m_sde"]
Make = Callable[..., Pipeline]
Apart = Callable[[torch.Tensor, torch.Tensor], int]


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def scene() -> torch.Tensor:
    return noise(3, 16, 16)


@pytest.fixture
def mask() -> torch.Tensor:
    wanted = torch.zeros(16, 16, dtype=torch.bool)
    wanted[5:12, 3:10] = True
    return wanted


def test_strength_0_is_the_round_trip_and_1_a_new_picture(make: Make, scene: torch.Tensor) -> None:
    pipeline = make()
    back = pipeline.image_to_image(PROMPTS[0], scene, strength=0).tensor
    assert torch.equal(back, pipeline.decode(pipeline.encode(scene[None])))
    new = pipeline.image_to_image(PROMPTS[0], scene, strength=1).tensor
    assert torch.equal(new, pipeline.text_to_image(PROMPTS[0]).tensor)


def test_every_strength_between_is_defined_and_its_own(
    make: Make, scene: torch.Tensor, forwards: list[int], apart: Apart
) -> None:
    pipeline, drawn = make(), []
    steps = {0.001: 1, 0.25: 1, 0.3: 2, 0.5: 2, 0.75: 3, 0.99: 4}
    for strength, calls in steps.items():
        forwards.clear()
        drawn.append(pipeline.image_to_image(PROMPTS[0], scene, strength=strength).tensor)
        assert len(forwards) == calls  # of 4 steps
    assert all(apart(a, b) > 1 for i, a in enumerate(drawn) for b in drawn[:i])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_pictures_drawn_from_pictures_do_not_depend_on_their_batch(sampler: Any, make: Make, apart: Apart) -> None:
    pipeline, scenes = make(), noise(3, 3, 16, 16)
    how: Any = {"sampler": sampler, "strength": 0.7}
    together = pipeline.image_to_image(PROMPTS, scenes, seeds=[7, 40, 2], batch_size=2, **how).tensor
    alone = [pipeline.image_to_image(PROMPTS[i], scenes[i], seeds=[s], **how).tensor for i, s in enumerate([7, 40, 2])]
    assert apart(together, torch.cat(alone)) <= 1


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("strength", [0.0, 0.6, 1.0])
def test_inpainting_leaves_the_rest_as_given(
    sampler: Any, strength: float, make: Make, scene: torch.Tensor, mask: torch.Tensor
) -> None:
    pipeline, ends = make(), []

    def watch(step: int, x: torch.Tensor, x0: torch.Tensor) -> None:
        ends.append((x, x0))

    drawn = pipeline.inpaint(PROMPTS[0], scene, mask, strength=strength, sampler=sampler, on_step=watch).tensor
    assert torch.equal(drawn[:, :, ~mask], scene[None][:, :, ~mask])
    assert (drawn[:, :, mask] != scene[None][:, :, mask]).float().mean() > 0.5
    untouched = torch.nn.functional.max_pool2d(mask.float()[None, None], 2)[0, 0] == 0
    for _, x0 in ends:  # what is expected of the latents outside is what is known of them, at every step
        assert torch.equal(x0[..., untouched], pipeline.encode(scene[None])[..., untouched])


def test_latents_outside_the_mask_end_as_they_were(make: Make, scene: torch.Tensor, mask: torch.Tensor) -> None:
    from darkroom.inference.editing import Edit, kept

    pipeline, known = make(), make().encode(scene[None])
    keep = kept(mask[None, None], pipeline.multiple, pipeline.vae.downscale)
    how = pipeline.sampling(sampler="heun")
    edit = Edit(known, 0.8, keep)
    request = pipeline.request(["a"], {"seeds": [0], "sampling": how})
    found = pipeline.latents(request, pipeline.prompts(["a"]), slice(0, 1), edit=edit)
    outside = keep.expand_as(found)
    assert torch.equal(found[outside], known[outside])
    assert not torch.isclose(found[~outside], known[~outside], atol=1e-3).all()


def test_masks_of_no_pixel_and_of_all(make: Make, scene: torch.Tensor) -> None:
    pipeline = make()
    nothing = pipeline.inpaint("a", scene, torch.zeros(16, 16, dtype=torch.bool)).tensor
    assert torch.equal(nothing[0], scene)
    white = torch.full((1, 16, 16), 255, dtype=torch.uint8)
    every = pipeline.inpaint("a", scene, white, strength=1).tensor
    assert torch.equal(every, pipeline.text_to_image("a").tensor)


def test_a_mask_painted_on_nothing_asks_for_what_is_painted(mask: torch.Tensor) -> None:
    levels = mask.numpy().astype(np.uint8) * 255
    white = np.full((16, 16, 3), 255, np.uint8)
    painted = Image.fromarray(np.dstack([white, levels]))  # what cannot be seen is white as well
    palette = Image.fromarray(levels // 255)
    palette.putpalette([255] * 6)
    palette.info["transparency"] = 0
    half = Image.fromarray(np.dstack([white, levels // 2 + 1]))  # as light as grey that asks
    deep = Image.fromarray(levels.astype(np.uint16) * 257)
    for picture in (Image.fromarray(levels), painted, painted.convert("LA"), palette, half, deep):
        assert torch.equal(as_mask(picture, (16, 16))[0, 0], mask), picture.mode


@pytest.mark.parametrize("size", [(16, 24), (9, 21), (1, 1)])
def test_any_size_is_padded_and_cropped_back(size: tuple[int, int], make: Make) -> None:
    pipeline, (height, width) = make(), size
    drawn = pipeline.text_to_image("a", height=height, width=width, num_inference_steps=1).tensor
    assert drawn.shape == (1, 3, height, width)
    scene = noise(3, height, width)
    for strength in (0, 0.5):
        again = pipeline.image_to_image("a", scene, strength=strength).tensor
        assert again.shape == (1, 3, height, width)
    wanted = torch.zeros(height, width, dtype=torch.bool)
    wanted[0, 0] = True
    painted = pipeline.inpaint("a", scene, wanted).tensor
    assert torch.equal(painted[0][:, ~wanted], scene[:, ~wanted])


def wipe(step: int, x: torch.Tensor, x0: torch.Tensor) -> None:
    x.zero_()
    x0.zero_()


def test_the_callers_pictures_are_not_changed(make: Make, scene: torch.Tensor, mask: torch.Tensor) -> None:
    pipeline, before, mask_before = make(), scene.clone(), mask.clone()
    drawn = pipeline.inpaint("a", scene, mask).tensor
    drawn.zero_()
    pipeline.image_to_image("a", scene, strength=0.5, on_step=wipe)
    assert torch.equal(scene, before)
    assert torch.equal(mask, mask_before)


def test_pictures_of_any_mode_are_taken(make: Make) -> None:
    for channels in (1, 3):
        pipeline = make(channels=channels)
        for mode in ("L", "RGB", "RGBA", "P", "1"):
            (drawn,) = pipeline.image_to_image("a", Image.new(mode, (16, 12)), num_inference_steps=1).images
            assert drawn.size == (16, 12)


def test_a_negative_prompt_leads_away_and_the_prompt_itself_cancels_guidance(make: Make, apart: Apart) -> None:
    pipeline = make()
    plain = pipeline.text_to_image(PROMPTS, guidance_scale=1).tensor
    cancelled = pipeline.text_to_image(PROMPTS, guidance_scale=6, negative_prompt=PROMPTS).tensor
    assert apart(plain, cancelled) <= 1
    usual = pipeline.text_to_image(PROMPTS, guidance_scale=6).tensor
    empty = pipeline.text_to_image(PROMPTS, guidance_scale=6, negative_prompt="").tensor
    assert apart(usual, empty) <= 1  # the null condition of this model is the empty prompt
    away = pipeline.text_to_image(PROMPTS, guidance_scale=6, negative_prompt="a large blue circle").tensor
    assert apart(usual, away) > 5
    classes = make(kind="class")
    plain = classes.text_to_image("one", guidance_scale=1).tensor
    assert apart(plain, classes.text_to_image("one", negative_prompt="one").tensor) <= 1


def test_rescaled_guidance_is_another_picture_and_none_without_guidance(make: Make, apart: Apart) -> None:
    options: dict[str, Any] = {"guidance_rescale": 1.0}
    pipeline = make()
    plain = pipeline.text_to_image(PROMPTS, guidance_scale=9).tensor
    assert apart(plain, pipeline.text_to_image(PROMPTS, guidance_scale=9, **options).tensor) > 5
    unguided = pipeline.text_to_image(PROMPTS, guidance_scale=1).tensor
    assert torch.equal(unguided, pipeline.text_to_image(PROMPTS, guidance_scale=1, **options).tensor)


@pytest.mark.parametrize(
    ("method", "call", "message"),
    [
        ("image_to_image", {"strength": 1.5}, "strength = 1.5: give a number from 0"),
        ("image_to_image", {"strength": float("nan")}, "strength = nan"),
        ("image_to_image", {"strength": -0.1}, "strength = -0.1"),
        ("image_to_image", {"image": []}, "image: none given"),
        ("image_to_image", {"image": torch.zeros(3, 16, 16)}, r"image: a tensor \(3, 16, 16\) of torch.float32"),
        ("image_to_image", {"image": noise(2, 3, 16, 16), "seeds": [1, 2, 3]}, "image: 2 given for 3 prompts"),
        ("image_to_image", {"image": [Image.new("L", (4, 4)), Image.new("L", (4, 5))]}, "pictures of several sizes"),
        ("inpaint", {"mask": Image.new("L", (8, 16))}, "mask: 8 x 16 pixels for a picture of 16 x 16"),
        ("inpaint", {"mask": torch.zeros(16, 16)}, "mask: a tensor .* of torch.float32"),
        ("inpaint", {"strength": 2}, "strength = 2"),
        ("text_to_image", {"height": 0}, "height = 0: give 1 or more"),
        ("text_to_image", {"seeds": []}, "seeds: none given"),
        ("text_to_image", {"negative_prompt": ["a", "b"]}, "negative_prompt: 2 given for 1 picture;"),
        ("text_to_image", {"sampler": "pndm"}, "sampler = 'pndm': extrapolates"),
        ("text_to_image", {"guidance_rescale": 1.1}, "guidance_rescale = 1.1: give a number from 0 to 1"),
    ],
)
def test_bad_requests_are_refused_in_one_line(method: str, call: dict[str, Any], message: str, make: Make) -> None:
    given: dict[str, Any] = {} if method == "text_to_image" else {"image": noise(3, 16, 16)}
    if method == "inpaint":
        given["mask"] = torch.ones(16, 16, dtype=torch.bool)
    with pytest.raises(DarkroomError, match=message) as caught:
        getattr(make(), method)("a", **{**given, **call})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["image_to_image", "inpaint"])
def test_a_bad_strength_is_refused_before_any_work(
    method: str, make: Make, scene: torch.Tensor, mask: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pipeline, "encode", lambda *_: pytest.fail("the picture was encoded"))
    pictures = (scene,) if method == "image_to_image" else (scene, mask)
    with pytest.raises(DarkroomError, match=r"strength = 1\.5"):
        getattr(make(), method)("a", *pictures, strength=1.5)


def test_an_unknown_option_is_a_mistake_in_the_program(make: Make) -> None:
    with pytest.raises(TypeError, match=r"unknown options: guidance; there are negative_prompt, "):
        make().text_to_image("a", guidance=3.0)  # type: ignore[call-arg]
    assert "sampling" in Options.__annotations__


def test_large_pictures_go_through_the_autoencoder_one_by_one_and_in_tiles(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, ...]] = []
    vae = make().vae
    z = torch.randn(3, 4, 20, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = vae.decode(z)
        assert torch.allclose(memory.decode(vae, z, at_once=1), whole, atol=1e-4)
        decode = type(vae).decode
        monkeypatch.setattr(type(vae), "decode", lambda self, z: noted(sizes, tuple(z.shape), decode(self, z)))
        monkeypatch.setattr(memory, "TILE", 32)
        monkeypatch.setattr(memory, "OVERLAP", 8)
        tiled = memory.decode(vae, z, whole=1)
        assert tiled.shape == whole.shape
        assert set(sizes) == {(1, 4, 16, 16)}
        # alike but for what each tile's norms see
        assert float((tiled - whole).square().mean()) < 0.3 * float(whole.var())
        mean = memory.encode(vae, whole, whole=1)
        assert mean.shape == z.shape


def test_tiles_of_a_network_without_norms_give_what_the_whole_gives() -> None:
    class Enlarging:
        downscale = 2

        def decode(self, z: torch.Tensor) -> torch.Tensor:
            return z.repeat_interleave(2, 2).repeat_interleave(2, 3)

    z = torch.randn(2, 4, 700, 300, generator=torch.Generator().manual_seed(0))
    vae: Any = Enlarging()
    torch.testing.assert_close(memory.decode(vae, z, whole=1), vae.decode(z), rtol=0, atol=1e-5)


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("way", ["decode", "encode"])
def test_a_tile_fades_into_the_next(way: str, upright: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles that are as unlike as can be, each of one grey: over the overlap no step is larger than one share of it."""

    class Counting:
        downscale = 2
        tiles = 0

        def decode(self, z: torch.Tensor) -> torch.Tensor:
            self.tiles += 1
            return torch.full((1, 3, 2 * z.shape[2], 2 * z.shape[3]), float(self.tiles))

        def encode(self, pictures: torch.Tensor) -> Any:
            self.tiles += 1
            sides = pictures.shape[2] // 2, pictures.shape[3] // 2
            return SimpleNamespace(mean=torch.full((1, 4, *sides), float(self.tiles)))

    monkeypatch.setattr(memory, "TILE", 32)
    monkeypatch.setattr(memory, "OVERLAP", 8)
    vae: Any = Counting()
    given, overlap = (torch.zeros(1, 4, 16, 48), 8) if way == "decode" else (torch.zeros(1, 3, 32, 96), 4)
    found = getattr(memory, way)(vae, given.mT if upright else given, whole=1)
    line = found[0, 0, :, 0] if upright else found[0, 0, 0]
    assert vae.tiles == 4  # three would not overlap
    assert (float(line[0]), float(line[-1])) == (1, 4)
    steps = line.diff()
    assert float(steps.min()) >= -1e-6
    assert float(steps.max()) <= 1 / (overlap + 1) + 1e-6
