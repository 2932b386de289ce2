"""What file managers, disks and network drives leave in folders: nobody's pictures, and no part of any model."""

import re
from collections.abc import Iterable

LEFT_BY_SYSTEMS = re.compile(
    r"\.DS_Store|\._.*|\.localized|Icon\r|\.AppleDouble|\.Spotlight-V100|\.Trashes|\.fseventsd"  # macOS
    r"|\.TemporaryItems|__MACOSX|\.DocumentRevisions-V100|\.apdisk|Network Trash Folder|Temporary Items"
    r"|Thumbs\.db(:encryptable)?|ehthumbs(_vista)?\.db|desktop\.ini|\$RECYCLE\.BIN|System Volume Information"  # Windows
    r"|\$Extend|RECYCLER|found\.\d{3}|.*:Zone\.Identifier"
    r"|\.directory|\.Trash-\d+|\.nfs[0-9a-f]+|\.fuse_hidden\w+|lost\+found|LOST\.DIR"  # Linux, Android
    r"|@eaDir|#recycle|#snapshot|~snapshot|@Recycle|@Recently-Snapshot|@tmp|\.?@__thumb"  # network drives
    r"|__pycache__|\.ipynb_checkpoints|\.\w.*\.sw[op]",
    re.IGNORECASE,
)


def left_by_system(segments: Iterable[str]) -> bool:
    """Whether a path of these parts is such a file, or lies in such a folder."""
    return any(LEFT_BY_SYSTEMS.fullmatch(part) for part in segments)


def system_part(name: str) -> str | None:
    """Of a POSIX name, the first part that a system made for itself or that is hidden; None where there is none.

    Names that differ in each file come as a pattern: "._*" (what macOS keeps beside a file), ".*" (a hidden file).
    """
    *folders, last = name.split("/")
    for folder in folders:
        if is_system(folder):
            return folder
    if not is_system(last):
        return None
    return "._*" if last.startswith("._") else ".*" if last.startswith(".") else last


def is_system(part: str) -> bool:
    """Is one part of a name hidden, or of a system?"""
    if part.startswith("."):
        return part not in (".", "..")  # which archives have in their names
    return left_by_system([part])
