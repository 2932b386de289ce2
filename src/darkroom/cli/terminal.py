"""The streams of the command line: a terminal prints text from outside, and never obeys it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from darkroom.core.text import printable_text

LINES = "\n\t"
REDRAWN = f"{LINES}\r"  # a progress bar begins its line anew


class _Printed:
    """A stream that escapes what is not printable; else as the one it stands for."""

    def __init__(self, stream: TextIO, keep: str) -> None:
        self._stream, self._keep = stream, keep

    def write(self, text: str | bytes) -> int:
        """Click asks whether the stream takes bytes, and if so writes help and errors as such."""
        letters = text.decode(errors="backslashreplace") if isinstance(text, bytes) else text
        self._stream.write(printable_text(letters, self._keep))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def printed() -> Iterator[None]:
    """In this block nothing that is printed can move the cursor, colour, hide or reorder what is on the screen.

    Line breaks are kept: a name that must stay on one line is to be passed through `printable_text`.
    """
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Printed(out, LINES), _Printed(err, REDRAWN)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err
