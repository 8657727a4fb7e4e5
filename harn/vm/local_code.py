"""
Local code: files below the manifest's directory that were not installed there, and the guard of their imports.

Local code is served only from the bundle. Installed packages (a virtual environment, ``pip install --target``) are
imported from disk, wherever they are. Used by the server, which reads, and by the interpreter, whose guard refuses
imports of local files that are not in the bundle: such a module, found through ``sys.path``, ``PYTHONPATH``, a ``.pth``
file or another finder, would keep serving the code of its first import, and no reload would notice a change.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Collection, Iterable, Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from types import ModuleType
from typing import Any

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
        self._installed: dict[tuple[str, str], bool] = {}  # not a cached method: that would be a cycle

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

    def _is_installed(self, directory: str, root: str) -> bool:
        found = self._installed.get((directory, root))
        if found is None:
            found = self._installed[directory, root] = self._look(directory, root)
        return found

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


class UnreadModule(ImportError):
    """A local module that was not read with the manifest; ``hint`` says how to add it."""

    def __init__(self, message: str, hint: str, name: str, path: str) -> None:
        super().__init__(f"{message}; {hint}", name=name, path=path)
        self.message, self.hint = message, hint


class ImportGuard:
    """
    A finder between the bundle's and all others.

    :param locality: decides which files are local.
    :param paths: the files of the bundle.
    :param directories: the directories in which the bundle's modules would be found on disk.
    :ivar refused: the refused imports so far, by module name: importing code may catch and hide the error.
    """

    def __init__(self, locality: Locality, paths: Collection[str], directories: Iterable[str]) -> None:
        self.refused: dict[str, UnreadModule] = {}
        self._locality = locality
        self._paths = frozenset(paths)
        self._directories = tuple(dict.fromkeys((locality.root, *sorted(directories)))) if locality.root else ()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """
        Return the spec of the finders behind this one (PEP 451).

        :raises UnreadModule: it is local, and not in the bundle.
        """
        if fullname.partition(".")[0] in OURS:
            return None
        spec = None
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :] if self in sys.meta_path else ():
            find: Any = getattr(finder, "find_spec", None)
            spec = None if find is None else find(fullname, path, target)
            if spec is not None:
                break
        origin = self._beside(fullname) if spec is None and path is None else _origin(spec)
        self._refuse(fullname, origin)
        return spec

    def check(self, name: str) -> None:
        """
        Check that an imported module is not a local one from disk; for an interpreter without a finder of its own.

        :raises UnreadModule: it is.
        """
        steps = name.split(".")
        for length in range(1, len(steps) + 1):
            full = ".".join(steps[:length])
            module = sys.modules.get(full)
            if module is not None and steps[0] not in OURS:
                self._refuse(full, _file(module))

    def unseen(self, before: Collection[str]) -> UnreadModule | None:
        """
        Return the first local module that was refused, or got into ``sys.modules`` past all finders, since ``before``
        (names of both kinds).
        """
        for name, error in self.refused.items():
            if name not in before:
                return error
        for name, module in tuple(sys.modules.items()):
            if name in before or name.partition(".")[0] in OURS:
                continue
            try:
                self._refuse(name, _file(module))
            except UnreadModule as error:
                return error
        return None

    def _refuse(self, name: str, origin: str) -> None:
        if not origin or origin in self._paths or not self._locality.is_local(origin):
            return
        error = self.refused[name] = unread(name, origin, self._locality)
        raise error

    def _beside(self, name: str) -> str:
        """
        Return the file of a module that no finder finds, though it is where local modules are; else an empty string.
        """
        for directory in self._directories:
            for leaf in (f"{name}.py", os.path.join(name, "__init__.py")):
                if os.path.isfile(os.path.join(directory, leaf)):
                    return os.path.join(directory, leaf)
        return ""


def unread(name: str, origin: str, locality: Locality) -> UnreadModule:
    """Make the error of importing a local module from disk, with a hint."""
    message = f"module {name!r} ({origin}) lies below the manifest's directory and was not read with it"
    if origin.endswith(tuple(EXTENSION_SUFFIXES)):
        hint = f"it is compiled, so install it as a package for {sys.executable}"
        return UnreadModule(message, hint, name, origin)
    relative = locality.relative(origin)
    module, _ = os.path.splitext(relative)
    top, depth = relative, name.count(".")
    if os.path.basename(relative) == "__init__.py":
        module = top = os.path.dirname(relative)
    if module.replace(os.sep, ".") == name:
        hint = f'add "{relative}" to include in [orchestrator.vm]'
    else:
        for _ in range(depth):
            top = os.path.dirname(top)
        hint = f'name it in [exports]: {name.partition(".")[0]} = "{top}"'
    return UnreadModule(message, f"{hint}, so that a reload sees when it changes", name, origin)


def _origin(spec: ModuleSpec | None) -> str:
    return spec.origin or "" if spec is not None and spec.has_location else ""


def _file(module: object) -> str:
    """Return a module's file; an entry of ``sys.modules`` may be any object."""
    spec = getattr(module, "__dict__", {}).get("__spec__")
    return _origin(spec) if isinstance(spec, ModuleSpec) else ""
