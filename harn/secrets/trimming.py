"""Removal of what editors, shells and consoles add around a secret unasked."""

from __future__ import annotations

from harn.errors import SecretUnavailable

_MARK = b"\xef\xbb\xbf"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_WHITE = b" \t\r\n\v\f"


def trimmed(value: bytes) -> tuple[bytes, str | None]:
    """
    Return a secret without a byte order mark and white space around it, and a description of what was removed, or None.

    A value that is not UTF-8 is a binary key, and returned unchanged.

    :raises SecretUnavailable: it is a text in UTF-16, which no sender signs with; never quotes it.
    """
    if value.startswith(_UTF_16) and len(value) % 2 == 0 and b"\x00" in value:
        raise SecretUnavailable("it is UTF-16, with a byte order mark; save it as UTF-8")
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return value, None
    kept = value.removeprefix(_MARK).strip(_WHITE)
    if kept == value:
        return value, None
    found = []
    if value.startswith(_MARK):
        found.append("a byte order mark")
    around = value.removeprefix(_MARK).replace(kept, b"", 1) if kept else value.removeprefix(_MARK)
    if b"\n" in around or b"\r" in around:
        found.append("a line end")
    if around.strip(b"\r\n"):
        found.append("white space")
    return kept, " and ".join(found)
