"""Names of outside files, as messages and lists show them."""

from darkroom.core.text import printable

MOST_LETTERS = 300


def shown(name: object) -> str:
    """On one line that every terminal prints (see `printable`); of a very long name the middle is left out."""
    text = str(name)
    if len(text) > MOST_LETTERS:
        half = MOST_LETTERS // 2
        text = f"{text[:half]}…{text[-half:]}"
    return printable(text)
