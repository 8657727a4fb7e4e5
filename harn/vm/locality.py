"""
The definition of local code: files below the manifest's directory that were not installed there.

Local code is served only from the bundle. Installed packages (a virtual environment, ``pip install --target``) are
imported from disk, wherever they are. Used by the server, which reads, and by the interpreter, which refuses.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterable
from functools import cache

OURS = frozenset(("harn", "msgspec"))
"""The packages of the interpreter itself; they are never the user's code, wherever they are installed."""

_INSTALLED = frozenset(("site-packages", "dist-packages", "__pycache__"))


class Locality:
    """
    Distinguishes local code from installed packages.

    :param root: the manifest's directory, absolute; empty: nothing is local.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._real = os.path.realpath(root) if root else ""
        named = (sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
        # Python itself may be below the manifest's directory; a directory that holds both proves nothing.
        homes = {os.path.realpath(home) for home in (sys.prefix, sys.base_prefix, *named) if home}
        self._homes = tuple(home for home in homes if not _is_below(os.path.join(self._real, ""), home))
        self._is_installed = cache(self._look)

    def is_local(self, path: str) -> bool:
        """Return whether the file at ``path`` is local code, wherever links lead."""
        if not self.root or not path:
            return False
        absolute, real = os.path.abspath(path), os.path.realpath(path)
        if _is_below(absolute, self.root):
            return not self._is_installed(os.path.dirname(absolute), self.root)
        return _is_below(real, self._real) and not self._is_installed(os.path.dirname(real), self._real)

    def search_path(self, entries: Iterable[str]) -> list[str]:
        """Return the directories of Python's search path that are below the root and hold local code, in order."""
        found = dict.fromkeys(os.path.abspath(entry) for entry in entries if entry)
        return [each for each in found if os.path.isdir(each) and self.is_local(os.path.join(each, "module.py"))]

    def relative(self, path: str) -> str:
        """Return a local path as the manifest would write it."""
        absolute = os.path.abspath(path)
        inside = _is_below(absolute, self.root)
        return os.path.relpath(absolute, self.root) if inside else os.path.relpath(os.path.realpath(path), self._real)

    def _look(self, directory: str, root: str) -> bool:
        """Return whether packages are installed into a directory, or into one between it and the root."""
        if any(_is_below(os.path.join(os.path.realpath(directory), ""), home) for home in self._homes):
            return True
        while _is_below(directory, root):
            if os.path.basename(directory) in _INSTALLED or _holds_packages(directory):
                return True
            directory = os.path.dirname(directory)
        return False


def _holds_packages(directory: str) -> bool:
    try:
        names = os.listdir(directory)
    except OSError:
        return False
    return "pyvenv.cfg" in names or any(name.endswith(".dist-info") for name in names)


def _is_below(path: str, directory: str) -> bool:
    return path.startswith(os.path.join(directory, ""))
