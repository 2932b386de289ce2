"""Something that takes room."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Item:
    """Files and folders that go together.

    kind: which sort of thing, in words, under which it is listed. what: which one it is. bytes: of the disk that are
    free once it is gone, as du counts. run: the id of the run in MLflow whose copies these are.
    """

    kind: str
    what: str
    paths: tuple[Path, ...]
    bytes: int
    run: str = ""
