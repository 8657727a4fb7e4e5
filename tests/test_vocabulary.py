"""Plain words: no file uses a phrase, or begins a docstring, in a way that the rules of `tests.vocabulary` refuse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import harn
from tests.vocabulary import Block, Offence, offences, phrases

ROOT = Path(harn.__file__).parent.parent
FOLDERS = ("harn", "twisted", "tests", "benchmarks", "docs", "examples", "newsfragments")
FILES = ("README.md", "CONTRIBUTING.md", "Makefile", "setup.cfg", "pyproject.toml")
SUFFIXES = frozenset((".py", ".md", ".toml", ".yaml", ".service", ".socket"))

RULES = frozenset(("tests/vocabulary.py", "tests/test_vocabulary.py"))
"""Files that quote the phrases."""

NOT_YET = frozenset(
    (
        "tests/auth",
        "tests/cli",
        "tests/connectors",
        "tests/destinations",
        "tests/dispatch",
        "tests/history",
        "tests/integration",
        "tests/listener",
        "tests/manifest",
        "tests/model",
        "tests/observability",
        "tests/operations",
        "tests/orchestrator",
        "tests/reload",
        "tests/secrets",
        "tests/store",
        "tests/systemd",
        "tests/test_clocks.py",
        "tests/test_files.py",
        "tests/test_isolation.py",
        "tests/test_layers.py",
        "tests/test_options.py",
        "tests/test_packaging.py",
        "tests/test_server.py",
        "tests/test_units.py",
        "tests/test_waiting.py",
        "tests/triggers",
        "tests/upgrade",
        "tests/vm",
        "tests/watch",
    )
)
"""Rooms still to be rewritten. It only gets shorter: a room without offences must be taken off."""


def room(path: Path) -> str:
    """Return the room of a file: a package or module of ``harn`` or ``tests``, a folder of the others, or the file."""
    parts = path.relative_to(ROOT).parts
    return "/".join(parts[: 2 if parts[0] in ("harn", "tests", "docs") else 1])


def files() -> Iterator[Path]:
    """Return every file with prose of ours."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file() and str(path.relative_to(ROOT)) not in RULES:
                yield path
    yield from (ROOT / name for name in FILES)


def offences_by_room() -> dict[str, list[Offence]]:
    """Return the offences by room."""
    rooms = dict[str, list[Offence]]()
    for path in files():
        messages = path.relative_to(ROOT).parts[0] != "tests"
        rooms.setdefault(room(path), []).extend(offences(path, messages=messages))
    return rooms


class VocabularyTests(SynchronousTestCase):
    """The rules, held to every file."""

    def test_plain_words(self) -> None:
        """No room but those on the list breaks a rule, and a room on the list that breaks none is taken off."""
        found = offences_by_room()
        wrong = [str(each) for name, several in found.items() if name not in NOT_YET for each in several]
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))
        self.assertEqual(NOT_YET - {name for name, several in found.items() if several}, frozenset())

    def test_a_phrase_is_found_over_a_line_break(self) -> None:
        """A phrase that breaks over two lines is reported where it begins; what is set as code is not read."""
        block = Block(7, "One\nthat becomes\nof ``nobody``.")
        several = list(phrases(Path("x.py"), block))
        self.assertEqual({(each.line, each.found) for each in several}, {(8, "becomes of")})
