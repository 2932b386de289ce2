"""Files and folders that disks, NAS boxes and tools make for themselves: they are nobody's pictures."""

import re

# In lower case, as the systems themselves compare them.
NAMES = frozenset(
    {
        "#recycle",  # Synology
        "#snapshot",
        "@eadir",
        "@tmp",
        "@recycle",  # QNAP
        "@recently-snapshot",
        "@__thumb",
        "~snapshot",  # NetApp
        "$recycle.bin",  # Windows
        "$extend",
        "recycler",
        "system volume information",
        "desktop.ini",
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "__macosx",  # macOS
        "network trash folder",
        "temporary items",
        "icon\r",
        "lost+found",  # Linux
        "lost.dir",  # Android
        "__pycache__",
    }
)
NUMBERED = re.compile(r"found\.\d{3}")  # what Windows saved of a damaged disk


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
    lower = part.lower()
    return lower in NAMES or NUMBERED.fullmatch(lower) is not None
