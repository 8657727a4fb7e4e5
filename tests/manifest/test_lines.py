"""Where keys stand in the text."""

from __future__ import annotations

from typing import Any

import tomli
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.manifest.diagnostics import FileLines, KeyPath, Locator, key_lines
from harn.manifest.document import cut, uncut
from tests.manifest.rules import UNHURRIED

TEXT = '''\
# comment with [[triggers]] and """
title = "x"
"quoted key" = 1
a.b."c.d" = 2
multi = """
[not.a.header]
key = "no \\""" key"""   # three
raw = \'\'\'
[[no]]\'\'\'
list = [
  1, # one ]
  { deep = 2, "x" = [
    3 ] },
  "]",
]

[ table . inner ]  # spaced
when = 1979-05-27 07:32:00

[[triggers]]
id = "a"
retry = { max = 3,
          backoff = "svix" }
[triggers.match]
events = ["x",
          "y"]
[[triggers.sources]]
kind = "s0"
[[triggers.sources]]
kind = "s1"
[triggers.sources.more]
z = 1
[[triggers]]
id = "b"
'''
EXPECTED: dict[KeyPath, int] = {
    ("title",): 2,
    ("quoted key",): 3,
    ("a", "b", "c.d"): 4,
    ("multi",): 5,
    ("raw",): 8,
    ("list",): 10,
    ("list", 0): 11,
    ("list", 1): 12,
    ("list", 1, "deep"): 12,
    ("list", 1, "x"): 12,
    ("list", 1, "x", 0): 13,
    ("list", 2): 14,
    ("table", "inner"): 17,
    ("table", "inner", "when"): 18,
    ("triggers", 0): 20,
    ("triggers", 0, "id"): 21,
    ("triggers", 0, "retry", "backoff"): 23,
    ("triggers", 0, "match"): 24,
    ("triggers", 0, "match", "events", 1): 26,
    ("triggers", 0, "sources", 0, "kind"): 28,
    ("triggers", 0, "sources", 1): 29,
    ("triggers", 0, "sources", 1, "more", "z"): 32,
    ("triggers", 1): 33,
    ("triggers", 1, "id"): 34,
}

STRINGS = st.text(alphabet="ab\"'\\#[]{}=,.\n é", max_size=12)


def basic(text: str) -> str:
    """Write a basic string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def multi_line(text: str) -> str:
    """Write a multi-line basic string; quotes stay as they are where TOML lets them."""
    return '"""' + text.replace("\\", "\\\\").replace('""', '"\\"') + '"""'


def literal(text: str) -> str:
    """Write a multi-line literal string, without what it cannot hold."""
    return "'''" + text.replace("'", "") + "'''"


SCALARS = st.one_of(
    st.builds(lambda write, text: write(text), st.sampled_from([basic, multi_line, literal]), STRINGS),
    st.sampled_from(["1", "true", "-1.5e3", "1979-05-27 07:32:00", "0x1F", "inf"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + ",\n # ]\n".join(items) + "\n]"),
        st.dictionaries(st.sampled_from(["p", "q", '"r s"', "'t'"]), inner, max_size=3).map(
            lambda table: "{ " + ", ".join(f"{key} = {value}" for key, value in table.items()) + " }"
        ),
    ),
    max_leaves=6,
)


def paths(value: Any, path: KeyPath = ()) -> list[KeyPath]:
    """Return the path of everything in a parsed value."""
    if isinstance(value, dict):
        steps: list[tuple[str | int, Any]] = list(value.items())
    elif isinstance(value, list):
        steps = list(enumerate(value))
    else:
        return []
    found: list[KeyPath] = []
    for step, inner in steps:
        found += [(*path, step), *paths(inner, (*path, step))]
    return found


class KeyLinesTests(SynchronousTestCase):
    """`key_lines`."""

    def test_every_way_of_writing(self) -> None:
        """Headers, dotted and quoted keys, four kinds of string, arrays and inline tables over several lines."""
        tomli.loads(TEXT)
        lines = key_lines(TEXT)
        self.assertEqual({path: lines.get(path) for path in EXPECTED}, EXPECTED)

    @UNHURRIED
    @given(st.lists(st.tuples(st.sampled_from(["", "[t%d]\n", "[[a]]\n", "# [x]\n"]), VALUES), max_size=5))
    def test_finds_what_the_parser_finds(self, pairs: list[tuple[str, str]]) -> None:
        """Everything the parser reads has a line, nothing else has, and a top key's line is that of its text."""
        text, starts = "", {}
        for number, (header, value) in enumerate(pairs):
            text += (header % number if "%" in header else header) + "\n"
            starts[f"key{number}"] = text.count("\n") + 1
            text += f"key{number} = {value}\n"
        lines = key_lines(text)
        self.assertEqual(set(lines), set(paths(tomli.loads(text))))
        for path, line in lines.items():
            if path[-1] in starts:
                self.assertEqual(line, starts[str(path[-1])])

    @UNHURRIED
    @given(st.text(alphabet="[]{}=\"'.,\n#ab\\ ", max_size=40))
    def test_ends_on_any_text(self, text: str) -> None:
        """Text that is not TOML ends the reading; it does not hang and does not raise."""
        self.assertIsInstance(key_lines(text), dict)


class LocatorTests(SynchronousTestCase):
    """`Locator`."""

    def test_cut_or_not_the_lines_are_the_same(self) -> None:
        """A text that was cut gives the lines of the whole."""
        whole, pieces = Locator(uncut(TEXT), FileLines(("harn.toml",))), Locator(cut(TEXT), FileLines(("harn.toml",)))
        for path, line in EXPECTED.items():
            self.assertEqual((whole.line(path), pieces.line(path)), (line, line), path)

    def test_what_is_not_written_has_the_line_around_it(self) -> None:
        """A missing key has the line of its table; a missing table has none."""
        for locator in (Locator(uncut(TEXT), FileLines(("harn.toml",))), Locator(cut(TEXT), FileLines(("harn.toml",)))):
            self.assertEqual(locator.line(("triggers", 1, "handler")), 33)
            self.assertEqual(locator.line(("triggers", 0, "retry", "cap")), 22)
            self.assertEqual(locator.line(("triggers",)), 20)
            self.assertIsNone(locator.line(("orchestrator", "drain")))

    def test_named_in_a_longer_name_alone(self) -> None:
        """``[trigger.webhook]`` is where ``trigger`` is written, though it has no line of its own."""
        locator = Locator(
            uncut("x = 1\n[trigger.webhook]\ny = 1\n[trigger.retry]\na.b = 2\n"), FileLines(("harn.toml",))
        )
        self.assertEqual(locator.line(("trigger",)), 2)
        self.assertEqual(locator.line(("trigger", "retry", "a")), 5)
        self.assertEqual(locator.line(("trigger", "retry", "c")), 4)
