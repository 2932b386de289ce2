"""The memory of this process that is not a file's."""

from pathlib import Path

import pytest

STATUS = Path("/proc/self/status")


def anonymous_bytes() -> int:
    """RssAnon; skips the test where the system does not say it."""
    if not STATUS.is_file():
        pytest.skip("only Linux tells a file's memory from a process's own")
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024
