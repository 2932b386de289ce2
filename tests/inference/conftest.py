"""Tiny pipelines, made once."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from darkroom.inference.pipeline import Pipeline


@pytest.fixture(scope="session")
def parts() -> ModuleType:
    """Makers of tiny artifacts."""
    spec = importlib.util.spec_from_file_location("inference_parts", Path(__file__).with_name("parts.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def make(parts: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pipeline]:
    """A pipeline of random networks, by the arguments of `parts.assembled`."""
    made: dict[str, Pipeline] = {}

    def pipeline(**how: object) -> Pipeline:
        if str(how) not in made:
            path = parts.assembled(tmp_path_factory.mktemp("pipeline"), **how)
            made[str(how)] = Pipeline.from_pretrained(path, device="cpu")
        return made[str(how)]

    return pipeline
