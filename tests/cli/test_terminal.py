"""Nothing that a command prints is obeyed by a terminal, whoever forgot to make it printable."""

import sys
from collections.abc import Callable

import pytest

from darkroom.cli.terminal import printed
from darkroom.core.text import printable_text

HOSTILE = "a\x1b[2Jb\x9b1mc\u202ed\u200be\x00f\udc80"
ESCAPED = "a\\x1b[2Jb\\x9b1mc\\u202ed\\u200be\\x00f\\udc80"


def test_text_is_printable_and_plain_text_stays_as_it_is() -> None:
    assert printable_text(HOSTILE) == ESCAPED
    assert printable_text("a\nb\tc\rd") == "a\\nb\\tc\\rd"
    assert printable_text("a\nb\r", keep="\n") == "a\nb\\r"
    for text in ("", "ein grüner Ring", "зелёное кольцо", "緑の輪", "📷 ✓ │ └─"):
        assert printable_text(text) == text
    assert printable_text(OSError("x\x1b")) == "x\\x1b"


def test_what_is_printed_is_escaped_but_for_its_own_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with printed():
        print(HOSTILE, "b", sep="\n")
        sys.stdout.writelines(["\x1b", "\t|\n"])
        print(f"\r {HOSTILE}", file=sys.stderr)
        assert not sys.stdout.isatty()
    said = capsys.readouterr()
    assert said.out == f"{ESCAPED}\nb\n\\x1b\t|\n"
    assert said.err == f"\r {ESCAPED}\n"


def test_bytes_are_printed_as_the_text_that_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a --help that is printed as b'Usage: …': click writes bytes where a stream takes them."""
    with printed():
        sys.stdout.write("Usage: ✓\x1b\n".encode())  # type: ignore[arg-type]
    assert capsys.readouterr().out == "Usage: ✓\\x1b\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", f"{HOSTILE}.png"),
        ("regenerate", f"{HOSTILE}.png"),
        ("recipe", "use", HOSTILE),
        (HOSTILE,),
        ("--" + HOSTILE,),
    ],
    ids=ascii,
)
def test_no_command_sends_its_arguments_on_to_the_terminal(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert run(*arguments) != 0
    said = "".join(capsys.readouterr())
    assert all(line.isprintable() for line in said.split("\n")), said
