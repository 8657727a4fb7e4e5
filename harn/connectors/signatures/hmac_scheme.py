"""HMAC schemes that differ only in the signed bytes and in how the signature is written, as declarations."""

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
    """A part of the signed bytes that differs from request to request."""

    BODY = "body"
    TIMESTAMP = "timestamp"


class Encoding(Enum):
    """The encoding of the digest."""

    HEX = "hex"
    BASE64 = "base64"


@implementer(IScheme)
@frozen(kw_only=True)
class HmacScheme:
    """
    An HMAC of the body, and usually of a time stamp, in one header.

    A signature is compared as text: a malformed one equals none and needs no parsing.

    :ivar header: the header with the signature, spelled as the sender does.
    :ivar signed: the bytes that are signed: constant bytes, and each `Part`.
    :ivar prefix: text before the digest, for example ``sha256=``.
    :ivar timestamp_header: the header with the time (whole seconds, Unix); None if no time is signed, or it is an
        entry.
    :ivar entries: for a header that is a list as ``t=1,v1=ab,v1=cd``: the names of its time and its signatures. Entries
        of other names do not count.
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
    _given_in: str = field(init=False)
    _timed_in: str | None = field(init=False)
    _written_before: bytes = field(init=False)

    @_given_in.default
    def _lower_header(self) -> str:
        return self.header.lower()

    @_timed_in.default
    def _lower_timestamp_header(self) -> str | None:
        return None if self.timestamp_header is None else self.timestamp_header.lower()

    @_written_before.default
    def _encoded_prefix(self) -> bytes:
        return self.prefix.encode("ascii")

    @signs_time.default
    def _signs_time(self) -> bool:
        timed = Part.TIMESTAMP in self.signed
        if timed is (self.timestamp_header is None and self.entries is None):
            raise ValueError(f"scheme {self.name}: a time that is signed must be found somewhere, and no other")
        return timed

    def key(self, secret: bytes) -> bytes:
        """Return the secret unchanged; see `IScheme`."""
        if not secret:
            raise ValueError("it is empty")
        return secret

    def verify(
        self, keys: Sequence[bytes], headers: Headers, body: bytes, now: float, tolerance: int = TOLERANCE
    ) -> None:
        """See `IScheme`."""
        self.check_headers(headers)
        given = headers[self._given_in]
        timestamp = None if self._timed_in is None else headers[self._timed_in]
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
        if self._timed_in is not None and self._timed_in not in headers:
            missing = self.timestamp_header
        elif self._given_in not in headers:
            missing = self.header
        else:
            return
        raise SignatureMissing(f"the header {missing} is missing; is a secret set for the webhook at the sender?")

    def sign(self, key: bytes, body: bytes, now: float) -> dict[str, str]:
        """See `IScheme`."""
        timestamp = str(int(now)) if self.signs_time else None
        signature = self._signature(key, timestamp, body).decode("ascii")
        if self.entries is not None:
            return {self.header: f"{self.entries[0]}={timestamp},{self.entries[1]}={signature}"}
        times = {} if self.timestamp_header is None or timestamp is None else {self.timestamp_header: timestamp}
        return {**times, self.header: signature}

    def _read_entries(self, given: str, time_name: str, signature_name: str) -> tuple[str, list[str]]:
        """Return the time and the signatures of a list; exactly one time is allowed, since only one can be signed."""
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
        """Return the signature that ``key`` makes."""
        stamp = b"" if timestamp is None else timestamp.encode("ascii")
        parts = [body if part is Part.BODY else stamp if part is Part.TIMESTAMP else part for part in self.signed]
        digest = hmac.digest(key, parts[0] if len(parts) == 1 else b"".join(parts), self.algorithm)
        text = digest.hex().encode("ascii") if self.encoding is Encoding.HEX else base64.b64encode(digest)
        return self._written_before + text
