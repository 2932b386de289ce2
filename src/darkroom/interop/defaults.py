"""How a model is drawn with unless asked otherwise, where diffusers has no place for it: a file of ours in the folder,
which diffusers passes over."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from darkroom.config.base import Precision
from darkroom.config.sampling import Sampling
from darkroom.core.artifact import FETCH, PIPELINE, write_json
from darkroom.core.errors import DarkroomError
from darkroom.core.limits import check_sampling
from darkroom.core.outside import typed
from darkroom.interop.configs import read_outside

FILE = "darkroom.json"  # beside model_index.json; a pipeline of ours says the same in pipeline.json
FORMAT = 2  # 2: the sampler with its options


@dataclass(frozen=True)
class Defaults:
    """What a model is drawn with unless asked otherwise."""

    sampling: Sampling
    precision: Precision

    @classmethod
    def of(cls, value: Any, source: Path) -> "Defaults":
        """What is said at `source`.

        Raises:
            DarkroomError: it says less, more, or what cannot be done; names the key.
        """
        values = (
            {key: value[key] for key in ("sampling", "precision") if key in value} if isinstance(value, dict) else value
        )
        if isinstance(value, dict) and "sampling" in value:
            check_sampling(value["sampling"], f"{source}: sampling", FETCH)
        return typed(cls, values, f"{source}: does not say how to draw", FETCH)

    @classmethod
    def read(cls, folder: Path) -> "tuple[Defaults, Path] | None":
        """Those of the model in `folder`, and the file that says so; None where it says nothing.

        Raises:
            DarkroomError: see `of`; the file is torn or of another format.
        """
        for path, version in ((folder / PIPELINE, None), (folder / FILE, FORMAT)):
            if path.is_file():
                value = read_outside(path)
                if version is not None and isinstance(value, dict) and value.get("format") != version:
                    raise DarkroomError(
                        f"{path}: has format {value.get('format')!r}, not {version}; install another version"
                    )
                return cls.of(value, path), path
        return None

    def write(self, folder: Path) -> None:
        """Write darkroom.json into `folder`."""
        write_json(
            folder / FILE, {"sampling": self.sampling.model_dump(), "precision": self.precision, "format": FORMAT}
        )
