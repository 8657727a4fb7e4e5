"""
Diagnostics of a manifest while it is checked, until they become problems; and the file and line of each.

Lines are looked for only when there is a problem to report. The text is valid TOML, so this reads its shape and no
values: headers, keys, strings of all four kinds, arrays and inline tables, however the author laid them out.
"""

from __future__ import annotations

import difflib
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time
from typing import Any

from msgspec import Struct, field

from harn.manifest.document import HEADER, Pieces
from harn.model.problem import Problem

_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
_MANY = 24


class Diagnostic(Struct, frozen=True):
    """One thing that is wrong, by its path in the tables."""

    path: KeyPath
    message: str
    hint: str = ""


class Diagnostics(Struct, frozen=True):
    """The diagnostics so far, in the order of diagnostic."""

    found: list[Diagnostic] = field(default_factory=list)

    def add(self, path: KeyPath, message: str, hint: str = "") -> None:
        """Add one more."""
        self.found.append(Diagnostic(path, message, hint))

    def problems(self, files: FileLines, pieces: Pieces, triggers: Sequence[Any]) -> list[Problem]:
        """
        Return them all as problems, in the order of the text.

        :param files: which the text is from.
        :param triggers: for each trigger its id, or None; used in messages.
        """
        locator = Locator(pieces, files)
        found = sorted(self.found, key=lambda diagnostic: locator.line(diagnostic.path) or 0)
        return [place(locator, diagnostic, triggers) for diagnostic in found]


def place(locator: Locator, diagnostic: Diagnostic, triggers: Sequence[Any]) -> Problem:
    """Convert a diagnostic to a problem, with its line and its place as a person writes it."""
    path = diagnostic.path
    where = format_key(path)
    if len(path) >= 2 and path[0] == "triggers" and isinstance(path[1], int):
        where = name_trigger(path[1], triggers[path[1]])
        if path[2:]:
            where += ": " + format_key(path[2:])
    file, line = locator.place(path)
    return Problem(file=file, line=line, where=where, message=diagnostic.message, hint=diagnostic.hint)


def name_trigger(index: int, trigger_id: Any) -> str:
    """Return ``triggers[0] (gh)``; without a usable id, the index alone."""
    if isinstance(trigger_id, str) and trigger_id.strip() and trigger_id.isprintable():
        return f"triggers[{index}] ({trigger_id[:200]})"
    return f"triggers[{index}]"


def format_key(path: KeyPath) -> str:
    """Write a path as a person does: ``match.events[0]``."""
    said = ""
    for step in path:
        if isinstance(step, int):
            said += f"[{step}]"
        else:
            said += ("." if said else "") + (step if _BARE.fullmatch(step) else quote(step))
    return said


def parse_key(text: str) -> KeyPath:
    """Parse the result of `format_key`, for bare keys."""
    return tuple(int(index) if index else name for index, name in _STEP.findall(text))


def quote(text: str) -> str:
    """Quote for a message: on one line, shortened, as TOML would where that is simple."""
    short = text if len(text) <= 120 else text[:117] + "..."
    escaped = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in short.replace("\\", "\\\\").replace('"', '\\"')
    )
    return f'"{escaped}"'


def describe(value: Any) -> str:
    """Return the TOML type of ``value``, with its article."""
    # datetime is a date, and bool is an int: the narrower comes first.
    for kind, name in (
        (str, "a string"),
        (bool, "a boolean"),
        (int, "an integer"),
        (float, "a float"),
        (list, "an array"),
        (dict, "a table"),
        (datetime, "a date-time"),
        (date, "a date"),
        (time, "a time"),
    ):
        if isinstance(value, kind):
            return name
    return "something else"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the one of ``known`` that ``name`` was most likely meant to be."""
    candidates = sorted(known)
    folded = name.strip().lower().replace("-", "_")
    if folded in candidates:
        return folded
    close = difflib.get_close_matches(folded, candidates, n=1, cutoff=0.6)
    return close[0] if close else None


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a hint what to write instead of ``name``: the nearest known word, or all of them if they are few."""
    candidates = sorted(known)
    meant = nearest(name, candidates)
    if meant is not None:
        return f"did you mean {quote(meant)}?"
    if not candidates:
        return "remove it"
    if len(candidates) <= _MANY:
        return "known: " + ", ".join(candidates)
    return "remove it"


KeyPath = tuple[str | int, ...]
"""Keys, and places in arrays (0-based), from the top, for example ``("triggers", 0, "retry", "max")``."""

BLANK = re.compile(r"(?:[ \t\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_TEXT = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}' r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'",
    re.DOTALL,
)
_UNQUOTED = re.compile(r"[^\s.=\[\]{}#,\"']+")
_SCALAR = re.compile(r"[^\n,\]}#]+")
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|x([0-9a-fA-F]{2})|(.))", re.DOTALL)
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}


def _unquote(text: str) -> str:
    if text.startswith("'"):
        return text[1:-1]

    def one(found: re.Match[str]) -> str:
        digits = found[1] or found[2] or found[3]
        return chr(int(digits, 16)) if digits else _ESCAPED.get(found[4], found[4])

    return _ESCAPE.sub(one, text[1:-1])


class _Reader:
    """One pass over one text."""

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._text = text
        self._at = 0
        self._line = 1
        self._counted = 0
        self._lengths: dict[KeyPath, int] = {}

    def read(self) -> None:
        """Read to the end, or to where it stops being TOML."""
        table: KeyPath = ()
        while self._skip(BLANK) or self._at < len(self._text):
            if self._at >= len(self._text):
                return
            before = self._at
            if self._text.startswith("[[", self._at):
                table = self._header(2)
            elif self._text[self._at] == "[":
                table = self._header(1)
            else:
                self._pair(table)
            if self._at == before:
                return

    def _header(self, brackets: int) -> KeyPath:
        line = self._here()
        self._at += brackets
        keys = self._key()
        self._skip(_SPACE)
        self._at += brackets
        path: KeyPath = ()
        for key in keys[:-1]:
            path = self._latest((*path, key))
        path = (*path, keys[-1])
        if brackets == 2:
            self._note(path, line)
            self._lengths[path] = self._lengths.get(path, 0) + 1
            path = (*path, self._lengths[path] - 1)
        self._note(path, line)
        return path

    def _latest(self, path: KeyPath) -> KeyPath:
        """Enter the last table of an array of tables."""
        length = self._lengths.get(path)
        return path if length is None else (*path, length - 1)

    def _pair(self, table: KeyPath) -> None:
        line = self._here()
        path = table
        for key in self._key():
            path = (*path, key)
            self._note(path, line)
        self._skip(_SPACE)
        if self._text.startswith("=", self._at):
            self._at += 1
            self._skip(_SPACE)
            self._value(path)

    def _key(self) -> list[str]:
        keys: list[str] = []
        while True:
            self._skip(_SPACE)
            quoted = _TEXT.match(self._text, self._at)
            found = quoted or _UNQUOTED.match(self._text, self._at)
            if found is None:
                return keys or [""]
            keys.append(_unquote(found[0]) if quoted else found[0])
            self._at = found.end()
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _value(self, path: KeyPath) -> None:
        opened = self._text[self._at : self._at + 1]
        if opened == "[":
            self._items(path)
        elif opened == "{":
            self._inline(path)
        elif not self._skip(_TEXT):
            self._skip(_SCALAR)

    def _items(self, path: KeyPath) -> None:
        self._at += 1
        index = 0
        while self._more("]"):
            self._note((*path, index), self._here())
            before = self._at
            self._value((*path, index))
            index += 1
            if self._at == before:
                return

    def _inline(self, path: KeyPath) -> None:
        self._at += 1
        while self._more("}"):
            before = self._at
            self._pair(path)
            if self._at == before:
                return

    def _more(self, closing: str) -> bool:
        """Move to the next item; False when ``closing`` was found and passed, or the text ended."""
        self._skip(BLANK)
        if self._text.startswith(",", self._at):
            self._at += 1
            self._skip(BLANK)
        if self._text.startswith(closing, self._at):
            self._at += 1
            return False
        return self._at < len(self._text)

    def _skip(self, shape: re.Pattern[str]) -> bool:
        found = shape.match(self._text, self._at)
        if found is None or found.end() == self._at:
            return False
        self._at = found.end()
        return True

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _note(self, path: KeyPath, line: int) -> None:
        self.lines.setdefault(path, line)


def key_lines(text: str) -> Mapping[KeyPath, int]:
    """Return the line (1-based) of every table, key and array item of a TOML text."""
    reader = _Reader(text)
    reader.read()
    return reader.lines


class FileLines(Struct, frozen=True):
    """
    Which file each line of a text is from.

    :ivar names: of the files, for messages.
    :ivar starts: the line (1-based) on which each begins.
    """

    names: tuple[str, ...]
    starts: tuple[int, ...] = (1,)

    def at(self, line: int | None) -> tuple[str, int | None]:
        """Return the file of a line of the text, and the line within it; without a line, the first file."""
        if line is None:
            return self.names[0], None
        index = bisect_right(self.starts, line) - 1
        return self.names[index], line - self.starts[index] + 1


class Locator:
    """
    Finds lines in a text that may be cut; reads only the pieces that are needed.

    :param files: which the text is from.
    """

    def __init__(self, pieces: Pieces, files: FileLines) -> None:
        self._pieces = pieces
        self._files = files
        self._starts: list[int] = []
        self._read: dict[int, Mapping[KeyPath, int]] = {}

    def line(self, path: KeyPath) -> int | None:
        """
        Return the line of ``path``, or of the first entry in it where it is written with a longer name (``[a.b]`` for
        ``a``), or of the nearest table around it; None when nothing is written.
        """
        lines, path, before = self._around(path)
        if path and path not in lines:
            inside = [line for each, line in lines.items() if each[: len(path)] == path]
            if inside:
                return min(inside) + before
        while path and path not in lines:
            path = path[:-1]
        return lines[path] + before if path else None

    def place(self, path: KeyPath) -> tuple[str, int | None]:
        """Return the file of ``path``, and its `line` in that file."""
        return self._files.at(self.line(path))

    def has(self, path: KeyPath) -> bool:
        """Return whether ``path`` itself is written."""
        lines, path, _ = self._around(path)
        return path in lines

    def _around(self, path: KeyPath) -> tuple[Mapping[KeyPath, int], KeyPath, int]:
        """Return the lines of the piece that ``path`` is in, ``path`` within it, and the number of lines before it."""
        parts = self._pieces.parts
        if not parts or path[:1] != ("triggers",):
            return self._lines(-1, self._pieces.head), path, 0
        index = path[1] if len(path) > 1 else 0
        assert isinstance(index, int)
        inner = ("triggers", 0, *path[2:]) if len(path) > 1 else path
        return self._lines(index, HEADER + parts[index]), inner, self._start(index) - 1

    def _lines(self, piece: int, text: str) -> Mapping[KeyPath, int]:
        if piece not in self._read:
            self._read[piece] = key_lines(text)
        return self._read[piece]

    def _start(self, index: int) -> int:
        """Return the line on which part ``index`` begins."""
        if not self._starts:
            line = self._pieces.lead.count("\n") + 1
            for part in self._pieces.parts:
                self._starts.append(line)
                line += part.count("\n") + 1
        return self._starts[index]
