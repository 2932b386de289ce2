"""Hostile pictures that say how they were drawn, and hostile pipelines."""

import json
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.support.hostile_cases import (
    JSON_BOMBS,
    PROMPT,
    VALUES,
    Case,
    changed,
    chunk,
    copied,
    edited,
    paths,
    png,
    put,
    spoil,
    spoilt,
)


def pictures(base: Path, dice: random.Random) -> Iterator[Case]:
    from PIL import Image

    with Image.open(base / "drawn.png") as sound:
        sound.load()
        record = json.loads(sound.text["darkroom"])  # type: ignore[attr-defined]

    def telling(record: Any, width: int = 16, **more: bytes) -> Callable[[Path], list[str]]:
        text = record if isinstance(record, bytes) else json.dumps(record).encode()
        texts = [b"darkroom\0" + text, *(f"darkroom:{name}\0".encode() + body for name, body in more.items())]

        def make(folder: Path) -> list[str]:
            (folder / "x.png").write_bytes(png(width, width, *(chunk(b"tEXt", body) for body in texts)))
            return ["regenerate", str(folder / "x.png"), "--pipeline", str(base / "pipeline")]

        return make

    def file(content: Callable[[], bytes], *command: str) -> Callable[[Path], list[str]]:
        def make(folder: Path) -> list[str]:
            (folder / "x.png").write_bytes(content())
            how = [word.replace("X", str(folder / "x.png")).replace("B", str(base)) for word in command]
            return [*how, "--pipeline", str(base / "pipeline")]

        return make

    for key, value, says in (
        ("height", 200_000, "height"),
        ("width", 10**9, "width"),
        ("scale", 10**9, "scale"),
        ("scale", 3000, "scale = 3,000"),
        ("columns", 10**12, "columns"),
        ("seeds", [10**40], "41 digits"),
        ("prompts", [PROMPT] * 100_000, "number of prompts"),
    ):
        yield Case(f"record: {key} = {str(value)[:20]}", telling({**record, key: value}), says)
    many = {**record, "prompts": ["x"] * 50_000, "seeds": [0] * 50_000, "index": None}
    yield Case("record: many pictures", telling(many), "number of prompts")
    yield Case("record: a long prompt", telling({**record, "prompts": ["word " * 50_000]}), "number of letters")
    for key, value in (("num_inference_steps", 10**9), ("steps_offset", 10**9), ("num_inference_steps", 10**15)):
        yield Case(f"record: {key}", telling({**record, "sampling": {**record["sampling"], key: value}}), key)
    start = {**record, "strength": 0.5, "height": None, "width": None}
    import base64

    yield Case(
        "record: a start of 36 M", telling(start, image=base64.b64encode(png(6000, 6000))), "36000000|6000 x 6000"
    )
    for name, bomb in JSON_BOMBS.items():
        yield Case(f"record: {name}", telling(bomb), "record")
    packed = chunk(b"zTXt", b"darkroom\0\0" + zlib.compress(bytes(64 << 20)))
    yield Case("a text of 64 MiB", file(lambda: png(16, 16, packed), "regenerate", "X"), "does not say")
    huge = lambda: png(9950, 9950)  # noqa: E731
    for command in (
        ("img2img", "X", PROMPT),
        ("inpaint", "X", "B/drawn.png", PROMPT),
        ("inpaint", "B/drawn.png", "X", PROMPT),
    ):
        yield Case(f"99 megapixels: {command[0]} {command.index('X')}", file(huge, *command), "more than 4194304")
    yield Case("99 megapixels that say how they were made", telling(record, 9950))
    yield Case(
        "a folder", lambda folder: ["regenerate", str(folder), "--pipeline", str(base / "pipeline")], "is a folder"
    )
    yield Case(
        "a device", lambda _: ["img2img", "/dev/zero", PROMPT, "--pipeline", str(base / "pipeline")], "is not a file"
    )
    places = paths(record)
    for i in range(18):
        path, value = dice.choice(places), dice.choice(VALUES)
        yield Case(f"record {i}: {path} = {str(value)[:20]!r}", telling(edited(record, path, value)))
    whole = (base / "drawn.png").read_bytes()
    for i in range(6):
        content = spoilt(whole, dice)
        yield Case(f"picture {i}, spoilt", file(lambda content=content: content, "regenerate", "X"))  # type: ignore[misc]


def pipelines(base: Path, dice: random.Random) -> Iterator[Case]:
    for file, path, value, says in (
        ("pipeline.json", ("process", "num_train_timesteps"), 10**9, "num_train_timesteps = 1,000,000,000"),
        ("pipeline.json", ("sampling", "num_inference_steps"), 10**9, "num_inference_steps = 1,000,000,000"),
        ("pipeline.json", ("sampling", "steps_offset"), 10**9, "steps_offset = 1,000,000,000"),
        ("pipeline.json", ("image", "size"), 200_000, "image.size"),
        ("unet/config.json", ("layers_per_block",), 10**6, "layers_per_block = 1,000,000"),
        ("unet/config.json", ("layers_per_block",), 200, "describes a network of more than"),
        ("unet/config.json", ("block_out_channels",), [10**9, 10**9], "block_out_channels = 1,000,000,000"),
        ("unet/config.json", ("block_out_channels",), [800_000, 800_000], "describes a network of more than"),
        ("vae/config.json", ("block_out_channels",), [8] * 5000, "number of block_out_channels"),
        ("text_encoder/config.json", ("max_position_embeddings",), 10**9, "max_position_embeddings"),
        ("text_encoder/config.json", ("max_position_embeddings",), 900_000, "max_position_embeddings"),
        ("text_encoder/config.json", ("vocab_size",), 10**12, "vocab_size"),
        ("text_encoder/config.json", ("num_hidden_layers",), 10**7, "num_hidden_layers"),
        ("words.json", ("words",), ["\x1b[2J"], "is not a word"),
        ("tokenizer/tokenizer_config.json", ("model_max_length",), 10**30, "not valid JSON"),
    ):
        yield Case(
            f"{file}: {path[-1]} = {str(value)[:20]}",
            copied(base, "pipeline", "generate", changed(file, path, value)),
            says,
        )
    for name, bomb in JSON_BOMBS.items():
        file = dice.choice(("pipeline.json", "unet/config.json", "words.json", "tokenizer/vocab.json"))
        yield Case(f"{file}: {name}", copied(base, "pipeline", "generate", put(file, bomb)), "darkroom: ")
    for i in range(28):
        file = dice.choice(("pipeline.json",) * 3 + ("unet/config.json", "vae/config.json", "text_encoder/config.json"))
        path = dice.choice(paths(json.loads((base / "pipeline" / file).read_text())))
        value = dice.choice(VALUES)
        name = f"pipeline {i}: {file} {path} = {str(value)[:20]!r}"
        yield Case(name, copied(base, "pipeline", "generate", changed(file, path, value)))
    for i in range(6):
        file = dice.choice(("unet", "vae")) + "/diffusion_pytorch_model.safetensors"
        yield Case(f"pipeline {i}: {file} spoilt", copied(base, "pipeline", "generate", spoil(file, i)))
