"""Text from outside is read whatever tool wrote it, or refused with the reason."""

from pathlib import Path

import pytest

from darkroom.core.errors import DarkroomError
from darkroom.core.text import UnreadableTextError, article, check_text, decode_text, plural, read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_no_part_of_the_text(encoding: str) -> None:
    """Catches a prompt or caption that begins with U+FEFF, and so means something else to the tokenizer."""
    assert decode_text("ein Grün\r\nund ein Rot\rund Schluss".encode(encoding)) == "ein Grün\nund ein Rot\nund Schluss"


@pytest.mark.parametrize("data", ["Grün".encode("latin-1"), "a ring".encode("utf-16-le"), b"\xff\xfea"])
def test_what_is_no_text_is_refused(data: bytes) -> None:
    """Catches letters that are lost, replaced or drawn out with zero bytes."""
    with pytest.raises(UnreadableTextError):
        decode_text(data)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DarkroomError, match=r"missing\.txt"):
        read_text(tmp_path / "missing.txt")
    (tmp_path / "latin.txt").write_bytes("Grün".encode("latin-1"))
    with pytest.raises(DarkroomError, match=r"latin\.txt: is not UTF-8; save it as UTF-8"):
        read_text(tmp_path / "latin.txt")


def test_a_text_that_utf8_cannot_hold_is_refused() -> None:
    """Catches the traceback of a later write."""
    assert check_text("caf\u00e9", "prompt") == "caf\u00e9"
    with pytest.raises(DarkroomError, match=r"prompt .* character 4"):
        check_text(b"caf\xe9".decode("utf-8", "surrogateescape"), "prompt")


def test_articles_follow_the_sound_and_numbers_the_noun() -> None:
    """Catches captions such as "an one", and messages such as "1 prompts"."""
    nouns = ("airplane", "cat", "one", "unicorn", "orange", "european", "Ankle boot")
    assert [article(noun) for noun in nouns] == ["an", "a", "a", "a", "an", "a", "an"]
    assert (plural(0, "seed"), plural(1, "seed"), plural(2, "seed")) == ("0 seeds", "1 seed", "2 seeds")
