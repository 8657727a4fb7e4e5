"""
The manifest's files: read whole, once, checked to be text, and put together to one text.

A manifest may name further files (``include``), which hold ``[[triggers]]`` alone. The text of all of them, one after
the other, is then one manifest: it is cut, parsed and stored as that of one file is. `FileLines` gives back the file of
each line.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable, Sequence

from attrs import field, frozen
from msgspec.structs import replace

from harn.errors import ManifestInvalid
from harn.files import NotRegular, TooLarge, list_directory, read_regular
from harn.manifest.diagnostics import BLANK, FileLines, key_lines, quote
from harn.manifest.document import Malformed, cut, parse_head, parse_whole
from harn.model.problem import Problem

LARGEST = 64 * 1024 * 1024
"""Bytes: a bigger file is refused as a mistake."""

TRAILER = b"# harn: the files above are "
"""The beginning of the last line of several files that are stored as one: their names and sizes follow, as JSON."""

_INCLUDE = re.compile(r"""^[ \t]*(?:include|"include"|'include')[ \t]*=""", re.MULTILINE)
_TWICE = "Cannot overwrite a value"
"""What the parser says of a key that is there already."""
_TUPLE = re.compile(r"\((?:'[^']*',? ?)+\)")


@frozen(kw_only=True)
class SourceFile:
    """
    One file of a manifest.

    :ivar path: absolute.
    :ivar shown: its name as the user typed it, for messages.
    """

    path: str
    shown: str
    data: bytes = field(repr=False)

    def text(self) -> str:
        """
        Return the file as text, lines ending in a line feed.

        :raises ManifestInvalid: of stage ``parse``: it is empty, begins with a byte order mark, is not UTF-8, or
            holds a NUL.
        """
        if not self.data:
            raise self._unusable("the file is empty", "was it cut off while it was written?")
        if self.data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
            raise self._unusable("begins with a byte order mark", "save it as UTF-8 without one", line=1)
        nul = self.data.find(b"\0")
        if nul >= 0:
            raise self._unusable("holds a NUL byte", "is it a text file?", line=self._line_at(nul))
        try:
            text = self.data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._unusable("is not UTF-8", "save it as UTF-8", line=self._line_at(error.start)) from None
        return text.replace("\r\n", "\n") if "\r" in text else text

    def _line_at(self, offset: int) -> int:
        return self.data.count(b"\n", 0, offset) + 1

    def _unusable(self, message: str, hint: str, *, line: int | None = None) -> ManifestInvalid:
        return ManifestInvalid([Problem(file=self.shown, line=line, message=message, hint=hint)], stage="parse")


@frozen(kw_only=True)
class ManifestSource:
    """
    A manifest as bytes.

    :ivar files: the manifest, then the files that it includes.
    :ivar data: the bytes of the manifest; of several files as `of` reads them.
    """

    files: tuple[SourceFile, ...]
    data: bytes = field(repr=False)

    @classmethod
    def of(cls, path: str, data: bytes, shown: str | None = None) -> ManifestSource:
        """
        Make a source of ``data`` as the content of ``path``; without ``shown``, problems show the file's base name.

        :param data: of one file; or of several, as the ``data`` of an earlier source has them.
        """
        path, shown = os.path.abspath(path), shown or os.path.basename(path)
        files: list[SourceFile] = []
        at = 0
        for name, size in _stored_files(data) or [("", len(data))]:
            given = data[at : at + size]
            files.append(SourceFile(path=_beside(path, name), shown=_beside(shown, name), data=given))
            at += size + (not given.endswith(b"\n"))
        return cls(files=tuple(files), data=data)

    @classmethod
    def joined(cls, files: Sequence[SourceFile]) -> ManifestSource:
        """Return the source of a manifest and the files that it includes."""
        if len(files) == 1:
            return cls(files=tuple(files), data=files[0].data)
        directory = os.path.dirname(files[0].path)
        names = [["", len(files[0].data)]]
        names += [[os.path.relpath(each.path, directory), len(each.data)] for each in files[1:]]
        lines = [each.data if each.data.endswith(b"\n") else each.data + b"\n" for each in files]
        return cls(files=tuple(files), data=b"".join((*lines, TRAILER, json.dumps(names).encode(), b"\n")))

    @property
    def path(self) -> str:
        """The manifest's absolute path."""
        return self.files[0].path

    @property
    def shown(self) -> str:
        """The manifest's name as the user typed it."""
        return self.files[0].shown

    @property
    def is_one_file(self) -> bool:
        """Whether the manifest includes no other file."""
        return len(self.files) == 1

    def decode(self) -> tuple[str, FileLines]:
        """
        Return the text of all files, lines ending in a line feed, and where each begins in it.

        :raises ManifestInvalid: of stage ``parse``; as `SourceFile.text`; or an included file holds something else than
            ``[[triggers]]``.
        """
        names = tuple(each.shown for each in self.files)
        if self.is_one_file:
            return self.files[0].text(), FileLines(names)
        texts = [text if text.endswith("\n") else text + "\n" for text in (each.text() for each in self.files)]
        for each, text in zip(self.files[1:], texts[1:], strict=True):
            if BLANK.fullmatch(cut(text).head) is None:
                _refuse(each, text, self.shown)
        starts = [1]
        for text in texts[:-1]:
            starts.append(starts[-1] + text.count("\n"))
        return "".join(texts), FileLines(names, tuple(starts))

    def check_each(self) -> None:
        """
        Check that each of several files is whole and, unless it is the manifest itself, holds ``[[triggers]]`` alone.

        :raises ManifestInvalid: of stage ``parse``, for the first that is not.
        """
        for each in () if self.is_one_file else self.files:
            parsed = parse_whole(each.text())
            if isinstance(parsed, Malformed):
                raise malformed(each.shown, parsed)
            if each is not self.files[0] and parsed.head:
                _refuse(each, each.text(), self.shown)


def _stored_files(data: bytes) -> list[tuple[str, int]]:
    """Return name and size of each file in the data of several, the manifest first, without a name; else nothing."""
    last = data.rstrip(b"\n").rpartition(b"\n")[2]
    if not last.startswith(TRAILER):
        return []
    try:
        return [(str(name), int(size)) for name, size in json.loads(last.removeprefix(TRAILER))]
    except (TypeError, ValueError):
        return []  # a comment of the manifest's author


def _beside(path: str, name: str) -> str:
    return os.path.join(os.path.dirname(path), name) if name else path


def _refuse(file: SourceFile, text: str, manifest: str) -> None:
    """
    Refuse an included file that holds something else than ``[[triggers]]``.

    :raises ManifestInvalid: of stage ``parse``.
    """
    parsed = parse_whole(text)
    if isinstance(parsed, Malformed):
        raise malformed(file.shown, parsed)
    lines = key_lines(text)
    problems = [
        Problem(
            file=file.shown,
            line=lines.get((key,)),
            where=key,
            message="an included file holds [[triggers]] alone",
            hint=f"move it to {manifest}, or below a [[triggers]]",
        )
        for key in parsed.head
    ]
    message = "must begin each trigger with [[triggers]], at the beginning of a line"
    raise ManifestInvalid(problems or [Problem(file=file.shown, line=1, message=message)], stage="parse")


def malformed(file: str, found: Malformed) -> ManifestInvalid:
    """Return the problem of a file whose text is not TOML."""
    # The parser prints a key as its tuple.
    said = _TUPLE.sub(lambda key: ".".join(re.findall("'([^']*)'", key[0])), found.message)
    hint = "fix the syntax there, or just before it"
    if said == _TWICE:
        said, hint = "a key is given twice", "keep one of them"
    where = "" if found.column is None else f"column {found.column}"
    problem = Problem(file=file, line=found.line, where=where, message=f"is not TOML: {said}", hint=hint)
    return ManifestInvalid([problem], stage="parse")


def fault_of_include(text: str) -> tuple[str, str] | None:
    """Return the fault of a pattern of included files, and a hint; None when it is valid."""
    if text.startswith(("/", "~")) or "\\" in text or ".." in text.split("/"):
        return (
            f"{quote(text)} leads out of the manifest's directory",
            'write it relative, for example "triggers.d/*.toml"',
        )
    if not text.endswith(".toml"):
        return f"{quote(text)} does not end in .toml", 'write for example "triggers.d/*.toml"'
    return None


def find_included(manifest: str, patterns: Iterable[str]) -> list[str]:
    """
    Return the absolute paths of the files that a manifest includes: in the order of the patterns, those of one sorted.

    Blocks: not for the reactor thread. Patterns that are not valid match nothing, hidden files neither.

    :param manifest: its absolute path.
    """
    root = os.path.dirname(manifest)
    found: dict[str, None] = {}
    for pattern in patterns:
        if fault_of_include(pattern) is None:
            for name in sorted(glob.glob(pattern, root_dir=root, recursive=True)):
                found[os.path.normpath(os.path.join(root, name))] = None
    found.pop(manifest, None)
    return list(found)


def _patterns(text: str) -> list[str]:
    """
    Return the patterns of files that a manifest includes; none where they are not valid, which checking it reports.
    """
    head = cut(text).head
    if _INCLUDE.search(head) is None:
        return []
    tables = parse_head(head)
    if tables is None:
        parsed = parse_whole(text)
        tables = {} if isinstance(parsed, Malformed) else parsed.head
    given = tables.get("include")
    return [each for each in given if isinstance(each, str)] if isinstance(given, list) else []


def read_manifest(path: str, shown: str | None = None) -> ManifestSource:
    """
    Read the manifest at ``path``, and the files that it includes. Blocks: not for the reactor thread.

    :param shown: the path as the user typed it, where that differs.
    :raises ManifestInvalid: of stage ``parse``: one is missing, not a regular file, not readable, or over `LARGEST`.
    """
    manifest = _read_file(os.path.abspath(path), shown or path, "manifest not found", "say where it is with --config")
    try:
        patterns = [each for each in _patterns(manifest.text()) if fault_of_include(each) is None]
    except ManifestInvalid:
        patterns = []  # `ManifestSource.decode` raises it again
    directory, prefix = os.path.dirname(manifest.path), os.path.dirname(manifest.shown)
    for pattern in patterns:
        _record_listing(os.path.join(directory, os.path.dirname(pattern)))
    named = [os.path.normpath(os.path.join(directory, each)) for each in patterns if not glob.has_magic(each)]
    files, problems = [manifest], []
    for each in dict.fromkeys((*find_included(manifest.path, patterns), *named)):
        name = os.path.join(prefix, os.path.relpath(each, directory))
        try:
            if each == manifest.path:
                raise _unreadable(name, f"{name} includes itself", "take it out of include")
            files.append(_read_file(each, name, "included file not found", "write it, or take it out of include"))
        except ManifestInvalid as error:
            line = _line_of_include(manifest.text(), os.path.relpath(each, directory))
            problems += [
                replace(problem, file=manifest.shown, line=line, where="include") for problem in error.problems
            ]
    if problems:
        raise ManifestInvalid(problems, stage="parse")
    return ManifestSource.joined(files)


def _line_of_include(text: str, name: str) -> int | None:
    """Return the line that names an included file, else the one on which ``include`` begins."""
    begin = _INCLUDE.search(text)
    if begin is None:
        return None
    found = text.find(name, begin.end())
    return text.count("\n", 0, begin.start() if found < 0 else found) + 1


def _record_listing(directory: str) -> None:
    """Record a directory whose files are included, so that one that is added meanwhile is found."""
    try:
        list_directory(directory)
    except OSError:
        return  # it has none


def _read_file(path: str, shown: str, missing: str, advice: str) -> SourceFile:
    try:
        data = read_regular(path, LARGEST)
    except (FileNotFoundError, NotADirectoryError):
        raise _unreadable(shown, f"{missing}: {shown}", advice) from None
    except NotRegular:
        raise _unreadable(shown, f"{shown} is not a regular file", "write its text to a file") from None
    except TooLarge:
        said = f"{shown} is larger than {LARGEST // 1024**2} MiB"
        raise _unreadable(shown, said, "is it a manifest?") from None
    except IsADirectoryError:
        raise _unreadable(shown, f"{shown} is a directory", "name the file in it, for example harn.toml") from None
    except OSError as error:
        raise _unreadable(shown, f"{shown} cannot be read: {error.strerror}", "check its owner and mode") from None
    return SourceFile(path=path, shown=shown, data=data)


def _unreadable(shown: str, message: str, hint: str) -> ManifestInvalid:
    return ManifestInvalid([Problem(file=shown, message=message, hint=hint)], stage="parse")
