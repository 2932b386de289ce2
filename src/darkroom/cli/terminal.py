"""What stands between the command line and the terminal: text from outside is printed, and never obeyed."""

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

    def write(self, text: str) -> int:
        self._stream.write(printable_text(text, self._keep))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def printed() -> Iterator[None]:
    """In this block nothing that is printed can move the cursor, colour, hide or reorder what is on the screen.

    Who prints a name on a line of its own passes it through `printable_text`, for line breaks stay here.
    """
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Printed(out, LINES), _Printed(err, REDRAWN)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err
