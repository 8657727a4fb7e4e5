"""
The source line of a problem, read from the files of this machine, with carets below the key or column concerned.

::

    harn.toml:6: triggers[0] (gh): handlr: unknown key; did you mean "handler"?
       6 | handlr = "handlers:on_issue"
         | ^^^^^^
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress

from attrs import define, field
from msgspec import UNSET, Struct
from msgspec.structs import replace

from harn.files import read_regular
from harn.model.display import REDACTED, looks_secret, visible
from harn.reload.results import ProblemInfo

LARGEST = 64 * 1024 * 1024
"""The largest size in bytes of a file that is read for an excerpt."""
WIDEST = 160
"""The number of characters up to which a line is shown whole."""
BEFORE = 40
"""The number of characters that are shown before the carets in a longer line."""

_COLUMN = re.compile(r"column (\d+)")
_CODE = re.compile(r"(?P<file>.+?):(?P<line>\d+)(?::(?P<column>\d+))?", re.DOTALL)
_LINE_END = re.compile(r"\r\n|\n|\r")
_KEY = re.compile(r"""(?P<key>[\w-]+)["']?\s*=""")
_SECRET_ENDS = ("secret", "password", "token")
_OPEN_TO_ALL = (".toml", ".py")
_INDEX = re.compile(r"\[\d+\]$")


class Excerpt(Struct, frozen=True):
    """
    One line of a file.

    :ivar line: the number of the line, from 1.
    :ivar text: the line.
    :ivar start: the index in ``text`` of the first marked character.
    :ivar length: the number of marked characters, at least 1.
    """

    line: int
    text: str
    start: int
    length: int

    def lines(self) -> Iterator[str]:
        """Yield the line with its number, and the carets below it."""
        text, start = self.text, self.start
        if len(text) > WIDEST:
            cut = max(0, start - BEFORE)
            text, start = text[cut : cut + WIDEST], start - cut
        marked = min(self.length, max(1, len(text) - start))
        # Each part is made safe on its own, so that the carets are below the characters that they mark.
        before, inside = _plain(text[:start]), _plain(text[start : start + marked])
        number = f"{self.line:>5}"
        yield f"{number} | {before}{inside}{_plain(text[start + marked :])}".rstrip()
        yield f"{' ' * len(number)} | {' ' * _width(before)}{'^' * max(1, _width(inside))}"


def _plain(text: str) -> str:
    """Return a part of a line without tabs and without control characters for a terminal."""
    return visible(text.replace("\t", "    "))


def _width(text: str) -> int:
    """Return the number of terminal columns of a text: wide East Asian characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(each) else 2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in text
    )


def excerpt_of(source: str, line: int, where: str = "") -> Excerpt | None:
    """
    Return the excerpt for a place in a text; None if the text has no such line, or if the line is empty.

    A parser reports a column of an empty line when it missed something before; then the end of the last line before
    that is not empty is marked.

    :param line: the number of the line, from 1.
    :param where: the place that the problem names: a column, or a path of keys whose last key is marked. The whole line
        is marked if it has no such key.
    """
    lines = _LINE_END.split(source)  # not `splitlines`, which also splits at U+2028 and others
    column = _COLUMN.fullmatch(where)
    if not 1 <= line <= len(lines):
        return None
    if column is not None and not lines[line - 1].strip():
        line = next((number for number in range(line, 0, -1) if lines[number - 1].strip()), 0)
        return Excerpt(line, lines[line - 1], len(lines[line - 1].rstrip()) - 1, 1) if line else None
    if not lines[line - 1].strip():
        return None
    text = lines[line - 1]
    if column is not None:
        return Excerpt(line, text, min(max(int(column[1]), 1), len(text)) - 1, 1)
    found = _find_key(text, where)
    if found is not None:
        return Excerpt(line, text, found.start(), len(found[0]))
    stripped = text.strip()
    return Excerpt(line, text, text.index(stripped), len(stripped))


def _find_key(text: str, where: str) -> re.Match[str] | None:
    """Find the last key of a place such as ``triggers[0] (gh): retry.max``, as a key of TOML."""
    key = _INDEX.sub("", where.rpartition(": ")[2]).rpartition(".")[2]
    if not key:
        return None
    return re.search(rf"(?<![\w.\"'-]){re.escape(key)}(?=[\"']?\s*[=.])|(?<=\.){re.escape(key)}(?=\s*=)", text)


@define
class Excerpts:
    """
    Reads excerpts for problems, each file once. Blocks: for a thread.

    :param manifest: the path of the manifest that the problems name; None if it is not on this machine.
    :param unchanged_since: files that were changed after this time (seconds, Unix) are not read, since the problem was
        in an earlier text; None to read every file.
    :param is_for_others: True if the readers may not read all files of this machine: then only manifests and code are
        read, and the values of keys that look secret are left out.
    """

    manifest: str | None
    unchanged_since: float | None = None
    is_for_others: bool = False
    _texts: dict[str, str | None] = field(factory=dict, init=False)

    def lines(self, problem: ProblemInfo) -> Iterator[str]:
        """Yield the lines to show below a problem: at its own place, then in the code that it names, if they exist."""
        code = None if problem.code is UNSET else _CODE.fullmatch(problem.code)
        is_here = code is not None and (code["file"], int(code["line"])) == (problem.file, problem.line)
        if problem.line is not None and not is_here:
            yield from self._excerpt(problem.file, problem.line, problem.where)
        if code is not None:
            column = f"column {code['column']}" if code["column"] else ""
            found = list(self._excerpt(code["file"], int(code["line"]), column))
            if found and not is_here:
                yield visible(f"  {code['file']}:{code['line']}")
            yield from found

    def _excerpt(self, file: str, line: int, where: str = "") -> Iterator[str]:
        path = self._path_of(file)
        if path is None or (self.is_for_others and not path.endswith(_OPEN_TO_ALL)):
            return
        if path not in self._texts:
            self._texts[path] = _read(path, self.unchanged_since)
        text = self._texts[path]
        found = None if text is None else excerpt_of(text, line, where)
        if found is not None:
            yield from (without_secret(found) if self.is_for_others else found).lines()

    def _path_of(self, file: str) -> str | None:
        """Return the path of a file on this machine; a relative one is the manifest, or a file that it includes."""
        if os.path.isabs(file):
            return file
        manifest = self.manifest
        if manifest is None:
            return None
        # An included file is named like the manifest: relative to the directory in which the server was started.
        steps = file.split(os.sep)
        places = (os.path.join(os.path.dirname(manifest), *steps[index:]) for index in range(len(steps) - 1))
        named = next(filter(os.path.isfile, places), None)
        return manifest if named is None and os.path.basename(manifest) == os.path.basename(file) else named


def without_secret(excerpt: Excerpt) -> Excerpt:
    """Return an excerpt without the rest of the line after the first key that looks secret."""
    for found in _KEY.finditer(excerpt.text):
        if looks_secret(found["key"]) or found["key"].endswith(_SECRET_ENDS):
            return replace(excerpt, text=f"{excerpt.text[: found.end()]} {REDACTED}")
    return excerpt


def _read(path: str, unchanged_since: float | None) -> str | None:
    with suppress(OSError):
        if unchanged_since is None or os.stat(path).st_mtime <= unchanged_since:
            return read_regular(path, LARGEST).decode("utf-8", "replace")
    return None
