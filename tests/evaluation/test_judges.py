"""Each kind of judge measures what its data allow, under a key that says so."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from darkroom.core.artifact import write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.rng import seeded
from darkroom.core.weights import WEIGHTS, write_network
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.evaluation.alignment import Asked
from darkroom.evaluation.estimates import Estimate
from darkroom.evaluation.judge import Judge, read_judges
from darkroom.evaluation.report import as_json, estimates
from darkroom.nn.judge.towers import Towers
from tests.support import networks

CPU = torch.device("cpu")
CAPTIONS = ["a cat", "a dog", "a bird"]


def judge(folder: Path, kind: str, heads: list[tuple[str, list[str]]]) -> Judge:
    """A random judge, written as train_evaluator writes it, and read."""
    with seeded(0, "judge"):
        if kind == "classifier":
            spec: Any = networks.classifier([len(classes) for _, classes in heads])
        elif kind == "towers":
            tokenizer = CLIPTokenizer.train(CAPTIONS, 520, 8)
            text = networks.text(len(tokenizer.vocab), 32, special=tokenizer.sizes)
            spec = networks.towers(text)
        else:
            spec = networks.selfsupervised()
        network: torch.nn.Module = networks.built(spec)
    named = [{"name": name, "classes": classes} for name, classes in heads]
    write_network(
        folder,
        WEIGHTS,
        torch.nn.ModuleDict({"a": network, "b": copy.deepcopy(network)}),
        {"kind": kind, **spec.model_dump(), "heads": named, "accuracy": {}},
        {"inputs": {}},
    )
    if kind == "towers":
        tokenizer.write(folder / "tokenizer")
    first, second = read_judges(folder, CPU)
    assert (first.name, first.half, second.name, second.half) == ("a", 0, "b", 1)
    return first


@pytest.fixture
def pictures() -> Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (9, 3, 16, 16), generator=g, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("kind", "heads", "keys"),
    [
        (
            "classifier",
            [("shape", ["a", "b"]), ("color", ["c", "d", "e"])],
            {"attribute_accuracy", "exact_match", "by_attribute"},
        ),
        ("classifier", [("label", ["a", "b", "c"])], {"class_accuracy", "by_class"}),
        (
            "classifier",
            [("style", ["a", "b"]), ("idea", [f"i{i}" for i in range(150)])],
            {"attribute_accuracy", "exact_match", "by_attribute", "idea_among_10"},
        ),
        ("towers", [], {"caption_retrieval"}),
        ("selfsupervised", [], {"rotation_accuracy"}),
    ],
)
def test_figures_are_named_for_what_they_are(
    kind: str, heads: list[Any], keys: set[str], pictures: Tensor, tmp_path: Path
) -> None:
    seen = judge(tmp_path / "judge", kind, heads)
    assert seen.features(pictures).shape == (9, 64)
    labels = torch.zeros(9, len(heads), dtype=torch.int64)
    asked = Asked(CAPTIONS * 3, labels, labels >= 0)
    scores = seen.score(seen.read(pictures), asked)
    assert set(scores.estimates(200, np.random.default_rng(0))) == keys
    assert torch.equal(seen.score(seen.read(pictures), asked).right, scores.right)
    assert set(seen.blind(asked)) <= {*scores.names}


def test_a_picture_finds_its_own_caption_or_an_equal_one(
    pictures: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    towers = judge(tmp_path / "judge", "towers", [])
    network, tokenizer = towers.network, towers.tokenizer
    assert isinstance(network, Towers)
    assert tokenizer is not None
    with torch.no_grad():
        texts = network.embed_texts(tokenizer(CAPTIONS))
        logits = network.compare(network.embed_images(pictures.float() / 127.5 - 1), texts)
    best = [CAPTIONS[i] for i in logits.argmax(dim=1).tolist()]
    others = [CAPTIONS[(CAPTIONS.index(text) + 1) % 3] for text in best]
    captions = [*best[:5], *others[5:]]
    monkeypatch.setattr("darkroom.evaluation.judge.CANDIDATES", 9)
    nothing = torch.empty(9, 0)
    found = towers.score(towers.read(pictures), Asked(captions, nothing, nothing)).right[:, 0].bool()
    here = set(captions)
    expected = [max(here, key=lambda c: float(logits[i, CAPTIONS.index(c)])) == captions[i] for i in range(9)]
    assert found.tolist() == expected


def test_a_picture_is_judged_alike_in_any_company(pictures: Tensor, tmp_path: Path) -> None:
    seen = judge(tmp_path / "judge", "classifier", [("a", ["x", "y"]), ("b", ["x", "y", "z"])])
    together = seen.features(pictures)
    assert torch.allclose(together, torch.cat([seen.features(x[None]) for x in pictures]), atol=1e-5)
    assert seen.read(pictures).shape == (9, 2)


def test_of_many_classes_a_constant_answer_may_name_ten(pictures: Tensor, tmp_path: Path) -> None:
    """Fails if the chance level of being among the nearest is that of one answer."""
    seen = judge(tmp_path / "judge", "classifier", [("style", ["a", "b"]), ("idea", [f"i{i}" for i in range(150)])])
    labels = torch.stack([torch.zeros(30), torch.arange(30) % 15], dim=1).long()
    blind = seen.blind(Asked(["x"] * 30, labels, labels >= 0))
    assert blind["idea_among_10"] == pytest.approx(10 / 15)
    assert blind["by_attribute.idea"] == pytest.approx(1 / 15)


def test_an_unknown_judge_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"kind": "oracle"})
    with pytest.raises(DarkroomError, match="kind 'oracle' is unknown; rerun train_evaluator"):
        read_judges(tmp_path, CPU)


def test_figures_are_written_with_six_digits_and_found_by_their_place() -> None:
    metrics = as_json(
        {"a": {"b": Estimate(1 / 3, 0.1, 2e-7 / 3, 5), "by_c": {"d": Estimate(1.0, 1.0, 1.0, 2)}}, "n": 7}
    )
    assert metrics["a"]["b"] == {"value": 0.333333, "low": 0.1, "high": 6.66667e-08, "n": 5}
    assert metrics["n"] == 7
    assert {name: figure["value"] for name, figure in estimates(metrics).items()} == {"a.b": 0.333333}
