"""
How an interpreter imports local modules: from the sources that it was sent, never from disk.

In a child process the modules have their own names and the finder stands before all others. In the server's own
process (``inline``) each interpreter's modules lie below a package of its own, so that two generations never meet in
``sys.modules``; their import statements are mapped into it by an ``__import__`` of their own.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import linecache
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

from harn.vm.frames import Source


class Loader:
    """Runs one module from its source; also gives tracebacks the text that really runs."""

    def __init__(self, source: Source | None, builtin_names: dict[str, Any] | None) -> None:
        self._source = source
        self._builtins = builtin_names

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Let Python make the module object."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code; a package without ``__init__`` has none."""
        if self._builtins is not None:
            module.__dict__["__builtins__"] = self._builtins
        source = self._source
        if source is None:
            return
        module.__file__ = source.path
        code = self.get_code(module.__name__)
        text = self.get_source(module.__name__) or ""
        # No time stamp: linecache then never asks the disk, where another text may be by now.
        linecache.cache[source.path] = (len(text), None, text.splitlines(keepends=True), source.path)
        exec(code, module.__dict__)  # noqa: S102 - to run the user's code is what an interpreter is for

    def get_code(self, fullname: str) -> CodeType:
        """Compile the source."""
        if self._source is None:
            return compile("", "<namespace>", "exec", dont_inherit=True)
        return compile(self._source.source, self._source.path, "exec", dont_inherit=True)

    def get_source(self, fullname: str) -> str | None:
        """Give the source as text (PEP 302)."""
        return None if self._source is None else importlib.util.decode_source(self._source.source)

    def is_package(self, fullname: str) -> bool:
        """Tell whether the module is a package."""
        return self._source is None or self._source.is_package


class Scope:
    """
    The local modules of one bundle, importable in this process.

    :ivar paths: the files that the sources were read from; a traceback's frames in them are the user's.
    """

    def __init__(self, sources: Iterable[Source], prefix: str = "") -> None:
        """Take the sources; with ``prefix`` (a package's name) they lie below it, else they have their own names."""
        self._sources = {source.name: source for source in sources}
        self._prefix = prefix
        self._builtins: dict[str, Any] | None = None
        self.paths = frozenset(source.path for source in self._sources.values())
        self._packages = {
            name.rsplit(".", depth)[0] for name in self._sources for depth in range(1, name.count(".") + 1)
        } - self._sources.keys()
        if prefix:
            self._builtins = {**vars(builtins), "__import__": self._import}

    def install(self) -> None:
        """Go first among this process's finders."""
        if self._prefix:
            root = ModuleType(self._prefix)
            root.__path__ = []
            sys.modules[self._prefix] = root
        sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Leave nothing behind in ``sys``."""
        sys.meta_path.remove(self)
        inside = self._full("")
        for name in [name for name in sys.modules if name == self._prefix or (inside and name.startswith(inside))]:
            del sys.modules[name]

    def directories(self) -> set[str]:
        """Name the directories that these modules would be found in on disk."""
        found = set()
        for name, source in self._sources.items():
            directory = os.path.dirname(source.path)
            for _ in range(name.count(".") + source.is_package):
                directory = os.path.dirname(directory)
            found.add(directory)
        return found

    def import_module(self, name: str) -> ModuleType:
        """Import a local module by its own name."""
        return importlib.import_module(self._full(name))

    def _full(self, name: str) -> str:
        return f"{self._prefix}.{name}" if self._prefix else name

    def _is_local(self, name: str) -> bool:
        return name in self._sources or name in self._packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Give a local module's spec (PEP 451); refuse what a local package does not hold."""
        if self._prefix:
            if not fullname.startswith(self._prefix + "."):
                return None
            name = fullname[len(self._prefix) + 1 :]
        else:
            name = fullname
        source = self._sources.get(name)
        if source is None and name not in self._packages:
            parent = name.rpartition(".")[0]
            if parent in self._sources:
                raise ModuleNotFoundError(
                    f"No module named {name!r} among the local modules that were read; "
                    f"if its file is there, name it in [orchestrator.vm] include",
                    name=name,
                )
            return None
        is_package = source is None or source.is_package
        # PEP 451 asks of a loader only the methods that ours has.
        loader: Any = Loader(source, self._builtins)
        spec = ModuleSpec(fullname, loader, origin=None if source is None else source.path, is_package=is_package)
        if source is not None:
            spec.has_location = True
            if is_package:
                spec.submodule_search_locations = [os.path.dirname(source.path)]
        return spec

    # Import statements of modules below a package of their own

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        """Do what ``__import__`` does, and look for absolute names below the prefix first."""
        if level == 0 and self._is_local(name):
            module = self.import_module(name)
            if not fromlist:
                return self.import_module(name.partition(".")[0])
            for each in fromlist:
                if not hasattr(module, each) and self._is_local(f"{name}.{each}"):
                    self.import_module(f"{name}.{each}")
            return module
        found = builtins.__import__(name, globals, locals, fromlist or (), level)
        return _Importlib(self) if found is importlib else found


class _Importlib(ModuleType):
    """``importlib`` as modules below a package of their own see it: local names mean local modules."""

    def __init__(self, scope: Scope) -> None:
        super().__init__("importlib")
        self._scope = scope

    def import_module(self, name: str, package: str | None = None) -> ModuleType:
        """Import by name, as ``importlib.import_module`` does."""
        if self._scope._is_local(name):
            return self._scope.import_module(name)
        return importlib.import_module(name, package)

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib, name)
