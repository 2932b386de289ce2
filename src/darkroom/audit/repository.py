"""What git knows of the project's files."""

import hashlib
import subprocess


def git(*arguments: str) -> str | None:
    """What git answers; None where it refuses, or is not there."""
    answer = _ask(*arguments)
    return None if answer is None else answer.decode(errors="replace").strip()


def md5_at_head(path: str) -> str | None:
    """The md5 of a file as it was last committed; None where it was not."""
    content = _ask("show", f"HEAD:./{path}")
    return None if content is None else hashlib.md5(content).hexdigest()


def _ask(*arguments: str) -> bytes | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
