"""Content codings, decoded piece by piece, so that the size of the decoded content is bounded."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping

import brotli

from harn.errors import BodyTooLarge, MediaTypeUnsupported, PayloadInvalid

ACCEPTED = "gzip, deflate, br"
"""The value of ``Accept-Encoding``."""
_CODINGS = frozenset(("gzip", "x-gzip", "deflate", "br"))

_MOST_CODINGS = 4
_MOST_MEMBERS = 1000
_SLICE = 64 * 1024
_PIECE = 1024 * 1024
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


def codings_of(headers: Mapping[str, str]) -> tuple[str, ...]:
    """
    Return the codings of a body, in the order in which they were applied; empty for most requests.

    :param headers: names in lower case.
    """
    value = headers.get("content-encoding")
    if value is None:
        return ()
    names = (name.strip().lower() for name in value.split(","))
    return tuple(name for name in names if name not in ("", "identity"))


def decode(body: bytes, codings: tuple[str, ...], limit: int) -> bytes:
    """
    Decode a body. May take long for anything but a small body: run it in a thread.

    :param limit: the largest size of the content after each coding is decoded (bytes).
    :raises MediaTypeUnsupported: a coding is unknown, or there are too many.
    :raises BodyTooLarge: the decoded content is larger than ``limit``.
    :raises PayloadInvalid: the body is not encoded as declared, or is incomplete.
    """
    unknown = [name for name in codings if name not in _CODINGS]
    if unknown:
        raise MediaTypeUnsupported(f"Content-Encoding must be of {ACCEPTED}, got {unknown[0][:40]!r}")
    if len(codings) > _MOST_CODINGS:
        raise MediaTypeUnsupported(f"Content-Encoding must have at most {_MOST_CODINGS} codings, got {len(codings)}")
    if not body:
        return body
    for name in reversed(codings):
        body = _bounded(_pieces(name, body), name, limit)
    return body


def _pieces(coding: str, body: bytes) -> Iterator[bytes]:
    """Yield the pieces of a body decoded from one of `_CODINGS`."""
    if coding == "br":
        return _brotli(body)
    return _deflate(body) if coding == "deflate" else _inflate(body, _GZIP, members=_MOST_MEMBERS)


def _bounded(pieces: Iterator[bytes], name: str, limit: int) -> bytes:
    """Collect the pieces of one decoder, up to the limit."""
    decoded = bytearray()
    try:
        for piece in pieces:
            decoded += piece
            if len(decoded) > limit:
                raise BodyTooLarge(f"the body is larger than {limit} bytes when its {name} is decoded")
    except (zlib.error, brotli.error) as error:
        raise PayloadInvalid(f"the body must be {name}, as Content-Encoding declares") from error
    return bytes(decoded)


def _inflate(body: bytes, wbits: int, *, members: int = 1) -> Iterator[bytes]:
    """Yield the pieces of a body decoded from a zlib format, of at most ``members`` members in sequence."""
    decoder = zlib.decompressobj(wbits)
    for start in range(0, len(body), _SLICE):
        data = body[start : start + _SLICE]
        while data:
            if decoder.eof:
                members -= 1
                if members < 1:
                    raise zlib.error("trailing data")
                decoder = zlib.decompressobj(wbits)
            yield decoder.decompress(data, _PIECE)
            data = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
    while not decoder.eof:
        piece = decoder.decompress(b"", _PIECE)
        if not piece and not decoder.eof:
            raise PayloadInvalid("the body ends before its Content-Encoding does; part of it is missing")
        yield piece


def _deflate(body: bytes) -> Iterator[bytes]:
    """Yield the pieces of a body decoded from the zlib format of RFC 9110, or from the raw DEFLATE of some senders."""
    has_header = len(body) > 1 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    return _inflate(body, _ZLIB if has_header else _RAW)


def _brotli(body: bytes) -> Iterator[bytes]:
    """Decode brotli; trailing data is an error of the decoder's own."""
    decoder = brotli.Decompressor()
    for start in range(0, len(body), _SLICE):
        yield decoder.process(body[start : start + _SLICE], output_buffer_limit=_PIECE)
        while not decoder.can_accept_more_data():
            yield decoder.process(b"", output_buffer_limit=_PIECE)
    if not decoder.is_finished():
        raise PayloadInvalid("the body ends before its Content-Encoding does; part of it is missing")
