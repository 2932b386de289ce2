"""Text that comes from outside, as people's tools write it: the one place where bytes become text, where text that no
file could hold is refused, and where text becomes what a terminal may be given."""

import codecs
from pathlib import Path

from darkroom.core.errors import DarkroomError

# UTF-32's little-endian mark begins with UTF-16's, so it is looked for first.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
MOST_LETTERS = 300


CONSONANT_SOUNDS = ("eu", "one", "uni", "use")  # beginnings of words that are written with a vowel


class UnreadableTextError(Exception):
    """These bytes are not text; the message is the reason."""


def decode_text(data: bytes, errors: str = "strict") -> str:
    """UTF-8, or UTF-16 or UTF-32 with its byte order mark; without the mark; line ends become \\n.

    errors: with "surrogateescape", single bytes that are not UTF-8 become lone surrogates, for a reader that loses no
    more than the line they stand in.
    Raises UnreadableTextError: anything else.
    """
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding, "strict" if encoding.startswith(("utf-16", "utf-32")) else errors)
    except UnicodeDecodeError:
        raise UnreadableTextError(f"is not {encoding.removesuffix('-sig').upper()}") from None
    if "\0" in text:
        raise UnreadableTextError("holds zero bytes, as UTF-16 without a byte order mark does; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_text(path: Path) -> str:
    """The content of a text file from outside."""
    try:
        return decode_text(path.read_bytes())
    except OSError as error:
        raise DarkroomError(f"{path}: cannot be read ({error.strerror}); give a text file") from None
    except UnreadableTextError as error:
        raise DarkroomError(f"{path}: {error}; save it as UTF-8") from None


def check_text(text: str, what: str) -> str:
    """`text` as it is, if UTF-8 can hold it: a shell in another encoding hands over lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DarkroomError(
            f"{what} {text!a}: character {error.start + 1} cannot be written as UTF-8; type it again, or set the "
            "terminal to UTF-8"
        ) from None
    return text


def printable_text(text: object, keep: str = "") -> str:
    """`text` as every terminal prints it, and no terminal obeys it: line breaks, control characters, what turns the
    direction of writing, what nobody sees, and lone surrogates are escaped as in Python; but for the letters in `keep`.
    """
    plain = str(text)
    if plain.isprintable():
        return plain
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in plain)


def printable(name: object) -> str:
    """On one line that every terminal prints (see `printable_text`); of a very long name the middle is left out."""
    text = str(name)
    if len(text) > MOST_LETTERS:
        half = MOST_LETTERS // 2
        text = f"{text[:half]}…{text[-half:]}"
    return printable_text(text)


def article(noun: str) -> str:
    """The indefinite article by the sound of the noun: "an airplane", "a one", "a unicorn"."""
    start = noun.lower()
    return "an" if start.startswith(tuple("aeiou")) and not start.startswith(CONSONANT_SOUNDS) else "a"


def plural(n: int, noun: str) -> str:
    """A number of things: "1 prompt", "2 prompts"."""
    return f"{n} {noun}{'' if n == 1 else 's'}"
