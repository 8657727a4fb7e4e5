"""
Reading the local modules of a manifest into a bundle: the modules of its functions, and all that these import.

A module is local if ``[exports]`` names it, or if it is found next to the manifest or, after that, next to an exported
file, or in a directory below the manifest's on Python's own search path, as Python would find it with these directories
first on ``sys.path``. One rule differs from Python: names of the standard library, of harn and of packages that harn's
child process needs are never local. A local file of such a name would be imported or not depending on earlier imports,
so importing it is a problem.
"""

from __future__ import annotations

import difflib
import glob
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from attrs import evolve, field, frozen
from msgspec import Struct

from harn.files import NotRegular, TooLarge, list_directory, read_regular
from harn.model.problem import Problem
from harn.model.references import FunctionReference
from harn.vm.bundle import Bundle, Module, import_names, make_bundle
from harn.vm.local_code import Locality

RESERVED = sys.stdlib_module_names | {"harn", "msgspec", "__main__"}
"""Top-level names that never mean a local module."""

LARGEST_FILE = 10 * 1024 * 1024
LARGEST_BUNDLE = 64 * 1024 * 1024


class BundleProblem(Problem, frozen=True, kw_only=True):
    """
    A problem with the user's code.

    :ivar reference: the function that cannot be used because of it; None for a problem of a file or a setting.
    """

    reference: FunctionReference | None = None

    def unlocated(self) -> Problem:
        """Return the plain problem, without a place in the manifest."""
        return Problem(
            file=self.file,
            line=self.line,
            where=self.where,
            message=self.message,
            hint=self.hint,
            code=self.code,
        )


def read_bundle(
    root: str | Path,
    exports: Mapping[str, str],
    references: Collection[FunctionReference],
    include: Sequence[str] = (),
    previous: Bundle | None = None,
) -> tuple[Bundle, list[BundleProblem]]:
    """
    Read the modules that the manifest's functions need. Blocks: for a thread.

    :param root: the manifest's directory.
    :param exports: module name to path, relative to ``root``.
    :param include: patterns of further modules, relative to ``root``; ``a/b.py`` is module ``a.b``.
    :param previous: an earlier bundle: files that are unchanged are not parsed again, and if nothing changed it is
        returned itself.
    :return: the bundle of all that could be read, and every problem found.
    """
    reading = _Reading(os.path.abspath(root), exports, previous)
    for reference in sorted(references, key=str):
        reading.refer(reference)
    for pattern in include:
        reading.include(pattern)
    return reading.bundle(), reading.problems


def find_modules(
    root: str | Path, exports: Mapping[str, str], names: Iterable[str], include: Sequence[str]
) -> set[str]:
    """
    Return the files that a reading now would use, without reading any. Blocks: for a thread.

    :param root: as of `read_bundle`, like ``exports`` and ``include``.
    :param names: dotted; those that are not local now are ignored.
    :return: absolute paths; also matches of a pattern that Python could not import, which a reading reports as a
        problem.
    """
    reading = _Reading(os.path.abspath(root), exports, None)
    paths = {reading.path_of(name) for name in names}
    for pattern in include:
        for match, name in reading.matches(pattern):
            paths.add(
                reading.path_of(name) if _is_importable(name) else os.path.normpath(os.path.join(reading.root, match))
            )
    return paths - {""}


class _Place(Struct, frozen=True):
    """The location of a module: ``path`` is empty for a package without ``__init__``, which has only directories."""

    path: str
    directories: tuple[str, ...] = ()

    @property
    def is_package(self) -> bool:
        return bool(self.directories)


@frozen
class _Reading:
    """One reading of the local modules."""

    root: str
    exports: Mapping[str, str]
    previous: Bundle | None
    problems: list[BundleProblem] = field(factory=list)
    modules: dict[str, Module | None] = field(factory=dict)  # None: found, but cannot be used
    included: set[str] = field(factory=set)
    _places: dict[str, _Place | None] = field(factory=dict)
    _listings: dict[str, frozenset[str]] = field(factory=dict)
    _search: list[str] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self._search.append(self.root)
        for name, relative in sorted(self.exports.items()):
            place = self._exported(name, relative)
            self._places[name] = place
            if place is not None:
                beside = os.path.dirname(place.directories[0] if place.directories else place.path)
                if beside not in self._search and beside.startswith(self.root):
                    self._search.append(beside)
        # PYTHONPATH and .pth files: modules found there are local as well.
        self._search.extend(each for each in Locality(self.root).search_path(sys.path) if each not in self._search)

    # Requested modules

    def refer(self, reference: FunctionReference) -> None:
        """Read the module of a function in the manifest, and its imports."""
        name = reference.module
        top = name.partition(".")[0]
        if top in RESERVED and name not in self.exports:
            self._problem(
                f"module {name!r} is not yours: the name {top!r} belongs to Python or to harn",
                "give your file another name",
                reference=reference,
            )
        elif self.read(name) is None and name not in self.modules and name not in self.exports:
            self._problem(
                f"there is no module {name!r} next to the manifest, nor in [exports]",
                self._suggestion(name),
                reference=reference,
            )

    def include(self, pattern: str) -> None:
        """Read every module that matches a pattern of the manifest."""
        if self._inside(pattern) is None:
            self._problem(
                f"[orchestrator.vm] include: {pattern!r} leaves the manifest's directory", "name files below it"
            )
            return
        found = list(self.matches(pattern))
        if not found:
            self._problem(
                f"[orchestrator.vm] include: {pattern!r} matches no Python file",
                f"patterns are relative to {self.root}",
            )
        for match, name in found:
            if not _is_importable(name):
                self._problem(
                    f"[orchestrator.vm] include: {match} cannot be imported under the name {name!r}",
                    "give it a name that Python can import and that is not taken",
                    file=os.path.join(self.root, match),
                )
            elif self.read(name) is not None:
                self.included.add(name)

    def read(self, name: str) -> Module | None:
        """Read a module, its parent packages and all that these import; None if it is not local or unusable."""
        todo = [name]
        while todo:
            each = todo.pop()
            if each in self.modules or each.partition(".")[0] in RESERVED:
                continue
            place = self._place(each)
            if place is None or not place.path:
                continue
            module = self.modules[each] = self._load(each, place)
            if module is not None:
                self._check_shadows(module.import_names, module.path)
                todo.extend(_parents(each))
                todo.extend(module.import_names)
        return self.modules.get(name)

    def bundle(self) -> Bundle:
        """Return the bundle of the modules read so far."""
        read = {name: module for name, module in self.modules.items() if module is not None}
        finished: dict[str, Module] = {}
        for name, module in read.items():
            wanted = frozenset(
                each for each in (*module.import_names, *_parents(name)) if each in read and each != name
            )
            finished[name] = module if module.imports == wanted else evolve(module, imports=wanted)
        if sum(len(module.source) for module in finished.values()) > LARGEST_BUNDLE:
            self._problem(f"the local modules are more than {LARGEST_BUNDLE} bytes together", "include fewer")
        old, included = self.previous, frozenset(self.included)
        if old is not None and (old.root, old.included, old.modules) == (self.root, included, finished):
            return old
        return make_bundle(finished, included, self.root)

    # Locations

    def matches(self, pattern: str) -> Iterator[tuple[str, str]]:
        """Yield each Python file that matches a pattern inside the root, relative to it, and its module's name."""
        if self._inside(pattern) is None:
            return
        for match in sorted(glob.glob(pattern, root_dir=self.root, recursive=True)):
            if match.endswith(".py"):
                steps = os.path.normpath(match)[: -len(".py")].split(os.sep)
                yield match, ".".join(steps[:-1] if steps[-1] == "__init__" and len(steps) > 1 else steps)

    def path_of(self, name: str) -> str:
        """Return the file of a module; empty if it is not local."""
        place = None if name.partition(".")[0] in RESERVED else self._place(name)
        return "" if place is None else place.path

    def _place(self, name: str) -> _Place | None:
        if name not in self._places:
            parent, _, leaf = name.rpartition(".")
            around = self._place(parent) if parent else None
            bases: Sequence[str] = self._search if not parent else () if around is None else around.directories
            self._places[name] = self._look(leaf, bases)
        return self._places[name]

    def _look(self, leaf: str, bases: Sequence[str]) -> _Place | None:
        portions = []
        for base in bases:
            names = self._names(base)
            if leaf in names:
                directory = os.path.join(base, leaf)
                inner = self._names(directory)
                if "__init__.py" in inner:
                    return _Place(os.path.join(directory, "__init__.py"), (directory,))
                if inner:
                    portions.append(directory)
            if f"{leaf}.py" in names:
                return _Place(os.path.join(base, f"{leaf}.py"))
        return _Place("", tuple(portions)) if portions else None

    def _names(self, directory: str) -> frozenset[str]:
        """List a directory once; without names if it is not a directory."""
        names = self._listings.get(directory)
        if names is None:
            try:
                names = frozenset(list_directory(directory))
            except OSError:
                names = frozenset()
            self._listings[directory] = names
        return names

    def _exported(self, name: str, relative: str) -> _Place | None:
        path = self._inside(relative)
        if path is None:
            self._problem(
                f"[exports] {name}: {relative!r} leaves the manifest's directory", "keep exported files below it"
            )
            return None
        if os.path.isdir(path) and "__init__.py" in self._names(path):
            path = os.path.join(path, "__init__.py")
        if name.partition(".")[0] in RESERVED:
            self._problem(f"[exports] {name}: the name belongs to Python or to harn", "choose another name", file=path)
            return None
        if not os.path.exists(path):
            self._problem(f"[exports] {name}: there is no file {relative!r}", "", file=path)
            return None
        inside = (os.path.dirname(path),) if os.path.basename(path) == "__init__.py" else ()
        return _Place(path, inside)

    def _inside(self, relative: str) -> str | None:
        """Return the absolute path, or None if it leaves the manifest's directory; links are not followed."""
        path = os.path.normpath(os.path.join(self.root, relative))
        return path if path.startswith(os.path.join(self.root, "")) else None

    # Content

    def _load(self, name: str, place: _Place) -> Module | None:
        path = place.path
        try:
            source = read_regular(path, LARGEST_FILE)
        except (NotRegular, IsADirectoryError) as error:
            what = "a directory" if isinstance(error, IsADirectoryError) else "a special file"
            self._problem(f"module {name!r} must be Python source, got {what}", "write it to a file", file=path)
            return None
        except TooLarge:
            self._problem(f"module {name!r} has more than {LARGEST_FILE} bytes", "keep data elsewhere", file=path)
            return None
        except OSError as error:
            self._problem(f"module {name!r} cannot be read: {error.strerror}", "", file=path)
            return None
        old = None if self.previous is None else self.previous.modules.get(name)
        if old is not None and (old.path, old.source, old.is_package) == (path, source, place.is_package):
            return old
        try:
            named = import_names(source, path, name, is_package=place.is_package)
        except SyntaxError as error:
            code = f"{path}:{error.lineno}:{error.offset}" if error.lineno and error.offset else ""
            self._problem(f"{type(error).__name__}: {error.msg}", "", file=path, line=error.lineno, code=code)
            return None
        except (ValueError, RecursionError, MemoryError) as error:
            self._problem(f"cannot be parsed: {error or type(error).__name__}", "", file=path)
            return None
        return Module(name=name, path=path, source=source, is_package=place.is_package, import_names=named)

    def _check_shadows(self, named: Sequence[str], path: str) -> None:
        """Report an import that would mean a local file if its name were not in `RESERVED`."""
        for each in named:
            if each in RESERVED and f"{each}.py" in self._names(self.root):
                shadow = os.path.join(self.root, f"{each}.py")
                if shadow != path:
                    self._problem(
                        f"imports {each!r}, which always means Python's or harn's own module, not {shadow}",
                        f"give {each}.py another name",
                        file=path,
                    )

    def _suggestion(self, name: str) -> str:
        here = {each[: -len(".py")] for each in self._names(self.root) if each.endswith(".py")}
        close = difflib.get_close_matches(name, here | set(self.exports), n=1)
        wanted = name.replace(".", os.sep) + ".py"
        return (
            f"did you mean {close[0]!r}?" if close else f"write {wanted} in {self.root}, or name its file in [exports]"
        )

    def _problem(
        self,
        message: str,
        hint: str,
        *,
        file: str | None = None,
        line: int | None = None,
        code: str = "",
        reference: FunctionReference | None = None,
    ) -> None:
        self.problems.append(
            BundleProblem(
                file=self.root if file is None else file,
                line=line,
                where="" if reference is None else str(reference),
                message=message,
                hint=hint,
                code=code,
                reference=reference,
            )
        )


def _is_importable(name: str) -> bool:
    steps = name.split(".")
    return all(step.isidentifier() for step in steps) and steps[0] not in RESERVED


def _parents(name: str) -> list[str]:
    """Return the packages that contain a module, innermost first."""
    steps = name.split(".")
    return [".".join(steps[:length]) for length in range(len(steps) - 1, 0, -1)]
