"""Which file is meant by a name that was written on another machine, or by another program."""

import posixpath
import unicodedata
from collections.abc import Iterable


class NoMatchError(Exception):
    """No file, or no single one, is meant; the message is the reason."""


class NameMatcher:
    """Finds names, relative POSIX ones, among those that are there.

    The name that is exactly so comes first; then the one it is by the rules of paths (./a, a//b, b/../a, a\\\\b as
    Windows writes it); then the only one that differs from it in nothing but upper and lower case, blanks around its
    parts, and the way Unicode composes its letters.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)
        self._alike: dict[str, list[str]] = {}
        for name in sorted(self._names):
            self._alike.setdefault(_loose(name), []).append(name)

    def find(self, wanted: str, folder: str = "", claimed: frozenset[str] | set[str] = frozenset()) -> str:
        """The name that `wanted`, relative to `folder`, means. A name in `claimed` is meant by another one exactly, and
        so by `wanted` only if exactly.

        Raises:
            NoMatchError: none is, or several are equally like it.
        """
        exact = self.exact(wanted, folder)
        if exact is not None:
            return exact
        alike = self._alike.get(_loose(_joined(folder, wanted.replace("\\", "/"))), [])
        if len(alike) > 1:
            raise NoMatchError(f"ambiguous: it is as much like {alike[0]} as like {alike[1]}")
        if not alike:
            raise NoMatchError("not there")
        if alike[0] in claimed:
            raise NoMatchError(f"ambiguous: {alike[0]} is like it, but is meant by another name")
        return alike[0]

    def exact(self, wanted: str, folder: str = "") -> str | None:
        """The name that is exactly so, or so by the rules of paths."""
        tries = (_joined(folder, wanted), _joined(folder, wanted.replace("\\", "/")))
        return next((name for name in tries if name in self._names), None)


def _joined(folder: str, name: str) -> str:
    return posixpath.normpath(posixpath.join(folder, name))


def _loose(name: str) -> str:
    """Equal for names that a person takes for the same: canonical caseless matching of Unicode, blanks stripped."""
    decomposed = unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
    return "/".join(part.strip() for part in decomposed.split("/"))
