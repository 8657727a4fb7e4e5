"""
Import of local modules in an interpreter: from the sources that it was sent, never from disk.

In a child process the modules keep their own names, and the finder comes before all others. In the server's own process
(``inline``) each interpreter's modules are in a package of its own, so that two generations never meet in
``sys.modules``; their import statements are mapped into it by their own ``__import__``.

Processes that `multiprocessing` starts fresh, with its methods ``spawn`` and ``forkserver``, import the module of their
target function. They get the interpreter's own sources with `multiprocessing`'s preparation data, so they run the same
code as the interpreter, even if the files have changed.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import linecache
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import Any

import msgspec

from harn.vm.frames import Load, Source
from harn.vm.local_code import ImportGuard, Locality


class Loader:
    """Runs one module from its source, which is also the text that tracebacks show."""

    def __init__(
        self, source: Source | None, builtin_names: dict[str, Any] | None, directories: Sequence[str] = ()
    ) -> None:
        """Load a module; a package without ``__init__`` has ``source`` None and the directories ``directories``."""
        self._source = source
        self._builtins = builtin_names
        self._directories = list(directories)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return None: Python creates the module object."""
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
        # No time stamp: linecache then never reads the disk, where the text may have changed.
        linecache.cache[source.path] = (len(text), None, text.splitlines(keepends=True), source.path)
        exec(code, module.__dict__)  # noqa: S102 - to run the user's code is what an interpreter is for

    def get_code(self, fullname: str) -> CodeType:
        """Compile the source."""
        if self._source is None:
            return compile("", "<namespace>", "exec", dont_inherit=True)
        return compile(self._source.source, self._source.path, "exec", dont_inherit=True)

    def get_source(self, fullname: str) -> str | None:
        """Return the source as text (PEP 302)."""
        return None if self._source is None else importlib.util.decode_source(self._source.source)

    def is_package(self, fullname: str) -> bool:
        """Return whether the module is a package."""
        return self._source is None or self._source.is_package

    # Data files beside the modules are not in the bundle: they are read from disk when requested

    @property
    def path(self) -> str:
        """Where the source was read."""
        return "" if self._source is None else self._source.path

    def get_filename(self, fullname: str) -> str:
        """Return the value of ``__file__``."""
        if self._source is None:
            raise ImportError(f"{fullname} is a package without __init__", name=fullname)
        return self._source.path

    def get_data(self, path: str) -> bytes:
        """Read a file (PEP 302), for ``pkgutil.get_data``."""
        with open(path, "rb") as file:
            return file.read()

    def get_resource_reader(self, fullname: str) -> Any:
        """Return the resources of a package, for ``importlib.resources``; None for a plain module."""
        if not self.is_package(fullname):
            return None
        from importlib.resources.readers import FileReader, NamespaceReader  # rarely needed, and slow to import

        if self._source is None:
            return NamespaceReader(_NamespacePath(self._directories))
        return FileReader(self)  # type: ignore[arg-type]  # it uses only our path


class _NamespacePath(list[str]):
    """Directories in a class by whose name ``NamespaceReader`` recognizes them."""

    def __repr__(self) -> str:
        return f"_NamespacePath({list(self)!r})"


class Scope:
    """
    The local modules of one bundle, importable in this process.

    :ivar paths: the files that the sources were read from; frames of a traceback in them are the user's.
    """

    def __init__(self, sources: Iterable[Source], prefix: str = "", root: str = "") -> None:
        """
        Hold the sources; with ``prefix`` (a package's name) they are imported below it, else under their own names.

        :param root: the manifest's directory: files there that are not among the sources are not imported.
        """
        self._sources = {source.name: source for source in sources}
        self._prefix = prefix
        self._builtins: dict[str, Any] | None = None
        self.paths = frozenset(source.path for source in self._sources.values())
        self._packages = {
            name.rsplit(".", depth)[0] for name in self._sources for depth in range(1, name.count(".") + 1)
        } - self._sources.keys()
        self.guard = ImportGuard(Locality(root), self.paths, self.directories())
        if prefix:
            self._builtins = {**vars(builtins), "__import__": self._import}

    def install(self) -> None:
        """Insert this as the first of the process's finders."""
        if self._prefix:
            root = ModuleType(self._prefix)
            root.__path__ = []
            sys.modules[self._prefix] = root
        sys.meta_path.insert(0, self)
        if not self._prefix:
            sys.meta_path.insert(1, self.guard)

    def remove(self) -> None:
        """Remove every trace from ``sys``."""
        sys.meta_path.remove(self)
        if self.guard in sys.meta_path:
            sys.meta_path.remove(self.guard)
        inside = self._full("")
        for name in [
            name for name in list(sys.modules) if name == self._prefix or (inside and name.startswith(inside))
        ]:
            del sys.modules[name]

    def directories(self) -> set[str]:
        """Return the directories in which these modules would be found on disk."""
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

    def imported(self) -> list[ModuleType]:
        """Return the local modules that were imported so far, in that order."""
        names = {self._full(name) for name in self._sources}
        return [module for name, module in tuple(sys.modules.items()) if name in names]

    def local_name(self, name: str) -> str:
        """Return the manifest's name of an imported module."""
        return name.removeprefix(f"{self._prefix}.") if self._prefix else name

    def _full(self, name: str) -> str:
        return f"{self._prefix}.{name}" if self._prefix else name

    def _is_local(self, name: str) -> bool:
        return name in self._sources or name in self._packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a local module's spec (PEP 451); refuse a missing submodule of a local package."""
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
        # PEP 451 requires of a loader only the methods that this one has.
        portions = [] if source is not None else self._portions(name)
        loader: Any = Loader(source, self._builtins, portions)
        spec = ModuleSpec(fullname, loader, origin=None if source is None else source.path, is_package=is_package)
        if source is not None:
            spec.has_location = True
            if is_package:
                spec.submodule_search_locations = [os.path.dirname(source.path)]
        else:
            spec.submodule_search_locations = portions
        return spec

    def _portions(self, package: str) -> list[str]:
        """Return the directories of a package without ``__init__`` from which sources were read."""
        found: dict[str, None] = {}
        for name, source in sorted(self._sources.items()):
            if name.startswith(f"{package}."):
                directory = os.path.dirname(source.path)
                for _ in range(name.count(".") - package.count(".") - 1 + source.is_package):
                    directory = os.path.dirname(directory)
                found.setdefault(directory)
        return list(found)

    # Import statements of modules in a package of their own

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        """Import as ``__import__`` does, looking for absolute names below the prefix first."""
        if level == 0 and self._is_local(name):
            module = self.import_module(name)
            if not fromlist:
                return self.import_module(name.partition(".")[0])
            for each in fromlist:
                if not hasattr(module, each) and self._is_local(f"{name}.{each}"):
                    self.import_module(f"{name}.{each}")
            return module
        found = builtins.__import__(name, globals, locals, fromlist or (), level)
        if level == 0:
            self.guard.check(name)
            for each in fromlist or ():
                self.guard.check(f"{name}.{each}")
        return _Importlib(self) if found is importlib else found


class _Importlib(ModuleType):
    """``importlib`` for modules in a package of their own: local names mean local modules."""

    def __init__(self, scope: Scope) -> None:
        super().__init__("importlib")
        self._scope = scope

    def import_module(self, name: str, package: str | None = None) -> ModuleType:
        """Import by name, as ``importlib.import_module`` does."""
        if self._scope._is_local(name):
            return self._scope.import_module(name)
        found = importlib.import_module(name, package)
        self._scope.guard.check(found.__name__)
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib, name)


PREPARE = """
import sys
sys.path[:0] = roots
try:
    from harn.vm.imports import install_sources
finally:
    del sys.path[:len(roots)]
install_sources(bundle)
"""
"""Code for the new process, run before any user code is imported; harn may not be importable there otherwise."""


class PreparedBundle:
    """An object that installs a bundle where it is unpickled, and becomes None there."""

    def __init__(self, roots: Sequence[str], bundle: bytes) -> None:
        """
        Prepare a process.

        :param roots: the directories that hold harn and msgspec.
        :param bundle: an encoded `Load`.
        """
        self._names = {"roots": list(roots), "bundle": bundle}

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return exec, (PREPARE, self._names)


def install_sources(bundle: bytes) -> None:
    """Make the modules of an encoded `Load` importable in this process."""
    load = msgspec.msgpack.decode(bundle, type=Load)
    Scope(load.sources, "", load.root).install()


def prepare_spawned(load: Load, roots: Sequence[str]) -> None:
    """Make the modules of ``load`` importable in every process that `multiprocessing` starts from now on."""
    import multiprocessing.spawn  # most handlers never need it

    # The new process would run this program again, as its main module.
    sys.modules["__main__"] = ModuleType("__main__")
    bundle = msgspec.msgpack.encode(load)
    plain = multiprocessing.spawn.get_preparation_data

    @wraps(plain)
    def get_preparation_data(name: str) -> dict[str, Any]:
        return {**plain(name), "harn": PreparedBundle(roots, bundle)}

    multiprocessing.spawn.get_preparation_data = get_preparation_data
