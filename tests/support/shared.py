"""What is dear to make, made once for all processes that test side by side."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def made_once(tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name`, which the first to ask has made; whoever asks meanwhile waits. Leave it as it is.

    make: fills the folder, which is empty. One that failed is made anew by the next to ask.
    """
    root = tmp_path_factory.getbasetemp()
    if root.name.startswith("popen-"):  # a pytest-xdist worker's own, below that of all
        root = root.parent
    folder, finished = root / f"shared {name}", root / f"shared {name}.finished"
    with FileLock(root / f"shared {name}.lock"):
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            finished.touch()
    return folder
