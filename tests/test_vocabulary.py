"""Plain words: no file uses a phrase, or begins a docstring, in a way that the rules of `tests.vocabulary` refuse."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import harn
from tests.vocabulary import Block, Offence, first_lines, offences, phrases

ROOT = Path(harn.__file__).parent.parent
FOLDERS = ("harn", "twisted", "tests", "benchmarks", "docs", "examples", "newsfragments")
FILES = ("README.md", "CONTRIBUTING.md", "Makefile", "setup.cfg", "pyproject.toml")
SUFFIXES = frozenset((".py", ".md", ".toml", ".yaml", ".service", ".socket"))

RULES = frozenset(("tests/vocabulary.py", "tests/test_vocabulary.py"))
"""Files that quote the phrases."""


def files() -> Iterator[Path]:
    """Return every file with prose of ours."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SUFFIXES and path.is_file() and str(path.relative_to(ROOT)) not in RULES:
                yield path
    yield from (ROOT / name for name in FILES)


def offences_of(path: Path) -> Iterator[Offence]:
    """Return the offences of a file; the messages of tests are not read."""
    return offences(path, messages=path.relative_to(ROOT).parts[0] != "tests")


class VocabularyTests(SynchronousTestCase):
    """The rules, held to every file."""

    def test_plain_words(self) -> None:
        """No file breaks a rule."""
        wrong = [str(each) for path in files() for each in offences_of(path)]
        self.assertEqual(wrong, [], "\n" + "\n".join(wrong))

    def test_a_phrase_is_found_over_a_line_break(self) -> None:
        """A phrase that breaks over two lines is reported where it begins; what is set as code is not read."""
        block = Block(7, "One\nthat becomes\nof ``nobody``.")
        several = list(phrases(Path("x.py"), block))
        self.assertEqual({(each.line, each.found) for each in several}, {(8, "becomes of")})

    def test_a_docstring_names_its_object(self) -> None:
        """A function returns a thing, and not what was found; a test states what holds."""
        source = """
def found():
    'Return what was found.'
def findings():
    'Return the findings.'
def test_found():
    'Only what was found is returned.'
"""
        offences_found = list(first_lines(Path("x.py"), list(ast.walk(ast.parse(source)))))
        self.assertEqual([(each.line, each.found) for each in offences_found], [(2, "Return what was found.")])
