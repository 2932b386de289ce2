"""Requests that a served model has to refuse, each with what its refusal has to name."""

import base64
import http.client
import io
import json
import struct
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

PATH, JSON = "/invocations", "application/json"
PROMPT = "a small red circle"


@dataclass(frozen=True)
class Hostile:
    """A request. names: what the answer's message has to hold. status: that it has to have.

    host: of its Host header; None: without one.
    """

    name: str
    names: str
    body: bytes = b""
    status: int = 400
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": JSON})
    method: str = "POST"
    path: str = PATH
    host: str | None = "localhost"


@dataclass(frozen=True)
class Answer:
    """What came of it. message: of an error."""

    status: int
    message: str
    seconds: float
    body: bytes


def send(port: int, request: Hostile, timeout: float = 120) -> Answer:
    """Send a request to a server on this machine."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
        if request.host is not None:
            connection.putheader("Host", request.host)
        for name, value in request.headers.items():
            connection.putheader(name, value)
        if "Content-Length" not in request.headers:
            connection.putheader("Content-Length", str(len(request.body)))
        connection.endheaders(request.body or None)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    try:
        message = json.loads(body).get("message", "") if answer.status >= 400 else ""
    except (ValueError, AttributeError):
        message = body.decode(errors="replace")
    return Answer(answer.status, message, time.perf_counter() - began, body)


def asked(rows: object, **params: Any) -> bytes:
    """The body of a request."""
    return json.dumps({"dataframe_records": rows, "params": params}).encode()


def good(seed: int = 0) -> Hostile:
    """A request without a fault."""
    return Hostile("good", "", asked([{"prompt": PROMPT}], seed=seed), 200)


def png(width: int, height: int, data: bytes = b"", *chunks: tuple[bytes, bytes]) -> bytes:
    """A grey PNG file that says to be so large, whatever it holds."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", head), *chunks, (b"IDAT", data or zlib.compress(bytes(1000))), (b"IEND", b""))
    written = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bomb(side: int) -> bytes:
    """A whole PNG file of side * side black pixels, some thousandth of that in bytes."""
    return png(side, side, zlib.compress(bytes((side + 1) * side), 9))


def _jpeg_that_unpacks() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (4000, 4000)).save(file, format="JPEG", quality=1)
    return file.getvalue()


def _deep(levels: int, begin: bytes = b"[", end: bytes = b"]") -> bytes:
    return b'{"dataframe_records": ' + begin * levels + b"1" + end * levels + b"}"


def hostile() -> Iterator[Hostile]:
    """At least fifty, of every kind that is known here."""
    row = {"prompt": PROMPT}
    rows = "DARKROOM_SERVE_ROWS"
    yield Hostile("100,000 rows", rows, asked([row] * 100_000))
    yield Hostile("65 rows", rows, asked([row] * 65))
    yield Hostile("rows in columns", rows, json.dumps({"inputs": {"prompt": [PROMPT] * 1000}}).encode())
    yield Hostile("instances", rows, json.dumps({"instances": [row] * 200}).encode())
    split = {"columns": ["prompt"], "data": [[PROMPT]] * 200}
    yield Hostile("split rows", rows, json.dumps({"dataframe_split": split}).encode())
    yield Hostile("a wide row", rows, asked([{f"c{i}": 1 for i in range(100_000)}]))
    yield Hostile("many parameters", rows, asked([row], **{f"p{i}": 1 for i in range(10_000)}))
    yield Hostile("many empty strings", rows, b'{"dataframe_records": [' + b'"",' * 2_000_000 + b'""]}')
    yield Hostile("no rows", "no rows", asked([]))
    yield Hostile("no body", "not JSON")
    yield Hostile("10^9 steps", "DARKROOM_SERVE_STEPS", asked([row], num_inference_steps=10**9))
    yield Hostile("1001 steps", "DARKROOM_SERVE_STEPS", asked([row], num_inference_steps=1001))
    yield Hostile("2^63 - 1 steps", "DARKROOM_SERVE_STEPS", asked([row], num_inference_steps=2**63 - 1))
    yield Hostile("no steps", "num_inference_steps", asked([row], num_inference_steps=0))
    yield Hostile("-1 steps", "num_inference_steps", asked([row], num_inference_steps=-1))
    yield Hostile("half a step", "num_inference_steps", asked([row], num_inference_steps=2.5))
    for name in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999"):
        body = b'{"dataframe_records": [{"prompt": "x"}], "params": {"guidance_scale": %s}}' % name.encode()
        yield Hostile(f"guidance {name}", "not a finite number", body)
    yield Hostile("negative guidance", "guidance_scale", asked([row], guidance_scale=-1))
    yield Hostile("guidance in letters", "guidance_scale", asked([row], guidance_scale="much"))
    yield Hostile("guidance in a list", "guidance_scale", asked([row], guidance_scale=[1, 2]))
    yield Hostile("strength of 2", "strength", asked([row], strength=2))
    yield Hostile("negative strength", "strength", asked([row], strength=-0.1))
    yield Hostile("negative seed", "seed", asked([row], seed=-1))
    yield Hostile("a seed of 100 bits", "beyond 64 bits", asked([row], seed=2**100))
    yield Hostile(
        "a seed of 5000 digits", "beyond 64 bits", b'{"dataframe_records": [{"prompt": 1}], "a": ' + b"9" * 5000 + b"}"
    )
    yield Hostile("a seed in words", "seed", asked([row], seed="seven"))
    yield Hostile("an unknown sampler", "sampler", asked([row], sampler="fast"))
    yield Hostile("an unknown parameter", "'steps'", asked([row], steps=3))
    yield Hostile("parameters in a list", "params", b'{"dataframe_records": [{"prompt": "x"}], "params": [1]}')
    yield Hostile("a prompt of 100 KB", "DARKROOM_SERVE_PROMPT_BYTES", asked([{"prompt": "x" * 100_000}]))
    yield Hostile(
        "a negative prompt of 100 KB", "DARKROOM_SERVE_PROMPT_BYTES", asked([row], negative_prompt="é" * 50_000)
    )
    yield Hostile("a number for a prompt", "prompt", asked([{"prompt": 7}]))
    yield Hostile("no prompt", "prompt", asked([{"prompt": None}]))
    yield Hostile("a list for a prompt", "prompt", asked([{"prompt": ["x"]}]))
    yield Hostile("an object for a prompt", "prompt", asked([{"prompt": {"x": 1}}]))
    yield Hostile("a truth for a prompt", "prompt", asked([{"prompt": True}]))
    yield Hostile("prompts of two kinds", "prompt", asked([row, {"prompt": 1}]))
    yield Hostile("a row without a prompt", "prompt", asked([{"text": PROMPT}]))
    yield Hostile("a second row without a prompt", "prompt", asked([row, {}]))
    yield Hostile("rows that are numbers", "prompt", asked([1, 2, 3]))
    yield Hostile("rows that are one number", "list of records", asked(5))
    yield Hostile("rows that are nothing", "list of records", asked(None))
    yield Hostile(
        "columns of two lengths", "", json.dumps({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}).encode()
    )
    yield Hostile("inputs that are a number", "", b'{"inputs": 5}')
    yield Hostile("inputs of two lengths", "", b'{"inputs": {"prompt": ["a"], "image": ["", ""]}}')
    yield Hostile("half a character", "stands alone", b'{"dataframe_records": [{"prompt": "\\ud800"}]}')
    yield Hostile(
        "half a character in a key", "stands alone", b'{"dataframe_records": [{"prompt": "x", "\\udc00": 1}]}'
    )
    yield Hostile("a control character", "U+0007", asked([{"prompt": "a\a"}]))
    picture = "DARKROOM_SERVE_PIXELS"
    yield Hostile("a picture of 99 megapixels", picture, asked([{**row, "image": _text(_bomb(9950))}]))
    yield Hostile("a picture that says 4 gigapixels", picture, asked([{**row, "image": _text(png(65_535, 65_535))}]))
    yield Hostile("a picture of 1 x 2^31 - 1", picture, asked([{**row, "image": _text(png(1, 2**31 - 1))}]))
    yield Hostile("a JPEG of 16 megapixels", picture, asked([{**row, "image": _text(_jpeg_that_unpacks())}]))
    yield Hostile("a file of 5 MB", "DARKROOM_SERVE_PICTURE_BYTES", asked([{**row, "image": "A" * 6_000_000}]))
    cut = png(16, 16, zlib.compress(bytes(i * i * 7 % 251 for i in range(16 * 17))))[:100]
    yield Hostile("a cut picture", "image of row 0", asked([{**row, "image": _text(cut)}]))
    yield Hostile("a picture without pixels", "image of row 0", asked([{**row, "image": _text(png(0, 0))}]))
    yield Hostile("text for a picture", "image of row 0", asked([{**row, "image": _text(b"text")}]))
    yield Hostile("no base64", "image of row 0", asked([{**row, "image": "!" * 1000}]))
    yield Hostile("a number for a picture", "image", asked([{**row, "image": 5}]))
    yield Hostile("a list for a picture", "image", asked([{**row, "image": [[1] * 8] * 8}]))
    yield Hostile("JSON 100,000 lists deep", "DARKROOM_SERVE_NESTING", _deep(100_000))
    yield Hostile("JSON 100,000 objects deep", "DARKROOM_SERVE_NESTING", _deep(100_000, b'{"a":', b"}"))
    yield Hostile("JSON 17 deep", "DARKROOM_SERVE_NESTING", _deep(17))
    yield Hostile("a million opening brackets", "DARKROOM_SERVE_NESTING", b"[" * 1_000_000)
    yield Hostile("brackets behind half a string", "not JSON", b'{"a' + b'\\"' * 3_000_000)
    yield Hostile("UTF-16", "UTF-8", asked([row]).decode().encode("utf-16"))
    yield Hostile("UTF-16 without a mark", "zero bytes", asked([row]).decode().encode("utf-16-le"))
    yield Hostile("no UTF-8", "UTF-8", b'{"dataframe_records": "\xff\xfe"}')
    yield Hostile("a list", "JSON object", b"[1, 2]")
    yield Hostile("two kinds of rows", "alone", b'{"inputs": [1], "instances": [1]}')
    yield Hostile("a language model's request", "unknown key", b'{"messages": [{"role": "user", "content": "x"}]}')
    yield Hostile("half a request", "not JSON", asked([row])[:-5])
    yield Hostile("a body of 20 MB", "DARKROOM_SERVE_BODY_BYTES", b" " * 20_000_000, 413)
    yield Hostile(
        "a body that is said to be huge",
        "DARKROOM_SERVE_BODY_BYTES",
        b"{}",
        413,
        {"Content-Type": JSON, "Content-Length": str(10**15)},
    )
    yield Hostile("CSV", JSON, b"prompt\nx\n", 415, {"Content-Type": "text/csv"})
    yield Hostile("Parquet", JSON, b"PAR1", 415, {"Content-Type": "application/vnd.apache.parquet"})
    yield Hostile("another encoding", JSON, asked([row]), 415, {"Content-Type": f"{JSON}; charset=utf-7"})
    yield Hostile("no type", "Content-Type", asked([row]), 415, {})
    yield Hostile(
        "a foreign origin", "Origin", asked([row]), 403, {"Content-Type": JSON, "Origin": "https://evil.example"}
    )
    yield Hostile("no origin", "Origin", asked([row]), 403, {"Content-Type": JSON, "Origin": "null"})
    yield Hostile("a foreign host", "Host", asked([row]), 403, host="evil.example")
    yield Hostile("a host that begins as ours", "Host", asked([row]), 403, host="localhost.evil.example")
    yield Hostile("a host with a user", "Host", asked([row]), 403, host="localhost@evil.example")
    yield Hostile("no host", "", asked([row]), 400, host=None)
    yield Hostile("a foreign host's health", "Host", b"", 403, {}, "GET", "/ping", "evil.example")
    yield Hostile("another method", "POST", b"", 405, {}, "GET")
    yield Hostile("another path", "nothing is here", b"", 404, {}, "GET", "/docs")
    yield Hostile("a path of dots", "nothing is here", b"", 404, {}, "GET", "/../../etc/passwd")
