"""The judges and their trunk: shapes, independence of the batch, sight of positions."""

from typing import Any

import pytest
import torch

from darkroom.config.networks import ClassifierSpec
from darkroom.core.errors import DarkroomError
from darkroom.nn.judge.classifier import rotated
from darkroom.nn.judge.conv_tower import ConvTower
from tests.support.measures import Difference
from tests.support.networks import built, classifier, selfsupervised, tower


@pytest.mark.parametrize(("side", "channels"), [(28, 1), (32, 3), (64, 3)])
def test_tower_reads_pictures_of_28_to_64_pixels(side: int, channels: int) -> None:
    network = ConvTower(tower(depth=2), channels)
    assert network(torch.randn(2, channels, side, side)).shape == (2, network.out_features)


def test_tower_tells_left_from_right_and_above_from_below() -> None:
    network = ConvTower(tower(), 1)
    picture = -torch.ones(1, 1, 32, 32)
    picture[:, :, 4:12, 4:12] = 1
    seen = [network(turned) for turned in (picture, picture.flip(2), picture.flip(3))]
    differences = [(a - b).norm() / a.norm() for a, b in zip(seen, seen[1:] + seen[:1], strict=True)]
    assert min(differences) > 0.1


def test_features_do_not_depend_on_the_batch(relative_difference: Difference) -> None:
    network, images = ConvTower(tower(), 3), torch.randn(4, 3, 32, 32)
    assert relative_difference(network(images), torch.cat([network(image[None]) for image in images])) <= 1e-5


def test_classifier_has_one_head_per_attribute() -> None:
    judge = built(classifier((6, 8, 2)))
    images = torch.randn(5, 3, 32, 32)
    assert [logits.shape for logits in judge(images)] == [(5, 6), (5, 8), (5, 2)]
    assert torch.equal(judge(images)[1], judge.heads[1](judge.features(images)))


def test_rotated_says_how_often_each_picture_was_turned() -> None:
    images = torch.randn(2, 3, 5, 5)
    turned, turns = rotated(images)
    assert turns.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for picture, k, original in zip(turned, turns.tolist(), torch.cat([images] * 4), strict=True):
        assert torch.equal(torch.rot90(picture, -k, dims=(1, 2)), original)


@pytest.mark.parametrize("kind", ["classifier", "selfsupervised"])
def test_every_weight_learns(kind: str) -> None:
    images = torch.randn(2, 3, 28, 28)
    judge: Any
    if kind == "classifier":
        judge = built(classifier((3, 2)))
        loss = sum(logits.logsumexp(1).sum() for logits in judge(images))
    else:
        judge = built(selfsupervised())
        turned, turns = rotated(images)
        loss = torch.nn.functional.cross_entropy(judge(turned), turns)
    loss.backward()
    assert [n for n, p in judge.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_a_small_classifier_learns_where_a_square_stands() -> None:
    judge = built(classifier((4,), channels=1))
    optimiser = torch.optim.Adam(judge.parameters(), lr=3e-3)
    corners = [(0, 0), (0, 16), (16, 0), (16, 16)]

    def batch(n: int) -> Any:
        where = torch.randint(0, 4, (n,))
        images = -torch.ones(n, 1, 32, 32) + 0.1 * torch.randn(n, 1, 32, 32)
        for image, k in zip(images, where.tolist(), strict=True):
            y, x = (corner + int(torch.randint(0, 8, ())) for corner in corners[k])
            image[:, y : y + 8, x : x + 8] += 2
        return images, where

    for _ in range(12):
        images, where = batch(32)
        loss = torch.nn.functional.cross_entropy(judge(images)[0], where)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    images, where = batch(64)
    assert (judge(images)[0].argmax(1) == where).float().mean() > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"width": 20}}, "width = 20 is not divisible"),
        ({"sizes": {"classes": [], "absent": []}}, "classes = "),
        ({"sizes": {"classes": [4, 1], "absent": [False] * 2}}, r"classes\.1 = 1: give a whole number >= 2"),
    ],
)
def test_bad_configs_are_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    values = classifier((4,)).model_dump()
    with pytest.raises(DarkroomError, match=message) as caught:
        ClassifierSpec.read({key: value | change.get(key, {}) for key, value in values.items()}, "file", "fix it")
    assert "\n" not in str(caught.value)
