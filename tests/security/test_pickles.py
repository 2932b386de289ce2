"""Pickles that would run something, under every name that is read: refused in one line, and nothing runs."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from darkroom.config.params import load
from darkroom.core.artifact import load_tensors, read_json
from darkroom.core.errors import DarkroomError
from darkroom.core.weights import load_weights
from darkroom.data.sources.torchvision_sets import DATASETS, Torchvision
from darkroom.data.tokenizer import CLIPTokenizer
from darkroom.interop.checkpoint import open_checkpoint
from darkroom.interop.source import read_model
from darkroom.interop.tokenizer import BPE_FILE, read_tokenizer
from darkroom.nn.autoencoder.perceptual import load_perceptual

Forms = dict[str, Callable[[Any], bytes]]


class Attack:
    """Writes a file when it is unpickled."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> Any:
        return Path.touch, (self.proof,)


def saved(value: Any, **how: Any) -> bytes:
    place = io.BytesIO()
    torch.save(value, place, **how)
    return place.getvalue()


FORMS: Forms = {
    "text": lambda attack: pickle.dumps(attack, protocol=0),
    "binary": lambda attack: pickle.dumps(attack),
    "in a dictionary": lambda attack: pickle.dumps({"state_dict": attack, "data": attack, "labels": [1]}, protocol=2),
    "torch": lambda attack: saved({"state_dict": {"weight": torch.ones(1)}, "more": attack}),
    "old torch": lambda attack: saved({"weight": attack}, _use_new_zipfile_serialization=False),
}
READERS: dict[str, Callable[[Path], Any]] = {
    "model.ckpt": open_checkpoint,
    "model.bin": open_checkpoint,
    "model.pt": open_checkpoint,
    "model.pth": open_checkpoint,
    "model.safetensors": open_checkpoint,
    "tensors.safetensors": load_tensors,
    "weights.safetensors": lambda file: load_weights(torch.nn.Linear(1, 1), file, torch.device("cpu")),
    "vgg.pth": load_perceptual,
    "vgg.safetensors": load_perceptual,
    "checkpoint.ckpt": read_model,
    "config.json": read_json,
    "vocab.json": lambda file: CLIPTokenizer.read(file.parent),
    "merges.txt": lambda file: CLIPTokenizer.read(file.parent),
    "tokenizer.json": lambda file: read_tokenizer(file.parent),
    BPE_FILE: lambda file: read_tokenizer(file.parent),
    "params.yaml": load,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("name", READERS)
def test_a_pickle_is_refused_under_any_name(name: str, form: Callable[[Any], bytes], tmp_path: Path) -> None:
    proof, file = tmp_path / "proof", tmp_path / name
    if name == "merges.txt":
        (tmp_path / "vocab.json").write_text("{}")
    file.write_bytes(form(Attack(proof)))
    with pytest.raises(DarkroomError) as caught:
        READERS[name](file)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert not proof.exists()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_batch_of_cifar_runs_nothing(
    form: Callable[[Any], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_DATA", str(tmp_path))
    proof = tmp_path / "proof"
    for name in (name for split in DATASETS["CIFAR10"].files.values() for name in split):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(form(Attack(proof)))
    with pytest.raises(DarkroomError, match=r"test_batch: not a CIFAR-10 batch \(.+\); fetch it again") as caught:
        list(Torchvision("CIFAR10", ".", "a photo of a {label}", False))
    assert "\n" not in str(caught.value)
    assert not proof.exists()


@pytest.mark.parametrize(
    "called", ["numpy.load", "numpy.testing.encode", "builtins.eval", "_codecs.lookup", "os.system"]
)
def test_an_unpickler_of_arrays_imports_nothing_else(
    called: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_DATA", str(tmp_path))
    module, name = called.rsplit(".", 1)
    for file in (name for split in DATASETS["CIFAR10"].files.values() for name in split):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(f"c{module}\n{name}\n.".encode())
    with pytest.raises(DarkroomError, match=f"{module}.{name} is not an array"):
        list(Torchvision("CIFAR10", ".", "a photo of a {label}", False))


def test_the_attack_works_where_it_is_let(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Attack(tmp_path / "proof")))
    assert (tmp_path / "proof").exists()
