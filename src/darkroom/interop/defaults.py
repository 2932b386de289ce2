"""How a model is drawn with unless asked otherwise, where diffusers has no place for it: a file of ours in the folder,
which diffusers passes over."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from darkroom.core.artifact import FETCH, PIPELINE, read_json, write_json
from darkroom.core.choices import Precision
from darkroom.core.errors import DarkroomError
from darkroom.diffusion.generate import Sampling

FILE = "darkroom.json"  # beside model_index.json; a pipeline of ours says the same in pipeline.json
FORMAT = 1


@dataclass(frozen=True)
class Defaults:
    """What a model is drawn with unless asked otherwise."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    sampling: Sampling
    precision: Precision

    @classmethod
    def of(cls, value: Any, place: Path) -> "Defaults":
        """What is said at `place`.

        Raises:
            DarkroomError: it says less, more, or what cannot be done; names the key.
        """
        try:
            unknown = sorted(value["sampling"].keys() - Sampling.__dataclass_fields__.keys())
            if unknown:
                raise DarkroomError(f"{place}: sampling.{unknown[0]} is not known here; install another version")
            return TypeAdapter(cls).validate_python({key: value[key] for key in ("sampling", "precision")})
        except ValidationError as error:
            fault = error.errors()[0]
            reason = f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
        except (KeyError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}"
        except DarkroomError as error:
            if str(error).startswith(str(place)):
                raise
            reason = str(error)
        raise DarkroomError(f"{place}: does not say how to draw ({reason}); {FETCH}")

    @classmethod
    def read(cls, folder: Path) -> "tuple[Defaults, Path] | None":
        """Those of the model in `folder`, and the file that says so; None where it says nothing.

        Raises:
            DarkroomError: see `of`; the file is torn or of another format.
        """
        for path, version in ((folder / PIPELINE, None), (folder / FILE, FORMAT)):
            if path.is_file():
                value = read_json(path, FETCH)
                if version is not None and isinstance(value, dict) and value.get("format") != version:
                    raise DarkroomError(
                        f"{path}: has format {value.get('format')!r}, not {version}; install another version"
                    )
                return cls.of(value, path), path
        return None

    def write(self, folder: Path) -> None:
        """Write darkroom.json into `folder`."""
        write_json(folder / FILE, {**asdict(self), "format": FORMAT})
