"""
Text that cannot steer a terminal or look like other text: control characters and marks of direction are shown escaped.

Senders and handlers can write text that is logged and listed: an escape sequence in it must not clear a screen, and a
mark of direction must not reorder a line.
"""

from __future__ import annotations

import re

_DIRECTION = "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
"""Marks and overrides of the direction of writing, and Unicode's own ends of line and paragraph."""
_HIDDEN = re.compile(f"[\x00-\x08\x0a-\x1f\x7f-\x9f{_DIRECTION}]")
_HIDDEN_IN_JSON = re.compile(f"[\x7f-\x9f{_DIRECTION}]")
_NAMED = {"\n": "\\n", "\r": "\\r"}


def visible(text: str) -> str:
    r"""Return ``text`` as one line: an end of line in it is shown as ``\n``, ESC as ``\x1b``; tabs stay."""
    return text if text.isprintable() else _HIDDEN.sub(_escaped, text)


def visible_lines(text: str) -> list[str]:
    """Return the lines of ``text``, each as `visible` has it; at least one."""
    return [visible(line.removesuffix("\r")) for line in text.removesuffix("\n").split("\n")]


def visible_json(text: str) -> str:
    r"""Return JSON, written by an encoder, with what encoders leave as it is in strings escaped as ``\u009b``."""
    if text.isascii() and "\x7f" not in text:  # nearly always, and quick to check
        return text
    return _HIDDEN_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    number = ord(character)
    return _NAMED.get(character) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")
