"""A tar archive of unknown origin, read where it lies: all of it, or an error that says it is damaged."""

import tarfile
from typing import BinaryIO

from darkroom.core.errors import DarkroomError
from darkroom.core.text import printable

AT_ONCE = 1 << 20  # bytes


class TarShard:
    """The members of an archive, in its order; names are UTF-8, undecodable bytes as surrogates.

    `file` is at its beginning and stays open as long as members are read; `name` is for messages.

    Raises:
        DarkroomError: not a tar archive, cut off (even between two members), damaged, or several strung together.
    """

    def __init__(self, name: str, file: BinaryIO) -> None:
        self.name = name
        self.members: list[tarfile.TarInfo] = []
        try:
            self._archive = tarfile.TarFile(fileobj=file, encoding="utf-8")
            for member in self._archive:
                if member.size < 0 or self._archive.offset <= member.offset:  # tarfile would go in circles
                    raise tarfile.ReadError("negative size")
                self.members.append(member)
            _check_end(file, self._archive.offset)
        except Exception as error:  # tarfile raises anything on damaged headers
            raise self._damaged(f"damaged tar shard ({_reason(error)})") from None

    def read(self, member: tarfile.TarInfo, most: int) -> bytes:
        """Up to `most` bytes of a member. Raises DarkroomError where it is damaged."""
        try:
            content = self._archive.extractfile(member)
            return content.read(most) if content is not None else b""
        except Exception as error:
            raise self._damaged(f"damaged at {printable(member.name)} ({_reason(error)})") from None

    def _damaged(self, what: str) -> DarkroomError:
        return DarkroomError(f"{printable(self.name)}: {what}; fetch it again or remove it")


def _check_end(file: BinaryIO, end: int) -> None:
    """After the last member an archive has a block of zeros, and nothing else; tarfile itself stops at anything."""
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if block.strip(b"\0"):
        raise tarfile.ReadError("broken header")
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("cut off: it has no end")
    while block := file.read(AT_ONCE):
        if block.strip(b"\0"):
            raise tarfile.ReadError("more follows after its end: archives strung together, to be packed anew as one")


def _reason(error: Exception) -> str:
    return printable(error) or type(error).__name__
