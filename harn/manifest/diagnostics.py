"""Diagnostics of a manifest while it is checked, until they become problems with lines."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime, time
from typing import Any

from attrs import field, frozen

from harn.manifest.document import Pieces
from harn.manifest.lines import FileLines, KeyPath, Locator
from harn.model.problem import Problem

_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")
_MANY = 20


@frozen
class Diagnostic:
    """One thing that is wrong, by its path in the tables."""

    path: KeyPath
    message: str
    hint: str = ""


@frozen
class Diagnostics:
    """The diagnostics so far, in the order of diagnostic."""

    found: list[Diagnostic] = field(factory=list)

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
