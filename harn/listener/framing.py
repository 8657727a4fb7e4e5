"""
RFC 9112 where the parser of ``twisted.web`` is more lenient: requests that two servers could read differently.

Such a request is refused and its connection closed, since the beginning of the next request is unknown. The parser
itself refuses malformed header lines, two lengths and codings other than ``chunked``; `refusal_of` returns the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from harn.errors import CodingUnsupported, MessageMalformed, Refused

# RFC 3986, 3.2.2 and 3.2.3: a name, an address of IPv4, or one of IPv6 or later in brackets; then a port. The name may
# be empty: a client whose target has none sends it so.
_HOST = re.compile(r"(?:\[[0-9A-Za-z:.%_~-]+\]|(?:[0-9A-Za-z._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?", re.ASCII)
_TOKEN = re.compile(rb"[0-9A-Za-z!#$%&'*+.^_`|~-]+")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_NO_VALUE = re.compile(rb"[\x00\r\n]")
_TWO_LENGTHS = "the length of the body must be given once, by one Content-Length or by Transfer-Encoding: chunked"
_SHOWN = 80

Header = tuple[str, bytes]
"""A header's name in lower case, and its value without the space around it."""


def header_of(line: bytes) -> Header | None:
    """Return the header of a line; None if it is malformed, see `refusal_of`."""
    name, colon, value = line.partition(b":")
    if not colon or _NO_VALUE.search(value):
        return None
    lowered = _lower(name)
    return None if lowered is None else (lowered, value.strip(b" \t"))


@lru_cache(maxsize=1024)
def _lower(name: bytes) -> str | None:
    """Return a header's name as connectors see it; None if it is not a token."""
    return name.lower().decode("ascii") if _TOKEN.fullmatch(name) else None


def check_head(target: bytes, version: bytes, lowered: Mapping[str, str], headers: Sequence[Header]) -> None:
    """
    Check the head of a request that the parser let pass.

    :param lowered: the headers with names in lower case, and those of one name joined by a comma and a space.
    :param headers: the same line by line, for checks that need single lines.
    :raises MessageMalformed: two servers could read it differently.
    :raises CodingUnsupported: its body has a transfer coding that is not supported.
    """
    if not _TARGET.fullmatch(target):
        raise MessageMalformed("the request target must be of visible ASCII characters; percent-encode the others")
    host = lowered.get("host")
    if host is None:
        if version == b"HTTP/1.1":
            raise MessageMalformed("the header Host is missing; HTTP/1.1 requires it")
    elif not _HOST.fullmatch(host):  # two of them, joined with a space, do not match
        hosts = [value for name, value in headers if name == "host"]
        if len(hosts) != 1:
            raise MessageMalformed(f"there must be one header Host, got {len(hosts)}")
        raise MessageMalformed(f"the header Host must be a name or an address and a port, got {_shown(hosts[0])}")
    if "transfer-encoding" in lowered:
        if version != b"HTTP/1.1":
            raise MessageMalformed("HTTP/1.0 has no Transfer-Encoding; send Content-Length, or HTTP/1.1")
        if "content-length" in lowered:
            raise MessageMalformed(_TWO_LENGTHS)
        for name, coding in headers:
            if name == "transfer-encoding" and coding.lower() != b"chunked":
                raise _refuse_coding(coding)


def is_persistent(version: bytes, connection: str | None) -> bool:
    """
    Return whether the connection may continue after this request.

    :param connection: the joined values of all headers ``Connection``, None without any.
    """
    if version != b"HTTP/1.1":
        return False
    if connection is None:
        return True
    return all(option.strip(" \t").lower() != "close" for option in connection.split(","))


def check_trailers(lines: Iterable[bytes]) -> None:
    """
    Check the lines after the last chunk. They are discarded, but a server before us may have ended them elsewhere.

    :raises MessageMalformed: one is not a header line.
    """
    for line in lines:
        name, colon, value = bytes(line).partition(b":")
        if not colon or not _TOKEN.fullmatch(name) or _NO_VALUE.search(value):
            raise MessageMalformed(f"a trailer after the chunks must be a header line, got {_shown(bytes(line))}")


def has_bare_end(line: bytes) -> bool:
    """Return whether a line that has no end yet (CRLF) contains a lone CR or LF, which some servers accept as one."""
    return b"\n" in line or b"\r" in line[:-1]


def refusal_of(line: bytes) -> Refused:
    """Return the reason why the parser refused a header line."""
    name, colon, value = line.partition(b":")
    if not colon:
        return MessageMalformed(f"a header line must have a colon, got {_shown(line)}")
    if not _TOKEN.fullmatch(name):
        return MessageMalformed(f"the name of a header must be a token and end at the colon, got {_shown(name)}")
    if _NO_VALUE.search(value):
        return MessageMalformed(f"the header {_shown(name)} must not hold a lone CR or LF, or a NUL")
    named, value = name.lower(), value.strip(b" \t")
    if named == b"transfer-encoding" and value.lower() != b"chunked":
        return _refuse_coding(value)
    if named == b"content-length" and not value.isdigit():
        return MessageMalformed(f"Content-Length must be a number of digits, got {_shown(value)}")
    if named in (b"content-length", b"transfer-encoding"):
        return MessageMalformed(_TWO_LENGTHS)
    return MessageMalformed(f"the header {_shown(name)} is malformed")


def _refuse_coding(value: bytes) -> Refused:
    """Return the reason against a value of ``Transfer-Encoding``: malformed syntax, else an unsupported coding."""
    codings: Sequence[bytes] = [coding.strip(b" \t").lower() for coding in value.split(b",")]
    detail = f"Transfer-Encoding must be chunked and nothing else, got {_shown(value)}"
    if b"chunked" in codings[:-1] or not all(_TOKEN.fullmatch(coding) for coding in codings):
        return MessageMalformed(detail)
    return CodingUnsupported(detail)


def _shown(text: bytes) -> str:
    return repr(text[:_SHOWN].decode("latin-1"))
