"""
JSON as senders write it, where parsers are stricter than RFC 8259 needs.

Imported by the interpreter's child process too: a body that the edge accepts must be readable by a handler.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# Escapes within strings, from left to right, so that the backslash of an escaped backslash begins none. A pair of
# surrogates is one match; the second alternative matches a surrogate without a partner.
_ESCAPES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)
_REPLACEMENT = rb"\ufffd"

DEEPEST = 500
"""The most levels of nesting. Parsers and writers may fail on deeper text, depending on their caller's stack."""

# A string without an end matches to the end of the text. Otherwise each quote in it would be tried as a beginning.
_BRACKETS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|([\[{])|([\]}])', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SLICE = 256 * 1024


def mended(text: bytes) -> bytes:
    """
    Return JSON text without a byte order mark, and with U+FFFD for each escape of half a surrogate pair.

    RFC 8259 lets a parser ignore the mark (section 8.1), and its grammar allows such escapes (section 8.2): senders
    make them where they cut a text in the middle of an emoji. Text without either is returned unchanged.
    """
    text = text.removeprefix(BYTE_ORDER_MARK)
    if b"\\u" not in text:
        return text
    return _ESCAPES.sub(lambda match: match[0] if match[1] is None else _REPLACEMENT, text)


def is_too_deep(text: bytes) -> bool:
    """
    Return whether JSON text is nested deeper than `DEEPEST`.

    Counts all brackets first, including those in strings; only text that seems too deep by them is examined exactly.
    """
    if text.count(b"[") + text.count(b"{") <= DEEPEST:
        return False
    depth = deepest = 0
    for piece in slices(text):
        brackets = piece.translate(None, _NO_BRACKETS)
        depths = list(accumulate((1 if byte in b"[{" else -1 for byte in brackets), initial=depth))
        depth, deepest = depths[-1], max(deepest, *depths)
    if deepest <= DEEPEST:
        return False
    depth = deepest = 0
    for match in _BRACKETS.finditer(text):
        if match[1] is not None:
            depth += 1
            deepest = max(deepest, depth)
        elif match[2] is not None:
            depth -= 1
    return deepest > DEEPEST


def slices(text: bytes, overlap: int = 0) -> Iterator[bytes]:
    """Yield pieces short enough not to block other threads for long; each but the first repeats ``overlap`` bytes."""
    for start in range(0, len(text), _SLICE):
        yield text[max(0, start - overlap) : start + _SLICE]
