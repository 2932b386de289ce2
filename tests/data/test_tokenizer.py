"""What a tokenizer drops of a text that is too long is named as it is written."""

import pytest

from darkroom.data.tokenizer import CLIPTokenizer

CAPTIONS = ["a small red circle above a large blue square", "a café by the river", "and much that is beyond"] * 4


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.train(CAPTIONS, 700, 5)


@pytest.mark.parametrize(
    ("text", "dropped"),
    [
        ("a small red", ""),
        ("a small red circle and beyond", "circle and beyond"),
        ("a   small    red     circle      and  Beyond", "circle      and  Beyond"),
        ("a cafe\u0301 by the river", "the river"),
        ("a small red " + "unheard-of" * 3, "unheard-of" * 3),
    ],
    ids=["fits", "plain", "spaces and capitals", "decomposed accent", "cut through a word"],
)
def test_what_is_dropped_is_named_from_a_words_start(tokenizer: CLIPTokenizer, text: str, dropped: str) -> None:
    assert tokenizer.cut(text) == dropped
