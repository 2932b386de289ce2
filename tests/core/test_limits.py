"""Limits on what comes from outside: each is kept, and says what it is of; JSON that a reader need not fear."""

from pathlib import Path

import pytest

from darkroom.core import limits
from darkroom.core.artifact import read_json
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import Limit, check_network, check_sampling
from darkroom.core.outside import parse_json, read_bytes, typed
from darkroom.interop.defaults import Defaults
from darkroom.interop.keys import UNET_SILENT
from tests.support.diffusion import make_sampling

PLAIN = {
    "sampler": {"kind": "ddim", "eta": 0.0},
    "num_inference_steps": 4,
    "guidance_scale": 3.0,
    "spacing": "trailing",
}


def test_a_limit_is_kept_and_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches: a limit that refuses its own number, or whose variable is not read."""
    few = Limit(10, "things", "DARKROOM_MAX_THINGS")
    few.check("n", 10)
    with pytest.raises(DarkroomError, match=r"^n = 11: more than 10 things; give less, or raise DARKROOM_MAX_THINGS$"):
        few.check("n", 11)
    monkeypatch.setenv("DARKROOM_MAX_THINGS", "11")
    few.check("n", 11)
    for wrong in ("0", "many", "-1", "1e9", "9" * 30, "٣"):
        monkeypatch.setenv("DARKROOM_MAX_THINGS", wrong)
        with pytest.raises(DarkroomError, match=r"DARKROOM_MAX_THINGS = .*: give a whole number"):
            few.check("n", 1)
    with pytest.raises(DarkroomError, match=r"^n = about 10\^5999: more than 10 things; give less$"):
        Limit(10, "things").check("n", 10**6000)


def test_every_limit_lets_published_models_and_usual_pictures_by() -> None:
    """Catches: a limit so low that Stable Diffusion 1.x, 768 pixels or 1000 steps would be refused."""
    for limit, usual in (
        (limits.PIXELS, 1024 * 1024),
        (limits.POSITIONS, 128 * 128),
        (limits.AT_ONCE, 64 * 128 * 128),
        (limits.STEPS, 1000),
        (limits.WORK, 256 * 512 * 512 * 1000),
        (limits.FILE_PIXELS, 64 * 768 * 768),
        (limits.JSON_BYTES, 3_642_240),
        (limits.NETWORK_TENSORS, 1680),
        (limits.NETWORK_WEIGHTS, 2_600_000_000),
    ):
        limit.check("", usual)
    check_network(UNET_SILENT, "unet/config.json", "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 70 + "]" * 70, "nested deeper than 64 levels"),
        ('{"a": ' * 5000, "nested deeper than 64 levels"),
        ('{"a": [1, NaN]}', "'a' is nan, not a finite number"),
        ('{"a": {"b": -1e999}}', "'b' is -inf, not a finite number"),
        ('{"a": 1, "b": 2, "a": 3}', "gives the key 'a' twice"),
        ('{"a": -123456789012345678901234}', "a number of 24 digits"),
        ('{"a": ["\\udc00"]}', "half of a letter"),
        ('{"\\ud800": 1}', "half of a letter"),
        ("{", "Expecting property name"),
    ],
)
def test_json_that_would_surprise_its_readers_is_none(text: str, reason: str, tmp_path: Path) -> None:
    """Catches: a number that becomes infinite, a key of which one value is dropped, a repr that recurses for ever."""
    with pytest.raises(ValueError, match=reason.replace("(", r"\(")):
        parse_json(text)
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DarkroomError, match=r"x\.json: not valid JSON \(.+\); fetch it$") as caught:
        read_json(tmp_path / "x.json", "fetch it")
    assert str(caught.value).isprintable()


def test_json_within_limits_is_read_as_it_is() -> None:
    value = {"a": [1, -2.5, None, True, "é\U0001f3a8"], "b": {"c": [[[]]]}, "d": 2**63}
    assert (
        parse_json('{"a": [1, -2.5, null, true, "é\\ud83c\\udfa8"], "b": {"c": [[[]]]}, "d": 9223372036854775808}')
        == value
    )
    assert parse_json("[" * 64 + "]" * 64)
    assert parse_json('{"lambda_min_clipped": -Infinity}', ["lambda_min_clipped"]) == {
        "lambda_min_clipped": -float("inf")
    }


def test_files_are_read_up_to_their_limit_and_pipes_not_at_all(tmp_path: Path) -> None:
    """Catches: a reader that waits for a pipe that nobody writes to, or takes ten gigabytes to find no JSON."""
    import os

    file, few = tmp_path / "x.json", Limit(4, "bytes of it")
    file.write_bytes(b"1234")
    assert read_bytes(file, few, "") == b"1234"
    file.write_bytes(b"12345")
    with pytest.raises(DarkroomError, match=r"x\.json: size = 5: more than 4 bytes of it; give another$"):
        read_bytes(file, few, "give another")
    os.mkfifo(tmp_path / "pipe")
    for name, what in (("pipe", "is not a file but a pipe"), (".", "is a folder"), ("gone", "no such file")):
        with pytest.raises(DarkroomError, match=what):
            read_bytes(tmp_path / name, None, "give another")


def test_what_json_says_has_the_types_of_its_dataclass() -> None:
    """Catches: "4" steps, or a key that nobody reads, which fail later or are lost."""
    assert typed(Defaults, {"sampling": PLAIN, "precision": "fp32"}, "x", "").sampling == make_sampling(
        "ddim", 4, 3.0, "trailing"
    )
    for change, reason in (
        ({"num_inference_steps": "4"}, r"^x: sampling\.num_inference_steps: .* not '4'; again$"),
        ({"num_inference_steps": True}, "num_inference_steps: .* not True"),
        ({"karras": 1}, "karras: "),
        ({"warp": 1}, "warp: Extra inputs are not permitted"),
        ({"sampler": {"kind": "ddim", "eta": 7.0}}, "sampling.sampler.eta: .* not 7.0"),
    ):
        with pytest.raises(DarkroomError, match=reason):
            typed(Defaults, {"sampling": {**PLAIN, **change}, "precision": "fp32"}, "x", "again")
    with pytest.raises(DarkroomError, match="is not an object with keys"):
        typed(Defaults, [PLAIN], "x", "again")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"layers_per_block": 10**6}, "f: layers_per_block = 1,000,000: more than 256 layers"),
        ({"transformer_layers_per_block": [1, 300]}, "transformer_layers_per_block = 300: more than 256"),
        ({"block_out_channels": [10**9]}, "block_out_channels = 1,000,000,000: more than 1,000,000"),
        ({"block_out_channels": [32] * 40}, "number of block_out_channels = 40: more than 16 levels"),
        ({"vocab_size": -1}, "vocab_size = -1: is below 0"),
    ],
)
def test_numbers_that_no_network_has_are_named(values: dict[str, object], reason: str) -> None:
    with pytest.raises(DarkroomError, match=reason):
        check_network(values, "f", "fetch it")


def test_numbers_that_no_drawing_has_are_named() -> None:
    for key in ("num_inference_steps", "steps_offset"):
        with pytest.raises(DarkroomError, match=rf"^f\.{key} = 1,000,000,000: more than"):
            check_sampling({key: 10**9}, "f", "fetch it")
    check_sampling({"num_inference_steps": 1000, "steps_offset": 1, "other": 10**9}, "f", "")
    check_sampling(None, "f", "")
