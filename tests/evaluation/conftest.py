"""The makers of tiny artifacts that the tests of inference use too."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TESTS = Path(__file__).parents[1]


def load(path: Path) -> ModuleType:
    """A file as a module."""
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def parts() -> ModuleType:
    """tests/inference/parts.py."""
    return load(TESTS / "inference" / "parts.py")


@pytest.fixture(scope="session")
def evaluate() -> ModuleType:
    """stages/evaluate.py."""
    return load(TESTS.parent / "stages" / "evaluate.py")
