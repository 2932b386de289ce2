"""The VGG16 distance: torchvision's network and weights, a distance's properties, refusals."""

from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.core.artifact import save_tensors
from darkroom.core.errors import DarkroomError
from darkroom.data.sources.torchvision_import import torchvision
from darkroom.nn.autoencoder.perceptual import PerceptualDistance, load_perceptual
from tests.support.measures import Difference


@pytest.fixture(scope="module")
def vgg_features() -> Any:
    """torchvision's VGG16 up to its classifier, with random weights."""
    vgg = torchvision("models.vgg")
    torch.manual_seed(0)
    return vgg.make_layers(vgg.cfgs["D"], batch_norm=False)


@pytest.fixture(scope="module")
def weights(vgg_features: Any) -> Any:
    named = {f"features.{key}": value for key, value in vgg_features.state_dict().items()}
    return {**named, "classifier.6.bias": torch.zeros(1000)}


@pytest.fixture(scope="module")
def distance(weights: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("vgg") / "vgg16.safetensors"
    save_tensors(path, weights)
    return load_perceptual(path)


def test_is_torchvisions_vgg16(distance: Any, vgg_features: Any, relative_difference: Difference) -> None:
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    last = distance._stages(images)[-1]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = ((images + 1) / 2 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    assert relative_difference(torch.nn.functional.max_pool2d(last, 2), vgg_features(x)) <= 1e-5


def test_is_a_distance(distance: Any) -> None:
    a, b = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    assert torch.equal(distance(a, a), torch.zeros(2))
    assert (distance(a, b) > 0).all()
    torch.testing.assert_close(distance(a, b), distance(b, a))
    assert (distance(a, a + 0.05 * (b - a)) < distance(a, b)).all()


def test_grey_pictures_count_as_three_equal_channels(distance: Any) -> None:
    a, b = torch.rand(2, 1, 1, 16, 16) * 2 - 1
    torch.testing.assert_close(distance(a, b), distance(a.expand(1, 3, 16, 16), b.expand(1, 3, 16, 16)))


def test_pictures_learn_and_weights_do_not(distance: Any) -> None:
    a, b = (torch.rand(2, 1, 3, 16, 16) * 2 - 1).requires_grad_().unbind(0)
    a.retain_grad()
    distance(a, b).sum().backward()
    assert a.grad.abs().max() > 0
    assert not any(p.requires_grad for p in distance.parameters())


def test_reads_pth_files_without_pickled_code(weights: Any, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "vgg16.pth")
    loaded = load_perceptual(tmp_path / "vgg16.pth")
    assert torch.equal(loaded.features[0].weight, weights["features.0.weight"])


def test_bad_files_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"code": PerceptualDistance}, tmp_path / "code.pth")
    for name in ("missing.pth", "missing.safetensors", "text.pth", "other.pth", "list.pth", "code.pth"):
        with pytest.raises(DarkroomError, match=name) as caught:
            load_perceptual(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_pictures_too_small_for_five_stages_are_refused(distance: Any) -> None:
    with pytest.raises(DarkroomError, match="16 pixels"):
        distance(torch.zeros(1, 3, 8, 32), torch.zeros(1, 3, 8, 32))
