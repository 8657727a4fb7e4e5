"""Unified diffs of whatever there is."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.history import text_diff as module
from harn.history.text_diff import LONGEST, text_diff
from harn.testing.manifests import manifest_text

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
UNHURRIED = settings(deadline=None)

LINES = st.sampled_from(["a", "b", "c", "\r", "  [x]", "--- a", "@@ -1 +1 @@", "\u2028", "\x0c", ""])
TEXTS = st.lists(LINES, max_size=40).map("\n".join)


def diff(old: str, new: str) -> str:
    """Return the diff of two texts."""
    return text_diff(old.encode(), new.encode(), "old", "new")


def lines_of(text: str) -> list[str]:
    """Return the lines with their ends."""
    return re.findall("[^\n]*\n|[^\n]+", text)


def patched(old: str, shown: str) -> str:
    """Apply a diff, as ``patch`` does: every line of context and every line taken away must be where it says."""
    before, after, at = lines_of(old), list[str](), 0
    steps = lines_of(shown.replace("\n\\ No newline at end of file\n", "\0"))[2:]
    for step in (step for each in steps for step in re.findall("[^\0]*\0|[^\0]+", each)):
        found = _HUNK.fullmatch(step.rstrip("\n"))
        text = step[1:].rstrip("\0")
        if found is not None:
            wanted = int(found[1]) - (found[2] != "0")
            assert wanted >= at, (wanted, at)
            after += before[at:wanted]
            at = wanted
        elif step[0] == "+":
            after.append(text)
        else:
            assert before[at] == text, (at, step)
            at += 1
            if step[0] == " ":
                after.append(text)
    return "".join(after + before[at:])


class TextDiffTests(SynchronousTestCase):
    """`text_diff`."""

    def test_same(self) -> None:
        """Nothing differs between equal texts, nor between nothing and nothing."""
        self.assertEqual((diff("a\n", "a\n"), text_diff(None, None, "a", "b")), ("", ""))

    def test_shape(self) -> None:
        """Three lines around what differs; what lies further apart is in hunks of its own."""
        old = "".join(f"{number}\n" for number in range(1, 31))
        new = old.replace("5\n", "five\n", 1).replace("28\n", "")
        self.assertEqual(
            diff(old, new),
            "--- old\n+++ new\n"
            "@@ -2,7 +2,7 @@\n 2\n 3\n 4\n-5\n+five\n 6\n 7\n 8\n"
            "@@ -25,6 +25,5 @@\n 25\n 26\n 27\n-28\n 29\n 30\n",
        )

    def test_ends(self) -> None:
        """A text that is new, one that is gone, and one whose last line does not end."""
        self.assertEqual(text_diff(None, b"a\nb\n", "x", "y"), "--- /dev/null\n+++ y\n@@ -0,0 +1,2 @@\n+a\n+b\n")
        self.assertEqual(text_diff(b"a\n", None, "x", "y"), "--- x\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n")
        self.assertEqual(
            diff("a\nb", "a\nb\n"), "--- old\n+++ new\n@@ -1,2 +1,2 @@\n a\n-b\n\\ No newline at end of file\n+b\n"
        )

    def test_binary(self) -> None:
        """Bytes that are not text are not shown."""
        for data in (b"a\0b", b"\xff\xfe", b"caf\xe9"):
            self.assertEqual(text_diff(b"a\n", data, "x", "y"), "Binary files x and y differ\n")
            self.assertEqual(text_diff(data, None, "x", "y"), "Binary files x and /dev/null differ\n")

    def test_cut(self) -> None:
        """A long diff is cut at a line, and says so; a line of a million characters is not shown at all."""
        shown = diff("", "line\n" * 100_000)
        self.assertLess(len(shown), LONGEST + 200)
        self.assertTrue(shown.endswith(f"+line\n# the rest is left out: the diff has more than {LONGEST} characters\n"))
        self.assertLess(len(diff("x", "y" * 1_000_000)), 200)

    @UNHURRIED
    @given(TEXTS, TEXTS)
    @example("a\nb", "a\nb\n")
    def test_patch(self, old: str, new: str) -> None:
        """Applying the diff to the old text gives the new one."""
        shown = diff(old, new)
        self.assertEqual(old == new, shown == "")
        self.assertEqual(patched(old, shown), new)

    @UNHURRIED
    @given(st.lists(st.tuples(st.integers(0, 299), st.sampled_from("+-=")), max_size=12))
    def test_many_edits(self, edits: list[tuple[int, str]]) -> None:
        """Edits of a long text with distinct lines come out as just these lines."""
        lines = [f"line {number}" for number in range(300)]
        after: list[str] = list(lines)
        for at, edit in edits:
            place = min(at, len(after) - 1)
            after[place : place + 1] = {"+": [after[place], "new"], "-": [], "=": ["other"]}[edit]
        old, new = "\n".join([*lines, ""]), "\n".join([*after, ""])
        shown = diff(old, new)
        self.assertEqual(patched(old, shown), new)
        self.assertLessEqual(sum(line.startswith("-") for line in shown.splitlines()[2:]), len(edits))

    def test_large_manifests(self) -> None:
        """Ten thousand triggers: the lines that changed are found by few comparisons, wherever they are."""
        pairs: list[int] = []
        real = SequenceMatcher

        def counting(junk: object, old: list[str], new: list[str], **more: bool) -> object:
            pairs.append(len(old) * len(new))
            return real(None, old, new, **more)

        self.patch(module, "SequenceMatcher", counting)
        old, new = manifest_text(10_000), manifest_text(10_000, changed=(3, 5_000, 9_998))
        shown = diff(old, new)
        self.assertEqual(shown.count("\n-max = 3\n+max = 4\n"), 3)
        self.assertEqual(shown.count("\n@@ "), 3)
        self.assertLess(sum(pairs), 1000)

    def test_hostile(self) -> None:
        """Texts of many equal lines, in another order, are shown as replaced and not compared pair by pair."""
        self.patch(module, "SequenceMatcher", lambda *_, **__: self.fail("too much to compare"))
        old, new = "a\nb\n" * 5_000, "b\nb\na\n" * 5_000
        shown = diff(old, new)
        self.assertEqual(patched(old, shown), new)
