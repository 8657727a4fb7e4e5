"""
The unified diff of two texts, in bounded time and of bounded length. Pure.

Long texts are first split at lines that occur once in each (patience diff), so that the cost for a manifest of ten
thousand triggers depends on the number of its differences. A stretch between two such lines that is still long is shown
as replaced.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

CONTEXT = 3
"""The number of unchanged lines that are shown before and after a difference."""
LONGEST = 200_000
"""The largest number of characters in one diff; the rest is left out, with a note."""
_DEPTH = 3
"""The largest number of times that a stretch between two lines is split again."""
_LARGEST = 10_000
"""The largest number of pairs of lines that are compared one by one; more take seconds in hostile texts."""

Stretch = tuple[int, int, int, int]
"""Two ranges of lines: first and end line of the old text, then first and end line of the new text."""


def text_diff(old: bytes | None, new: bytes | None, old_name: str, new_name: str, longest: int = LONGEST) -> str:
    """
    Return the unified diff of two texts, in the form that ``patch`` reads; empty if both are the same.

    :param old: the old text; None if it does not exist.
    :param new: the new text; None if it does not exist.
    :param longest: the number of characters after which the diff is cut; a note then ends it.
    """
    if old == new:
        return ""
    old_name, new_name = ("/dev/null" if old is None else old_name), ("/dev/null" if new is None else new_name)
    before, after = _lines(old), _lines(new)
    if before is None or after is None:
        return f"Binary files {old_name} and {new_name} differ\n"
    shown = [f"--- {old_name}\n", f"+++ {new_name}\n"]
    left = longest
    for line in _unified(before, after):
        left -= len(line)
        if left < 0:
            return "".join(shown) + f"# the rest is left out: the diff has more than {longest} characters\n"
        shown.append(line)
    return "".join(shown)


def _lines(data: bytes | None) -> list[str] | None:
    """Return the lines with their line ends, as ``patch`` counts them; None if ``data`` is not text."""
    if data is None:
        return []
    if b"\0" in data:
        return None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    lines = [line + "\n" for line in text.split("\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines


def _unified(old: Sequence[str], new: Sequence[str]) -> Iterator[str]:
    for hunk in _hunks(old, new):
        first, last = hunk[0], hunk[-1]
        yield f"@@ -{_range(first[0], last[1])} +{_range(first[2], last[3])} @@\n"
        for old_from, old_to, new_from, new_to in hunk:
            gone, come = old[old_from:old_to], new[new_from:new_to]
            for sign, lines in ((" ", gone),) if gone == come else (("-", gone), ("+", come)):
                for line in lines:
                    yield sign + line if line.endswith("\n") else f"{sign}{line}\n\\ No newline at end of file\n"


def _range(start: int, stop: int) -> str:
    count = stop - start
    if count == 1:
        return str(start + 1)
    return f"{start + 1 if count else start},{count}"


def _hunks(old: Sequence[str], new: Sequence[str]) -> Iterator[list[Stretch]]:
    """Yield the hunks: each has the stretches that differ and, around them, the equal stretches of their context."""
    hunk: list[Stretch] = []
    old_at = new_at = 0  # the lines before these are in a hunk or left out
    for old_from, new_from, size in _matches(old, new):
        if old_at < old_from or new_at < new_from:
            if not hunk:  # if the first lines differ; else there is context before
                hunk.append((old_at, old_at, new_at, new_at))
            hunk.append((old_at, old_from, new_at, new_from))
        old_to, new_to = old_from + size, new_from + size
        at_end = old_to == len(old) and new_to == len(new)
        differs = len(hunk) > 1
        if differs and not at_end and size <= 2 * CONTEXT:
            hunk.append((old_from, old_to, new_from, new_to))
        else:
            if differs:
                shown = min(size, CONTEXT)
                yield [*hunk, (old_from, old_from + shown, new_from, new_from + shown)]
            shown = min(size, CONTEXT)
            hunk = [(old_to - shown, old_to, new_to - shown, new_to)]
        old_at, new_at = old_to, new_to


def _matches(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[int, int, int]]:
    """Yield the longest common stretches: index in the old text, index in the new text, length; last an empty one."""
    old_at = new_at = size = 0
    for old_from, new_from, length in _found(old, new, (0, len(old), 0, len(new)), _DEPTH):
        if (old_from, new_from) == (old_at + size, new_at + size):
            size += length
            continue
        if size:
            yield old_at, new_at, size
        old_at, new_at, size = old_from, new_from, length
    if size:
        yield old_at, new_at, size
    yield len(old), len(new), 0


def _found(old: Sequence[str], new: Sequence[str], within: Stretch, depth: int) -> Iterator[tuple[int, int, int]]:
    old_from, old_to, new_from, new_to = within
    shortest = min(old_to - old_from, new_to - new_from)
    head = 0
    while head < shortest and old[old_from + head] == new[new_from + head]:
        head += 1
    tail = 0
    while tail < shortest - head and old[old_to - tail - 1] == new[new_to - tail - 1]:
        tail += 1
    if head:
        yield old_from, new_from, head
    yield from _between(old, new, (old_from + head, old_to - tail, new_from + head, new_to - tail), depth)
    if tail:
        yield old_to - tail, new_to - tail, tail


def _between(old: Sequence[str], new: Sequence[str], within: Stretch, depth: int) -> Iterator[tuple[int, int, int]]:
    """Yield the common stretches inside a stretch whose first and last lines differ."""
    old_from, old_to, new_from, new_to = within
    if old_from == old_to or new_from == new_to:
        return
    anchors = _anchors(old, new, within) if depth else []
    if anchors:
        for old_at, new_at in anchors:
            yield from _found(old, new, (old_from, old_at, new_from, new_at), depth - 1)
            yield old_at, new_at, 1
            old_from, new_from = old_at + 1, new_at + 1
        yield from _found(old, new, (old_from, old_to, new_from, new_to), depth - 1)
    elif (old_to - old_from) * (new_to - new_from) <= _LARGEST:
        matcher = SequenceMatcher(None, old[old_from:old_to], new[new_from:new_to], autojunk=False)
        for block in matcher.get_matching_blocks():
            if block.size:
                yield old_from + block.a, new_from + block.b, block.size


def _anchors(old: Sequence[str], new: Sequence[str], within: Stretch) -> list[tuple[int, int]]:
    """Match the lines that occur once in each range, as many of them as are in the same order in both."""
    old_from, old_to, new_from, new_to = within
    counts = Counter(old[old_from:old_to])
    places = {old[at]: at for at in range(old_from, old_to) if counts[old[at]] == 1}
    counts = Counter(new[new_from:new_to])
    pairs = [(places[new[at]], at) for at in range(new_from, new_to) if counts[new[at]] == 1 and new[at] in places]
    # The longest rising sequence, by patience sorting: the top of pile n is the smallest end of a sequence of length n.
    tops: list[int] = []
    piles: list[int] = []
    before: list[int] = []
    for number, (old_at, _) in enumerate(pairs):
        pile = bisect_left(tops, old_at)
        before.append(piles[pile - 1] if pile else -1)
        tops[pile : pile + 1] = [old_at]
        piles[pile : pile + 1] = [number]
    chosen: list[tuple[int, int]] = []
    at = piles[-1] if piles else -1
    while at >= 0:
        chosen.append(pairs[at])
        at = before[at]
    return chosen[::-1]
