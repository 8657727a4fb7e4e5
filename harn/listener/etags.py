"""Entity tags: what ``If-Match`` asks for (RFC 9110, 8.8.3 and 13.1.1)."""

from __future__ import annotations

import re

_TAG = re.compile(r'(?:W/)?"([^"]*)"')


def bare(tag: str) -> str:
    """Take quotes and the mark of weakness off a tag."""
    tag = tag.strip()
    found = _TAG.fullmatch(tag)
    return tag if found is None else found[1]


def quoted(tag: str) -> str:
    """Write a tag as a header carries it."""
    return f'"{bare(tag)}"'


def tags_of(header: str) -> tuple[str, ...]:
    """
    Give the bare tags of a header; ``*`` is one of them, and a tag without quotes is taken for what it means.
    """
    found = tuple(_TAG.findall(header))
    return found if found else tuple(part.strip() for part in header.split(",") if part.strip())


def is_named(header: str | None, tag: str) -> bool:
    """Tell whether a header names ``tag``, or any."""
    if header is None:
        return False
    tags = tags_of(header)
    return "*" in tags or bare(tag) in tags


def wanted(header: str | None, current: str) -> str | None:
    """
    Give the one tag that a request insists on, in the form of ``current``.

    :return: None if it insists on nothing, or on anything (``*``).
    """
    if header is None or "*" in tags_of(header):
        return None
    if is_named(header, current):
        return current
    tag = next(iter(tags_of(header)), "")
    return quoted(tag) if current.startswith('"') else tag
