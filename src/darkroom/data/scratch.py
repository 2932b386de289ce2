"""What is to be looked up again of every picture, on disk: memory does not grow with the number of pictures."""

import sqlite3


def scratch_database(cache_mib: int) -> sqlite3.Connection:
    """A database of this process alone, in a file below TMPDIR or /var/tmp that is gone when it is closed.

    Nothing in it outlives the process, so that no write waits for the disk.

    Args:
        cache_mib: MiB of it that stay in memory.
    """
    database = sqlite3.connect("", isolation_level=None)
    database.execute(f"PRAGMA cache_size = -{1024 * cache_mib}")
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
