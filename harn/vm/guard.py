"""
The guard: refuses what an interpreter would import from below the manifest's directory and that is not in its bundle.

Such a module, found through ``sys.path``, ``PYTHONPATH``, a ``.pth`` file or another finder, would be
served as it was when it was first imported, and no reload would know that it has changed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from types import ModuleType
from typing import Any

from harn.vm.locality import OURS, Locality


class UnreadModule(ImportError):
    """A local module that was not read with the manifest; ``hint`` says what to do."""

    def __init__(self, message: str, hint: str, name: str, path: str) -> None:
        super().__init__(f"{message}; {hint}", name=name, path=path)
        self.message, self.hint = message, hint


class Guard:
    """
    A finder that comes after the bundle's, and before all others.

    :param locality: tells what is local.
    :param paths: the files of the bundle.
    :param directories: where the bundle's modules would be found on disk.
    :ivar refused: what was refused so far, by the module's name: importing code may catch and hide the error.
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
        Find what the finders behind this one find (PEP 451).

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
        See that an imported module is not a local one from disk; for an interpreter that has no finder of its own.

        :raises UnreadModule: it is.
        """
        steps = name.split(".")
        for length in range(1, len(steps) + 1):
            full = ".".join(steps[:length])
            module = sys.modules.get(full)
            if module is not None and steps[0] not in OURS:
                self._refuse(full, _file(module))

    def unseen(self, before: Collection[str]) -> UnreadModule | None:
        """Give what was refused, or got into ``sys.modules`` past all finders, since ``before``: names in either."""
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
        """Return the file of a module that no finder finds, though it lies where local modules do; else nothing."""
        for directory in self._directories:
            for leaf in (f"{name}.py", os.path.join(name, "__init__.py")):
                if os.path.isfile(os.path.join(directory, leaf)):
                    return os.path.join(directory, leaf)
        return ""


def unread(name: str, origin: str, locality: Locality) -> UnreadModule:
    """Say what is wrong with importing a local module from disk, and what to do."""
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
    """Give a module's file; what is put into ``sys.modules`` may be anything."""
    spec = getattr(module, "__dict__", {}).get("__spec__")
    return _origin(spec) if isinstance(spec, ModuleSpec) else ""
