"""Where pictures come from: what every kind of source says of itself, and the registry of kinds."""

from typing import Any, ClassVar

from darkroom.config.base import Section
from darkroom.config.kinds import Kinds


class Source(Section):
    """A source of pictures. Each kind is a file in data/sources, with what reads it, and a line in SOURCES."""

    labelled: ClassVar[bool]
    """Whether it can bring a class for each picture."""

    synthetic: ClassVar[bool]
    """Whether it draws its pictures itself, at prepare_data.image_size."""

    kind: str
    """Which source, one of SOURCES."""

    def open(self, seed: int, image_size: int) -> Any:
        """What reads it: a `data.sources.base.Reader`.

        Args:
            seed, image_size: of prepare_data; only sources that draw their pictures look at them.

        Raises:
            DarkroomError: files that it needs are not there.
        """
        raise NotImplementedError

    def counts(self) -> dict[str, int] | None:
        """Pictures of each split, where that is known before they are read."""
        return None


SOURCES = Kinds[Source](
    "source",
    {
        "scenes": "darkroom.data.sources.scenes:ScenesSource",
        "torchvision": "darkroom.data.sources.torchvision_sets:TorchvisionSource",
        "image_folder": "darkroom.data.sources.image_folder:ImageFolderSource",
        "captioned_folder": "darkroom.data.sources.captioned_folder:CaptionedFolderSource",
        "webdataset": "darkroom.data.sources.webdataset:WebDatasetSource",
    },
)
