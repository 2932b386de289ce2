"""Two hundred hostile pictures, pipelines, checkpoints and tokenizers, and a process that gives them to the commands.

    python models.py FOLDER SEED SAMPLE

FOLDER holds sound ones: pipeline/, drawn.png, single/ and diffusers/. Prints, as JSON, what became of each of SAMPLE
cases (0: all): its name, exit status, what was said, seconds of the processor, and bytes of memory above what sound
ones take.
"""

import contextlib
import copy
import gzip
import io
import json
import pickle
import random
import shutil
import signal
import struct
import sys
import time
import traceback
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

HANGING = 90  # seconds on the clock, which others may share; what is measured are those of the processor
PROMPT = "a small red circle"
VALUES: list[Any] = [
    *(10**9, 200_000, 10**6, -1, 0, 1, 2**63, 10**30, 1e308, -0.5, 1e-320),
    *(None, True, "", "\x1b[2J", "x" * 100_000, "\u202e", [], {}, [10**9] * 3, [[1]], {"a": 1}, ["\ud800"]),
]
JSON_BOMBS: dict[str, bytes] = {
    "deep list": b"[" * 200_000,
    "deep and closed": b"[" * 900 + b"]" * 900,
    "deep object": b'{"a":' * 50_000,
    "not a number": b'{"format": NaN}',
    "infinite": b'{"format": 1e999}',
    "twice": b'{"format": 1, "format": 2}',
    "many digits": b'{"format": ' + b"9" * 5000 + b"}",
    "large": b"[" + b"0," * (6 << 20) + b"0]",
    "half a letter": b'{"format": "\\ud800"}',
    "no object": b"3",
    "empty": b"",
    "zeros": bytes(1000),
}


@dataclass(frozen=True)
class Case:
    """make: writes the case into an empty folder and gives the arguments of the command. says: what must be said; None
    where it is enough that the command ends in order."""

    name: str
    make: Callable[[Path], list[str]]
    says: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a case."""

    name: str
    status: int
    said: str
    seconds: float
    memory: int
    says: str | None


def every_case(base: Path, seed: int) -> list[Case]:
    """All of them, always in the same order."""
    dice = random.Random(seed)
    return [*pictures(base, dice), *pipelines(base, dice), *checkpoints(base, dice), *tokenizers(base, dice)]


def edited(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A JSON value with another one at `path`."""
    out = copy.deepcopy(value)
    holder = out
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = new
    return out


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [path for key in keys for path in ((*here, key), *paths(value[key], (*here, key)))]


def spoilt(content: bytes, dice: random.Random) -> bytes:
    """A few bytes changed or lost."""
    data = bytearray(content)
    for _ in range(dice.choice((1, 2, 8))):
        at = dice.randrange(len(data))
        if dice.random() < 0.8:
            data[at] = dice.randrange(256)
        else:
            del data[at : at + dice.choice((1, 100, len(data)))]
    return bytes(data) or b"\0"


# Pictures.


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *texts: bytes) -> bytes:
    """A black grey picture, of few bytes whatever its size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(texts) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


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


# Pipelines.


def copied(base: Path, name: str, command: str, edit: Callable[[Path], object]) -> Callable[[Path], list[str]]:
    """The command for a copy of base/name that was edited."""

    def make(folder: Path) -> list[str]:
        shutil.copytree(base / name, folder / "model")
        edit(folder / "model")
        if command == "import":
            return ["import", str(folder / "model"), str(folder / "out")]
        out = ["--steps", "1", "--out", str(folder / "o.png")] if command == "generate" else []
        return [command, PROMPT, "--pipeline", str(folder / "model"), *out]

    return make


def changed(file: str, path: tuple[Any, ...], value: Any) -> Callable[[Path], object]:
    def edit(model: Path) -> None:
        place = model / file
        place.write_text(json.dumps(edited(json.loads(place.read_text()), path, value)))

    return edit


def put(file: str, content: bytes) -> Callable[[Path], object]:
    return lambda model: (model / file).write_bytes(content)


def spoil(file: str, seed: int) -> Callable[[Path], object]:
    def edit(model: Path) -> None:
        (model / file).write_bytes(spoilt((model / file).read_bytes(), random.Random(seed)))

    return edit


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


# Checkpoints.


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


# Tokenizers.


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


# The process.


class Hang(BaseException):
    """No Exception, so that nothing on its way takes it for a damaged file."""


def bark(number: int, frame: FrameType | None) -> None:
    raise Hang(f"more than {HANGING} s")


def peak(*, anew: bool = False) -> int:
    """The most memory this process had, in bytes; anew: since now."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def run(arguments: list[str]) -> tuple[int, str]:
    """darkroom ARGUMENTS -> its exit status and what it says on stderr; 70: a traceback."""
    from darkroom import cli

    said = io.StringIO()
    sys.argv = ["darkroom", *arguments]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            cli.main()
        except SystemExit as left:
            return int(left.code or 0), said.getvalue()
        except BaseException as error:
            return 70, "".join(traceback.format_exception(error))[-3000:]
    return 0, said.getvalue()


def main(base: Path, seed: int, sample: int) -> None:
    signal.signal(signal.SIGALRM, bark)
    cases = every_case(base, seed)
    if sample:
        cases = random.Random(seed).sample(cases, sample)
    words = ["--tokenizer", str(base / "single" / "tokenizer")]
    for command in (
        ["regenerate", str(base / "drawn.png"), "--pipeline", str(base / "pipeline"), "--out", str(base / "again.png")],
        ["import", str(base / "single" / "model.safetensors"), str(base / "imported"), *words],
        ["import", str(base / "diffusers"), str(base / "imported")],
    ):
        status, said = run(command)
        assert status == 0, said
    usual = peak()
    outcomes = []
    for case in cases:
        folder = base / "case"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        arguments = case.make(folder)
        peak(anew=True)
        signal.setitimer(signal.ITIMER_REAL, HANGING)
        begin = time.process_time()
        status, said = run(arguments)
        seconds = time.process_time() - begin
        signal.setitimer(signal.ITIMER_REAL, 0)
        outcomes.append(Outcome(case.name, status, said, seconds, peak() - usual, case.says))
    print(json.dumps([asdict(outcome) for outcome in outcomes]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
