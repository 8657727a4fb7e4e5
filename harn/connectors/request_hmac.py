"""
An HMAC over any parts of a request, given as a template such as ``v0:{timestamp}:{body}``.

One part may be the URL as its sender wrote it, which a proxy may have changed on the way.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Literal

from attrs import field, frozen
from msgspec import structs
from zope.interface import implementer

from harn.connectors.interfaces import Headers, IRequestScheme
from harn.connectors.signatures import Encoding, HmacScheme, Part, any_equal
from harn.errors import SignatureMissing
from harn.model.exchange import InboundRequest

FIELD_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
"""The name of a header (RFC 9110, section 5.6.2)."""
_FIELD_NAME = re.compile(FIELD_NAME)
_PIECE = re.compile(r"\{([^{}]*)\}")
_NAMES = ("body", "timestamp", "method", "path", "query", "url")
_HEADER = "header:"
_PORTS = {"https": "443", "http": "80"}

Piece = bytes | str
"""Constant bytes, or the name of a part: one of `_NAMES`, or ``header:`` and a name in lower case."""
KeyEncoding = Literal["text", "base64", "hex"]


def is_token(text: str) -> bool:
    """Return whether a text can be the name of a header."""
    return _FIELD_NAME.fullmatch(text) is not None


def read_template(text: str) -> tuple[Piece, ...]:
    """
    Return the pieces of a template.

    :raises ValueError: it has an unknown part, or a brace that belongs to none.
    """
    pieces: list[Piece] = []
    for number, piece in enumerate(_PIECE.split(text)):
        if number % 2:
            if piece not in _NAMES and not (piece.startswith(_HEADER) and is_token(piece.removeprefix(_HEADER))):
                known = ", ".join(f"{{{name}}}" for name in (*_NAMES, "header:X-Name"))
                raise ValueError(f"{{{piece}}} is not a part of a request; known: {known}")
            pieces.append(piece.lower())
        elif "{" in piece or "}" in piece:
            raise ValueError("a brace stands alone; write parts as {body}")
        elif piece:
            pieces.append(piece.encode("utf-8"))
    return tuple(pieces)


@implementer(IRequestScheme)
@frozen(kw_only=True)
class RequestHmac(HmacScheme):
    """
    An HMAC in the form of `HmacScheme`, of more than time and body.

    :ivar pieces: what is signed; see `read_template`.
    :ivar key_encoding: how the key is written in the secret.
    """

    pieces: tuple[Piece, ...] = ("body",)
    key_encoding: KeyEncoding = "text"
    _read: tuple[str, ...] = field(init=False)

    @_read.default
    def _headers_read(self) -> tuple[str, ...]:
        names = [piece for piece in self.pieces if isinstance(piece, str) and piece.startswith(_HEADER)]
        return tuple(name.removeprefix(_HEADER) for name in names)

    @classmethod
    def parts(cls, pieces: tuple[Piece, ...]) -> tuple[bytes | Part, ...]:
        """Return the value of ``signed``, in which only the time counts."""
        return (Part.TIMESTAMP, Part.BODY) if "timestamp" in pieces else (Part.BODY,)

    def key(self, secret: bytes) -> bytes:
        """See `IRequestScheme`."""
        try:
            if self.key_encoding == "base64":
                secret = base64.b64decode(secret, validate=True)
            elif self.key_encoding == "hex":
                secret = bytes.fromhex(secret.decode("ascii"))
        except (binascii.Error, ValueError):
            raise ValueError(f"it must be {self.key_encoding}, as key_encoding says") from None
        return super().key(secret)

    def check_headers(self, headers: Headers) -> None:
        """See `IRequestScheme`."""
        super().check_headers(headers)
        for name in self._read:
            if name not in headers:
                raise SignatureMissing(f"the header {name}, which is signed, is missing")

    def verify_request(self, keys: Sequence[bytes], request: InboundRequest, now: float, tolerance: int) -> None:
        """See `IRequestScheme`."""
        self.check_headers(request.headers)
        timestamp, candidates = self._given(request.headers, now, tolerance)
        urls = urls_of(request) if "url" in self.pieces else ("",)
        signed = [self._signed(request, timestamp, url) for url in urls]
        expected = [self._written(key, each) for key in keys for each in signed]
        if self.encoding is Encoding.HEX:  # digits and prefix may be in capitals, on both sides
            expected, candidates = [each.lower() for each in expected], [given.lower() for given in candidates]
        elif self.encoding is Encoding.BASE64URL:
            candidates = [given.rstrip("=") for given in candidates]
        if not any_equal(expected, candidates):
            raise self._mismatch()

    def sign_request(self, key: bytes, request: InboundRequest, now: float) -> InboundRequest:
        """See `IRequestScheme`."""
        timestamp = self._time_of(now)
        written = self._written(key, self._signed(request, timestamp, urls_of(request)[0])).decode("ascii")
        added = {name.lower(): value for name, value in self._headers(timestamp, written).items()}
        return structs.replace(request, headers={**request.headers, **added})

    def _signed(self, request: InboundRequest, timestamp: str | None, url: str) -> bytes:
        query = f"?{request.query}" if request.query else ""
        texts = {
            "timestamp": timestamp or "",
            "method": request.method,
            "path": request.path + query,
            "query": request.query,
            "url": url,
        }
        parts = []
        for piece in self.pieces:
            if isinstance(piece, bytes):
                parts.append(piece)
            elif piece == "body":
                parts.append(request.body)
            else:
                name = piece.removeprefix(_HEADER)
                text = request.headers.get(name, "") if piece.startswith(_HEADER) else texts[piece]
                parts.append(text.encode("latin-1", "replace"))
        return b"".join(parts)


def urls_of(request: InboundRequest, configured: str | None = None) -> tuple[str, ...]:
    """
    Return the URLs that the sender may have requested, the likeliest first.

    :param configured: the URL as it is entered at the sender, whose query does not count; None: it is made of ``Host``,
        for HTTPS and for HTTP, with and without a port.
    """
    query = f"?{request.query}" if request.query else ""
    if configured is not None:
        return (configured.partition("?")[0] + query,)
    host = request.headers.get("host", "")
    name, colon, port = host.rpartition(":")
    bare = name if colon and port.isdigit() else host
    return tuple(
        f"{scheme}://{authority}{request.path}{query}"
        for scheme, default in _PORTS.items()
        for authority in dict.fromkeys((host, bare, f"{bare}:{default}"))
    )
