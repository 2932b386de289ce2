"""The body of a request is looked at before MLflow parses it: nesting, numbers, letters, names."""

import time

import pytest

from darkroom.serving.body import check
from darkroom.serving.limits import Limits, RefusedError

PARAMS = ("guidance_scale", "num_inference_steps", "sampler", "seed", "strength", "negative_prompt")
GOOD = b'{"dataframe_records": [{"prompt": "\\u00e9 \\ud83d\\ude00 [{:,}]", "image": ""}], "params": {"seed": 7}}'


def test_a_good_body_passes() -> None:
    for body in (GOOD, b"\xef\xbb\xbf" + GOOD, GOOD.replace(b"dataframe_records", b"instances"), b" " * 1000 + GOOD):
        check(body, Limits(), PARAMS)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"[" * 10**6, "DARKROOM_SERVE_NESTING"),
        (b'{"a":' * 10**5, "DARKROOM_SERVE_NESTING"),
        (b"[1," * 10**6, "DARKROOM_SERVE_NESTING"),
        (b"[" + b"{}," * 10**6, "DARKROOM_SERVE_ROWS"),
        (b'["' + b'","' * 10**6, "DARKROOM_SERVE_ROWS"),
        (b'""' * 10**6, "DARKROOM_SERVE_ROWS"),
        (b'"' + b'\\"' * 10**6, "not JSON"),
        (b'"' + b"\\" * (10**6 + 1), "not JSON"),
        (b'["\\"' + b"[" * 10**6, "not JSON"),
        (b"1" * 10**6, "beyond 64 bits"),
        (b"-" + b"9" * 19, "beyond 64 bits"),
        (b"1" * 10**6 + b".0", "is not a finite number"),
        (b"1e400", "is not a finite number"),
        (b"NaN", "is not a finite number"),
        (b"-Infinity", "is not a finite number"),
        (b'"\\udfff"', "stands alone"),
        (b'{"\\ud83d x": 1}', "stands alone"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        ('{"∀[[": "["}'.encode("utf-16-le"), "zero bytes"),
        (b"", "not JSON"),
        (b"null", "JSON object"),
        (b"{}", "no rows"),
        (b'{"dataframe_records": []}', "holds no rows"),
        (b'{"dataframe_records": [1], "inputs": [1]}', "alone"),
        (b'{"dataframe_records": [1], "rows": 1}', "unknown key 'rows'"),
        (b'{"dataframe_records": [1], "params": {"steps": 1}}', "unknown name 'steps'"),
        (b'{"dataframe_records": [1], "params": 3}', "params = 3"),
        (b'{"dataframe_split": {"columns": [], "data": [' + b"1," * 64 + b"1]}}", "DARKROOM_SERVE_ROWS"),
    ],
    ids=lambda given: repr(given[:12]),  # megabytes of it go through pipes between processes
)
def test_a_bad_body_is_refused_quickly_in_a_line(body: bytes, said: str) -> None:
    """Catches nesting that overruns Python's stack, patterns that go back, and numbers that are none."""
    began = time.process_time()
    with pytest.raises(RefusedError, match=said) as refused:
        check(body, Limits(), PARAMS)
    assert time.process_time() - began < 2
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1000
