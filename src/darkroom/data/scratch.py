"""What is to be looked up again of every picture, on disk: memory does not grow with the number of pictures."""

import sqlite3

CACHE_KIB = 8192  # of a database's pages that stay in memory


def scratch_database() -> sqlite3.Connection:
    """A database of this process alone, in a file below TMPDIR or /var/tmp that is gone when it is closed.

    Nothing in it outlives the process, so that no write waits for the disk.
    """
    database = sqlite3.connect("", isolation_level=None)
    database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    database.execute("BEGIN")
    return database


def packed(name: str) -> bytes:
    """A file's name, which need not be valid Unicode."""
    return name.encode("utf-8", "surrogatepass")


def unpacked(name: bytes) -> str:
    """What `packed` was given."""
    return name.decode("utf-8", "surrogatepass")
