"""A case of a hostile file, and the ways to spoil a sound one."""

import copy
import json
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *texts: bytes) -> bytes:
    """A black grey picture, of few bytes whatever its size."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(bytes(width + 1)) for _ in range(height)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(texts) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


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
