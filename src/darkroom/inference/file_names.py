"""Names of files after what they show."""

import re
import unicodedata

MAX_SLUG, MAX_SLUG_BYTES = 60, 200  # letters of a prompt, and bytes of them, that a file name takes


def slug(prompt: str) -> str:
    """A prompt as a file name: its letters and digits, joined by hyphens; the same in NFC and NFD."""
    letters = re.sub(r"\W+", "-", unicodedata.normalize("NFC", prompt).lower())[:MAX_SLUG]
    return letters.encode(errors="ignore")[:MAX_SLUG_BYTES].decode(errors="ignore").strip("-_") or "picture"
