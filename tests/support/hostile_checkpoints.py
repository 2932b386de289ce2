"""Hostile checkpoints, diffusers folders and tokenizers."""

import gzip
import io
import json
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.hostile_cases import JSON_BOMBS, VALUES, Case, changed, copied, paths, put, spoilt


def claimed(**tensors: tuple[list[int], list[int]]) -> bytes:
    """A safetensors file that claims tensors of {name: (shape, offsets)} and holds sixteen bytes."""
    header = json.dumps({n: {"dtype": "F32", "shape": s, "data_offsets": o} for n, (s, o) in tensors.items()}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(16)


class Filler:
    """Takes memory when it is unpickled, by a call that PyTorch allows."""

    def __reduce__(self) -> Any:
        return bytearray, (4 << 30,)


def zipped(description: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A checkpoint of PyTorch with this description and one weight of four bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        archive.writestr("x/data.pkl", description)
        archive.writestr("x/byteorder", "little")
        archive.writestr("x/data/0", bytes(4))
        archive.writestr("x/version", "3\n")
    return out.getvalue()


def expanded() -> bytes:
    """One number that claims to be 10^12."""
    import torch

    out = io.BytesIO()
    torch.save({"state_dict": {"model.diffusion_model.x": torch.zeros(1).expand(10**6, 10**6)}}, out)
    return out.getvalue()


def checkpoints(base: Path, dice: random.Random) -> Iterator[Case]:
    def file(name: str, content: Callable[[], bytes]) -> Callable[[Path], list[str]]:
        def make(folder: Path) -> list[str]:
            (folder / name).write_bytes(content())
            words = ["--tokenizer", str(base / "single" / "tokenizer")]
            return ["import", str(folder / name), str(folder / "out"), *words]

        return make

    unet = "model.diffusion_model.input_blocks.0.0.weight"
    for name, content in (
        ("claims 10^18", claimed(**{unet: ([10**9, 10**9], [0, 16])})),
        ("overlap", claimed(a=([4], [0, 16]), b=([4], [0, 16]))),
        ("behind its end", claimed(a=([4], [0, 10**15]))),
        ("backwards", claimed(a=([4], [16, 0]))),
        ("no numbers", claimed(**{unet: ([0, 2**62], [0, 0])}) + b""),
        ("a long header", struct.pack("<Q", 2**63) + b"{" + bytes(100)),
        ("a large header", struct.pack("<Q", 30 << 20) + b'{"a":"' + b"x" * (30 << 20)),
        ("deep", struct.pack("<Q", 10_000) + b"[" * 10_000),
    ):
        yield Case(f"safetensors: {name}", file("m.safetensors", lambda content=content: content), "m.safetensors: ")  # type: ignore[misc]
    pickled = pickle.dumps({"state_dict": Filler()}, protocol=2)
    for name, make in (
        ("bytes by a number", lambda: zipped(pickled)),
        ("bytes by a number, old", lambda: pickled),
        ("compressed", lambda: zipped(b"\x80\x02" + b"N0" * (10 << 20) + b"N.", zipfile.ZIP_DEFLATED)),
        ("long description", lambda: zipped(b"\x80\x02" + b"N0" * (4 << 20) + b"N.")),
        ("10^12 of one", expanded),
        ("lists in lists", lambda: zipped(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")),
    ):
        yield Case(f"ckpt: {name}", file("m.ckpt", make), "m.ckpt: ")
    whole = base / "single" / "model.safetensors"
    for i in range(8):
        content = whole.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        head = spoilt(content[:start], dice) + content[start:]
        yield Case(f"single file {i}, header spoilt", file("m.safetensors", lambda head=head: head))  # type: ignore[misc]
    for target, path, value, says in (
        ("scheduler/scheduler_config.json", ("num_train_timesteps",), 10**9, "num_train_timesteps = 1,000,000,000"),
        ("unet/config.json", ("layers_per_block",), 10**6, "layers_per_block = 1,000,000"),
        ("unet/config.json", ("sample_size",), 10**6, "sample_size"),
        ("unet/config.json", ("transformer_layers_per_block",), 10**6, "transformer_layers_per_block"),
        ("vae/config.json", ("layers_per_block",), 250, "describes a network of more than"),
        ("text_encoder/config.json", ("intermediate_size",), 10**6, "the weights do not fit|describes a network"),
        ("model_index.json", ("unet",), [["x"] * 1000], "unet = "),
    ):
        yield Case(
            f"folder: {path[0]} = {str(value)[:20]}",
            copied(base, "diffusers", "import", changed(target, path, value)),
            says,
        )
    kept = ["model_index.json", *(f"{part}/config.json" for part in ("unet", "vae", "text_encoder")), "darkroom.json"]
    for i in range(22):
        target = dice.choice([*kept, "scheduler/scheduler_config.json"])
        path = dice.choice(paths(json.loads((base / "diffusers" / target).read_text())))
        value = dice.choice(VALUES)
        name = f"folder {i}: {target} {path} = {str(value)[:20]!r}"
        yield Case(name, copied(base, "diffusers", "import", changed(target, path, value)))


def tokenizers(base: Path, dice: random.Random) -> Iterator[Case]:
    def beside(write: Callable[[Path], object]) -> Callable[[Path], list[str]]:
        def make(folder: Path) -> list[str]:
            shutil.copytree(base / "single" / "tokenizer", folder / "words")
            given = write(folder / "words")
            words = str(given) if isinstance(given, Path) else str(folder / "words")
            return ["import", str(base / "single" / "model.safetensors"), str(folder / "out"), "--tokenizer", words]

        return make

    def alone(name: str, content: Callable[[], bytes]) -> Callable[[Path], object]:
        def write(folder: Path) -> Path:
            (folder.parent / name).write_bytes(content())
            return folder.parent / name

        return write

    doubling = {
        "type": "Sequence",
        "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}] * 60,
    }
    slow = {"type": "Split", "pattern": {"Regex": "(!+)+[^!]x"}, "behavior": "Removed", "invert": False}
    yield Case(
        "doubled sixty times", beside(changed("tokenizer.json", ("normalizer",), doubling)), "is not a step of CLIP's"
    )
    yield Case("a slow pattern", beside(changed("tokenizer.json", ("pre_tokenizer",), slow)), "is not a step of CLIP's")
    bomb = lambda: gzip.compress(bytes(200 << 20), 1)  # noqa: E731
    yield Case("200 MiB packed", beside(alone("bpe_simple_vocab_16e6.txt.gz", bomb)), "unpacked")
    lines = lambda: gzip.compress(b"a b\n" * (20 << 20), 1)  # noqa: E731
    yield Case("merges packed", beside(alone("bpe_simple_vocab_16e6.txt.gz", lines)), "unpacked")
    yield Case("large merges", beside(put("merges.txt", b"a b\n" * (5 << 20))), "bytes of a list of merges")
    yield Case("an id beyond all", beside(changed("vocab.json", ("a",), 2**31)), "id of 'a'")
    yield Case("an id below all", beside(changed("vocab.json", ("a",), -1)), "is not a token's id")
    yield Case("an id in words", beside(changed("vocab.json", ("a",), "one")), "is not a token's id")
    yield Case("dropout", beside(changed("tokenizer.json", ("model", "dropout"), 0.5)), "plain BPE")
    for name, content in JSON_BOMBS.items():
        file = dice.choice(("vocab.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"))
        yield Case(f"{file}: {name}", beside(put(file, content)))
    values = {}
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json"):
        values[file] = json.loads((base / "single" / "tokenizer" / file).read_text())
    for i in range(24):
        file = dice.choice(("tokenizer.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"))
        short = {key: value for key, value in values[file].items() if key != "model"}
        path, value = dice.choice(paths(short)), dice.choice(VALUES)
        yield Case(f"tokenizer {i}: {file} {path} = {str(value)[:20]!r}", beside(changed(file, path, value)))
