"""Which files of a folder are taken for pictures, and how they are read."""

from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable
from darkroom.data.images import MAX_BYTES, SUFFIXES, UNREAD
from darkroom.data.manifest import Files, SourceFile
from darkroom.data.sources.base import Skipped

NOT_READ = "a picture of a format that is not read; save it as PNG or JPEG"


def pictures_among(files: Files) -> list[str]:
    """The names with a picture's suffix, of a format that is not read too.

    Raises:
        DarkroomError: there is none of a format that is.
    """
    if not any(name.lower().endswith(SUFFIXES) for name in files.names):
        kinds = " ".join(SUFFIXES)
        raise DarkroomError(
            f"{printable(files.root)}: no pictures in this folder ({kinds}); check prepare_data.source.root"
        )
    return [name for name in files.names if name.lower().endswith((*SUFFIXES, *UNREAD))]


def picture_file(files: Files, name: str) -> SourceFile | Skipped:
    """The file, yet to be read; not one too large to be a picture, or of a format that is not read."""
    if name.lower().endswith(UNREAD):
        return Skipped(name, NOT_READ)
    file = files.file(name)
    return Skipped(name, f"larger than {MAX_BYTES >> 20} MiB") if file.size > MAX_BYTES else file
