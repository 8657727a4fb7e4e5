"""Schemes that differ only in what is signed and how the signature is written: said here, programmed once."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence
from enum import Enum

from attrs import field, frozen
from zope.interface import implementer

from harn.auth.freshness import TOLERANCE, check_fresh
from harn.connectors.signatures.comparing import any_equal
from harn.connectors.signatures.interfaces import Headers, IScheme
from harn.errors import SignatureMismatch, SignatureMissing


class Part(Enum):
    """A part of what is signed that differs from request to request."""

    BODY = "body"
    TIMESTAMP = "timestamp"


class Encoding(Enum):
    """How the digest is written."""

    HEX = "hex"
    BASE64 = "base64"


@implementer(IScheme)
@frozen(kw_only=True)
class HmacScheme:
    """
    An HMAC of the body, and mostly of a time stamp, that one header carries.

    A signature is compared as text: what is malformed equals nothing and needs no parsing.

    :ivar header: the header with the signature, spelled as the sender does.
    :ivar signed: what the HMAC is of: bytes as they are, and `Part`.
    :ivar prefix: what stands before the digest, for example ``sha256=``.
    :ivar timestamp_header: the header with the time (whole seconds, Unix); None where none is signed, or in an entry.
    :ivar entries: where the header is a list as ``t=1,v1=ab,v1=cd``: the names of its time and its signatures.
        Entries of other names do not count.
    """

    name: str
    header: str
    signed: tuple[bytes | Part, ...] = (Part.BODY,)
    prefix: str = ""
    timestamp_header: str | None = None
    entries: tuple[str, str] | None = None
    algorithm: str = "sha256"
    encoding: Encoding = Encoding.HEX
    signs_time: bool = field(init=False)

    @signs_time.default
    def _signs_time(self) -> bool:
        timed = Part.TIMESTAMP in self.signed
        if timed is (self.timestamp_header is None and self.entries is None):
            raise ValueError(f"scheme {self.name}: a time that is signed must be found somewhere, and no other")
        return timed

    def key(self, secret: bytes) -> bytes:
        """Take the secret as it is; see `IScheme`."""
        if not secret:
            raise ValueError("it is empty")
        return secret

    def verify(
        self, keys: Sequence[bytes], headers: Headers, body: bytes, now: float, tolerance: int = TOLERANCE
    ) -> None:
        """See `IScheme`."""
        self.check_headers(headers)
        given = headers[self.header.lower()]
        timestamp = None if self.timestamp_header is None else headers[self.timestamp_header.lower()]
        candidates: Sequence[str] = (given,)
        if self.entries is not None:
            timestamp, candidates = self._read_entries(given, *self.entries)
        if timestamp is not None:
            check_fresh(timestamp, now, tolerance)
        if not any_equal([self._signature(key, timestamp, body) for key in keys], candidates):
            raise SignatureMismatch(
                f"{self.header} does not match the body: another secret, or the body was altered on its way"
            )

    def check_headers(self, headers: Headers) -> None:
        """See `IScheme`."""
        for name in (self.timestamp_header, self.header):
            if name is not None and name.lower() not in headers:
                raise SignatureMissing(f"the header {name} is missing; is a secret set for the webhook at the sender?")

    def sign(self, key: bytes, body: bytes, now: float) -> dict[str, str]:
        """See `IScheme`."""
        timestamp = str(int(now)) if self.signs_time else None
        signature = self._signature(key, timestamp, body).decode("ascii")
        if self.entries is not None:
            return {self.header: f"{self.entries[0]}={timestamp},{self.entries[1]}={signature}"}
        times = {} if self.timestamp_header is None or timestamp is None else {self.timestamp_header: timestamp}
        return {**times, self.header: signature}

    def _read_entries(self, given: str, time_name: str, signature_name: str) -> tuple[str, list[str]]:
        """Give the time and the signatures of a list; which of two times was signed must not be ours to choose."""
        timestamps, candidates = [], []
        for entry in given.split(","):
            name, _, value = entry.strip().partition("=")
            if name == time_name:
                timestamps.append(value)
            elif name == signature_name:
                candidates.append(value)
        if len(timestamps) != 1:
            raise SignatureMismatch(f"{self.header} must have exactly one {time_name}, the time stamp")
        return timestamps[0], candidates

    def _signature(self, key: bytes, timestamp: str | None, body: bytes) -> bytes:
        """Write the signature that ``key`` makes."""
        values = {Part.BODY: body, Part.TIMESTAMP: (timestamp or "").encode("ascii")}
        signed = b"".join(values[part] if isinstance(part, Part) else part for part in self.signed)
        digest = hmac.digest(key, signed, self.algorithm)
        text = digest.hex().encode("ascii") if self.encoding is Encoding.HEX else base64.b64encode(digest)
        return self.prefix.encode("ascii") + text
