"""The stage under test."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def evaluate(load: Callable[[Path], ModuleType]) -> ModuleType:
    """stages/evaluate.py."""
    return load(Path(__file__).parents[2] / "stages" / "evaluate.py")
