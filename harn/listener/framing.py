"""
Strict message framing (RFC 9112): a request that two servers could parse differently is refused.

The connection of such a request is closed, since the beginning of the next request is unknown. llhttp, which parses the
field lines (`harn.listener.head`), refuses most of them already. The checks of this module name the invalid line, and
cover what llhttp does not check: spaces in the request line, versions, ``Host``, and codings other than ``chunked``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

from msgspec import Struct

from harn.errors import CodingUnsupported, MessageMalformed, Refused

# RFC 3986, 3.2.2 and 3.2.3: a name, an IPv4 address, or an address of IPv6 or later in brackets; then a port. The name
# may be empty: a client sends an empty one if its target has no authority.
_HOST = re.compile(r"(?:\[[0-9A-Za-z:.%_~-]+\]|(?:[0-9A-Za-z._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?", re.ASCII)
_TOKEN = re.compile(rb"[0-9A-Za-z!#$%&'*+.^_`|~-]+")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_MOST_DIGITS = 200  # of a Content-Length; llhttp refuses a value of more than 64 bits
_NO_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_VERSIONS = (b"HTTP/1.1", b"HTTP/1.0")
_FOLDS = (b" ", b"\t")
_TWO_LENGTHS = "the length of the body must be given once, by one Content-Length or by Transfer-Encoding: chunked"
_NO_REQUEST = "the first line must be that of an HTTP/1.1 request: method, target and version"
_SHOWN = 80
_LONGEST_KEPT = 512  # bytes

Field = tuple[bytes, bytes]
"""A header field as received: its name, and its value, which may end with whitespace."""


class RequestLine(Struct, frozen=True, gc=False):
    """
    The request line.

    :ivar method: the method, as received.
    :ivar target: the request target, as received.
    :ivar version: the HTTP version, as received.
    :ivar path: the path of the target.
    :ivar query: the part of the target after the first ``?``.
    :ivar is_visible: whether the target has visible ASCII characters alone, as `check_head` requires.
    :ivar is_kept_alive: whether the connection persists after this request by its version, if no ``Connection`` field
        says otherwise.
    :ivar route: the path by which routes are looked up.
    :ivar path_text: ``path`` as text (latin-1).
    :ivar query_text: ``query`` as text (latin-1).
    :ivar method_text: ``method`` as text (latin-1).
    """

    method: bytes
    target: bytes
    version: bytes
    path: bytes
    query: bytes
    is_visible: bool
    is_kept_alive: bool
    route: str
    path_text: str
    query_text: str
    method_text: str


def first_line(line: bytes) -> RequestLine:
    """
    Return a request line parsed; the target may have characters that `check_head` refuses.

    Senders repeat their request lines, so the latest ones are cached; long ones are not, to save memory.

    :raises MessageMalformed: the line does not have three parts with one space between them.
    """
    return _kept_line(line) if len(line) <= _LONGEST_KEPT else _read_line(line)


def _read_line(line: bytes) -> RequestLine:
    """See `first_line`."""
    parts = line.split(b" ")
    if len(parts) != 3:
        raise MessageMalformed(_NO_REQUEST)
    method, target, version = parts
    if version not in _VERSIONS or not target or not _is_token(method):
        raise MessageMalformed(_NO_REQUEST)
    path, _, query = target.partition(b"?")
    return RequestLine(
        method=method,
        target=target,
        version=version,
        path=path,
        query=query,
        is_visible=_TARGET.fullmatch(target) is not None,
        is_kept_alive=version == _VERSIONS[0],
        route=path.decode("utf-8", "replace"),
        path_text=path.decode("latin-1"),
        query_text=query.decode("latin-1"),
        method_text=method.decode("latin-1"),
    )


_kept_line = lru_cache(maxsize=1024)(_read_line)


def field_of(line: bytes) -> Field:
    """
    Return the header field of a line.

    :raises MessageMalformed: it is not a field line.
    """
    if line[:1] in _FOLDS:
        raise MessageMalformed("no line of the head may begin with a space; write it as one line")
    name, colon, value = line.partition(b":")
    if not colon:
        raise MessageMalformed(f"a header line must have a colon, got {_shown(line)}")
    if not _is_token(name):
        raise MessageMalformed(f"the name of a header must be a token and end at the colon, got {_shown(name)}")
    if _NO_VALUE.search(value):
        raise MessageMalformed(
            f"the header {_shown(name)} must not hold a lone CR or LF, or a NUL or another control character"
        )
    return name, value.strip(b" \t")


@lru_cache(maxsize=1024)
def lower(name: bytes) -> str:
    """Return the name of a header field in lower case, as connectors receive it."""
    return name.lower().decode("ascii")


@lru_cache(maxsize=256)
def _is_token(text: bytes) -> bool:
    return _TOKEN.fullmatch(text) is not None


@lru_cache(maxsize=256)
def _is_host(text: str) -> bool:
    return _HOST.fullmatch(text) is not None


def check_head(line: RequestLine, headers: Mapping[str, str], fields: Collection[Field]) -> int | None:
    """
    Check the head of a request whose lines are well-formed.

    :param headers: the header fields, by name in lower case; values of one name are joined by a comma and a space.
    :param fields: the same fields, one for each line.
    :return: the length of the body in bytes; None if the body is chunked.
    :raises MessageMalformed: two servers could parse the request differently.
    :raises CodingUnsupported: the body has a transfer coding that is not supported.
    """
    if not line.is_visible:
        raise MessageMalformed("the request target must be of visible ASCII characters; percent-encode the others")
    host = headers.get("host")
    if host is None:
        if line.version == b"HTTP/1.1":
            raise MessageMalformed("the header Host is missing; HTTP/1.1 requires it")
    elif not _is_host(host):  # two of them, joined with a space, do not match
        hosts = _values(fields, "host")
        if len(hosts) != 1:
            raise MessageMalformed(f"there must be one header Host, got {len(hosts)}")
        raise MessageMalformed(f"the header Host must be a name or an address and a port, got {_shown(hosts[0])}")
    return body_length(line.version, headers, fields)


def body_length(version: bytes, headers: Mapping[str, str], fields: Collection[Field]) -> int | None:
    """
    Return the length of the body in bytes; None if it is chunked. Parameters and errors are those of `check_head`.
    """
    length = headers.get("content-length")
    if "transfer-encoding" not in headers:
        if length is None:
            return 0
        if not (length.isdigit() and length.isascii() and len(length) <= _MOST_DIGITS):
            lengths = _values(fields, "content-length")
            if len(lengths) != 1:
                raise MessageMalformed(_TWO_LENGTHS)
            raise MessageMalformed(f"Content-Length must be a number of digits, got {_shown(lengths[0])}")
        return int(length)
    if version != b"HTTP/1.1":
        raise MessageMalformed("HTTP/1.0 has no Transfer-Encoding; send Content-Length, or HTTP/1.1")
    if length is not None:
        raise MessageMalformed(_TWO_LENGTHS)
    codings = _values(fields, "transfer-encoding")
    for coding in codings:
        if coding.lower() != b"chunked":
            raise _refuse_coding(coding)
    if len(codings) != 1:
        raise MessageMalformed(_TWO_LENGTHS)
    return None


def is_persistent(version: bytes, connection: str | None) -> bool:
    """
    Return whether the connection persists after this request (RFC 9112, 9.3).

    :param connection: the joined values of all ``Connection`` fields; None without any.
    """
    if version != b"HTTP/1.1":
        return False
    if connection is None:
        return True
    return all(option.strip(" \t").lower() != "close" for option in connection.split(","))


def check_trailer(line: bytes) -> None:
    """
    Check a line of the trailer section. It is discarded, but another server could find its end elsewhere.

    :raises MessageMalformed: it is not a field line.
    """
    name, colon, value = line.partition(b":")
    if not colon or not _TOKEN.fullmatch(name) or _NO_VALUE.search(value):
        raise MessageMalformed(f"a trailer after the chunks must be a header line, got {_shown(line)}")


def has_bare_end(line: bytes) -> bool:
    """Return whether an incomplete line contains a bare CR or LF, which some servers accept as the line's end."""
    return b"\n" in line or b"\r" in line[:-1]


def _values(fields: Collection[Field], wanted: str) -> Sequence[bytes]:
    return [value.strip(b" \t") for name, value in fields if lower(name) == wanted]


def _refuse_coding(value: bytes) -> Refused:
    """Return the error for an invalid value of ``Transfer-Encoding``: malformed syntax, or an unsupported coding."""
    codings: Sequence[bytes] = [coding.strip(b" \t").lower() for coding in value.split(b",")]
    detail = f"Transfer-Encoding must be chunked and nothing else, got {_shown(value)}"
    if b"chunked" in codings[:-1] or not all(_TOKEN.fullmatch(coding) for coding in codings):
        return MessageMalformed(detail)
    return CodingUnsupported(detail)


def _shown(text: bytes) -> str:
    return repr(text[:_SHOWN].decode("latin-1"))
