"""Names of outside files, as messages and lists show them."""

MOST_LETTERS = 300


def shown(name: object) -> str:
    """On one line that every terminal prints: line breaks, control characters and undecodable bytes are escaped, and of
    a very long name the middle is left out."""
    text = str(name)
    if len(text) > MOST_LETTERS:
        half = MOST_LETTERS // 2
        text = f"{text[:half]}…{text[-half:]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
