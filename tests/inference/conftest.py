"""Tiny pipelines, made once."""

from collections.abc import Callable
from types import ModuleType

import pytest

from darkroom.inference.pipeline import Pipeline


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
