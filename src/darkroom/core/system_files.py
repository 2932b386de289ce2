"""What file managers, disks and network drives leave in folders: no part of any model."""

import re
from collections.abc import Iterable

LEFT_BY_SYSTEMS = re.compile(
    r"\.DS_Store|\._.*|\.localized|Icon\r|\.AppleDouble|\.Spotlight-V100|\.Trashes|\.fseventsd"  # macOS
    r"|\.TemporaryItems|__MACOSX|\.DocumentRevisions-V100|\.apdisk|Network Trash Folder"
    r"|Thumbs\.db(:encryptable)?|ehthumbs(_vista)?\.db|desktop\.ini|\$RECYCLE\.BIN|System Volume Information"  # Windows
    r"|.*:Zone\.Identifier"
    r"|\.directory|\.Trash-\d+|\.nfs[0-9a-f]+|\.fuse_hidden\w+|lost\+found"  # Linux
    r"|@eaDir|#recycle|#snapshot|@Recycle|@tmp|\.@__thumb"  # network drives
    r"|\.ipynb_checkpoints|\.\w.*\.sw[op]",
    re.IGNORECASE,
)


def left_by_system(parts: Iterable[str]) -> bool:
    """Whether a path of these parts is such a file, or lies in such a folder."""
    return any(LEFT_BY_SYSTEMS.fullmatch(part) for part in parts)
