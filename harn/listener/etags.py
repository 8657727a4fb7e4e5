"""Entity tags: the values of ``If-Match`` (RFC 9110, 8.8.3 and 13.1.1)."""

from __future__ import annotations

import re

_TAG = re.compile(r'(?:W/)?"([^"]*)"')


def bare(tag: str) -> str:
    """Remove quotes and the mark of weakness from a tag."""
    tag = tag.strip()
    found = _TAG.fullmatch(tag)
    return tag if found is None else found[1]


def quoted(tag: str) -> str:
    """Write a tag in the form of a header."""
    return f'"{bare(tag)}"'


def tags_of(header: str) -> tuple[str, ...]:
    """Return the bare tags of a header; ``*`` is one of them, and a tag without quotes is accepted."""
    found = tuple(_TAG.findall(header))
    return found if found else tuple(part.strip() for part in header.split(",") if part.strip())


def is_named(header: str | None, tag: str) -> bool:
    """Return whether a header lists ``tag``, or any."""
    if header is None:
        return False
    tags = tags_of(header)
    return "*" in tags or bare(tag) in tags


def wanted(header: str | None, current: str) -> str | None:
    """
    Return the one tag that a request requires, in the form of ``current``.

    :return: None if it requires none, or any (``*``).
    """
    if header is None or "*" in tags_of(header):
        return None
    if is_named(header, current):
        return current
    tag = next(iter(tags_of(header)), "")
    return quoted(tag) if current.startswith('"') else tag
