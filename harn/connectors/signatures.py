"""Signature schemes of providers: an HMAC of parts of a request, as declarations, and that of Standard Webhooks."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from hmac import compare_digest

from attrs import field, frozen
from zope.interface import implementer

from harn.auth.credentials import TOLERANCE, check_fresh
from harn.clocks import rfc3339
from harn.connectors.bodies import unix_seconds
from harn.connectors.interfaces import Headers, IScheme
from harn.errors import SignatureMismatch, SignatureMissing, SignatureStale


def any_equal(expected: Iterable[bytes], given: Sequence[str]) -> bool:
    """
    Return whether any given signature equals any expected one. All pairs are compared, whatever matches on the way.

    Signatures are compared as text: a malformed one equals none and needs no parsing.
    """
    found = False
    candidates = [text.encode("utf-8", "replace") for text in given]
    for value in expected:
        for candidate in candidates:
            found |= compare_digest(value, candidate)
    return found


def as_sent(text: str) -> str:
    """Return the value of a header, which is read as Latin-1, as its sender wrote it: in UTF-8 where it is that."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


class Part(Enum):
    """A part of the signed bytes that differs from request to request."""

    BODY = "body"
    TIMESTAMP = "timestamp"


class Encoding(Enum):
    """The encoding of the digest."""

    HEX = "hex"
    BASE64 = "base64"
    BASE64URL = "base64url"


class TimeFormat(Enum):
    """The format of a time stamp."""

    SECONDS = "seconds"
    MILLISECONDS = "milliseconds"
    RFC3339 = "rfc3339"


_MILLISECONDS = re.compile(r"[0-9]{4,15}", re.ASCII)


def whole_seconds(timestamp: str, written: TimeFormat) -> str:
    """
    Return a time stamp as whole seconds (Unix), in decimal digits.

    :raises SignatureStale: it is malformed. Every other has ASCII characters only.
    """
    if written is TimeFormat.SECONDS:
        return timestamp
    if written is TimeFormat.MILLISECONDS and _MILLISECONDS.fullmatch(timestamp):
        return timestamp[:-3]
    moment = unix_seconds(timestamp) if written is TimeFormat.RFC3339 and timestamp.isascii() else None
    if moment is None or moment < 0:
        raise SignatureStale(f"the signature's timestamp must be in {written.value}")
    return str(int(moment))


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
    :ivar separator: for a header with several signatures, each with its prefix: the text between them.
    :ivar time_format: how the time is written.
    """

    name: str
    header: str
    signed: tuple[bytes | Part, ...] = (Part.BODY,)
    prefix: str = ""
    timestamp_header: str | None = None
    entries: tuple[str, str] | None = None
    algorithm: str = "sha256"
    encoding: Encoding = Encoding.HEX
    separator: str = ""
    time_format: TimeFormat = TimeFormat.SECONDS
    signs_time: bool = field(init=False)
    _signs_body_alone: bool = field(init=False)
    _stands_alone: bool = field(init=False)  # the header is one signature, and no time is signed
    _given_in: str = field(init=False)
    _timed_in: str | None = field(init=False)
    _written_before: bytes = field(init=False)

    @_signs_body_alone.default
    def _is_body_alone(self) -> bool:
        return self.signed == (Part.BODY,)

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

    @_stands_alone.default
    def _is_header_alone(self) -> bool:
        return not self.signs_time and self.entries is None and not self.separator

    def key(self, secret: bytes) -> bytes:
        """Return the secret unchanged; see `IScheme`."""
        if not secret:
            raise ValueError("it is empty")
        return secret

    def verify(
        self, keys: Sequence[bytes], headers: Headers, body: bytes, now: float, tolerance: int = TOLERANCE
    ) -> None:
        """See `IScheme`."""
        given = headers.get(self._given_in)
        if given and self._stands_alone and self._signs_body_alone:  # as most senders sign
            signed, candidates = body, [given.encode("utf-8", "replace")]
        else:
            timestamp, texts = self._given(headers, now, tolerance)
            signed = body if self._signs_body_alone else self._parts(timestamp, body)
            candidates = [text.encode("utf-8", "replace") for text in texts]
        # All pairs are compared, whatever matches on the way, as in `any_equal`.
        found = False
        for key in keys:
            expected = self._written(key, signed)
            for candidate in candidates:
                found |= compare_digest(expected, candidate)
        if not found:
            raise self._mismatch()

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
        timestamp = self._time_of(now)
        return self._headers(timestamp, self._signature(key, timestamp, body).decode("ascii"))

    def _time_of(self, now: float) -> str | None:
        """Return the time stamp of ``now``; None if none is signed."""
        if not self.signs_time:
            return None
        if self.time_format is TimeFormat.RFC3339:
            return rfc3339(float(int(now)))
        return str(int(now)) if self.time_format is TimeFormat.SECONDS else str(int(now * 1000))

    def _headers(self, timestamp: str | None, signature: str) -> dict[str, str]:
        """Return the headers with a time stamp and a signature."""
        if self.entries is not None:
            return {self.header: f"{self.entries[0]}={timestamp},{self.entries[1]}={signature}"}
        times = {} if self.timestamp_header is None or timestamp is None else {self.timestamp_header: timestamp}
        return {**times, self.header: signature}

    def _given(self, headers: Headers, now: float, tolerance: int) -> tuple[str | None, Sequence[str]]:
        """
        Return the time stamp and the signatures of a request.

        :raises SignatureMissing: a header is absent.
        :raises SignatureStale: the time is malformed, or outside the window; every other is ASCII.
        :raises SignatureMismatch: the header is malformed.
        """
        given = headers.get(self._given_in, "")
        self.check_headers(headers)
        timestamp = None if self._timed_in is None else headers[self._timed_in]
        candidates: Sequence[str] = (given,)
        if self.entries is not None:
            timestamp, candidates = self._read_entries(given, *self.entries)
        elif self.separator:
            candidates = [each.strip() for each in given.split(self.separator)]
        if timestamp is not None:
            check_fresh(whole_seconds(timestamp, self.time_format), now, tolerance)
        return timestamp, candidates

    def _mismatch(self) -> SignatureMismatch:
        """Make the error of a signature that no key made."""
        return SignatureMismatch(
            f"{self.header} does not match the body: another secret, or the body was altered on its way"
        )

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

    def _parts(self, timestamp: str | None, body: bytes) -> bytes:
        """Return the signed bytes."""
        stamp = b"" if timestamp is None else timestamp.encode("ascii")
        parts = [body if part is Part.BODY else stamp if part is Part.TIMESTAMP else part for part in self.signed]
        return b"".join(parts)

    def _signature(self, key: bytes, timestamp: str | None, body: bytes) -> bytes:
        """Return the signature that ``key`` makes."""
        return self._written(key, body if self._signs_body_alone else self._parts(timestamp, body))

    def _written(self, key: bytes, signed: bytes) -> bytes:
        """Return the digest of ``signed``, as it is written in the header."""
        digest = hmac.digest(key, signed, self.algorithm)
        if self.encoding is Encoding.HEX:
            return self._written_before + binascii.hexlify(digest)
        if self.encoding is Encoding.BASE64:
            return self._written_before + base64.b64encode(digest)
        return self._written_before + base64.urlsafe_b64encode(digest).rstrip(b"=")


STANDARD_PREFIX = b"whsec_"
STANDARD_PARTS = ("id", "timestamp", "signature")
"""Ends of the headers' names, after ``webhook-`` or ``svix-``."""

EXAMPLE_ID = "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W"


def decode_standard_secret(secret: bytes) -> bytes:
    """
    Return the key of ``secret``: base64 after an optional ``whsec_``; padding may be missing.

    No other text is accepted as a key: a sender would decode it as base64, and every signature would be wrong.

    :raises ValueError: not base64, or empty; the message does not quote it.
    """
    encoded = secret.strip().removeprefix(STANDARD_PREFIX).rstrip(b"=")
    try:
        key = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError("it must be base64, as Standard Webhooks requires (whsec_ and base64 of the key)") from error
    if not key:
        raise ValueError("it is empty")
    return key


def sign_standard(key: bytes, message_id: str, timestamp: str, body: bytes) -> bytes:
    """Return the base64 of one ``v1`` signature."""
    signed = b"%b.%b.%b" % (message_id.encode("latin-1", "replace"), timestamp.encode("ascii"), body)
    return base64.b64encode(hmac.digest(key, signed, "sha256"))


def verify_standard(
    keys: Sequence[bytes],
    message_id: str | None,
    timestamp: str | None,
    body: bytes,
    signatures: str | None,
    now: float,
    tolerance: int = TOLERANCE,
) -> None:
    """
    Check that the sender signed ``body`` with one of ``keys``, and did so recently.

    :param keys: as `decode_secret` returns them.
    :param message_id: ``webhook-id``; None if absent, like the other two.
    :param timestamp: ``webhook-timestamp``: decimal seconds, Unix, as received.
    :param body: the request body before any decoding.
    :param signatures: ``webhook-signature``: ``v1,<base64>``, several separated by spaces; other versions do not count.
    :param now: seconds, Unix.
    :param tolerance: seconds either way, inclusive.
    :raises SignatureMissing: one of the headers is absent.
    :raises SignatureStale: ``timestamp`` is malformed or more than ``tolerance`` from ``now``.
    :raises SignatureMismatch: no key made any ``v1`` (compared in constant time).

    Source: Standard Webhooks specification 1.0, "Verifying webhook authenticity".
    """
    if message_id is None or timestamp is None or signatures is None:
        absent = {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": signatures}
        names = ", ".join(name for name, value in absent.items() if value is None)
        raise SignatureMissing(f"missing: {names} (or the svix- headers of the same meaning)")
    check_fresh(timestamp, now, tolerance)
    # A repeated header arrives joined by ", ": a comma at the end of a part does not belong to a signature.
    entries = [entry.rstrip(",").partition(",") for entry in signatures.split()]
    candidates = [value for version, _, value in entries if version == "v1"]
    if not any_equal([sign_standard(key, message_id, timestamp, body) for key in keys], candidates):
        raise SignatureMismatch(
            "no v1 of webhook-signature matches: another secret, or identifier, timestamp or body were altered"
        )


def signed_id(headers: Headers) -> str | None:
    """
    Return the identifier that is signed with the body, as Standard Webhooks defines it; None if absent.

    One of the other family of headers is not signed: it could make a captured request look new.
    """
    found = headers.get(f"{_family(headers)}-id")
    return headers.get("svix-id") if found is None else found


def _family(headers: Headers) -> str:
    """Return the family of headers that counts: ``webhook``, or ``svix`` where that alone has a signature."""
    return "webhook" if "webhook-signature" in headers or "svix-signature" not in headers else "svix"


@implementer(IScheme)
class StandardScheme:
    """Standard Webhooks, also under the names of Svix."""

    name = "standard"

    def key(self, secret: bytes) -> bytes:
        """See `IScheme`."""
        return decode_standard_secret(secret)

    def verify(
        self, keys: Sequence[bytes], headers: Headers, body: bytes, now: float, tolerance: int = TOLERANCE
    ) -> None:
        """See `IScheme`."""
        # All three headers of one family: no sender mixes them.
        message_id, timestamp, signatures = (headers.get(f"{_family(headers)}-{part}") for part in STANDARD_PARTS)
        verify_standard(keys, message_id, timestamp, body, signatures, now, tolerance)

    def check_headers(self, headers: Headers) -> None:
        """See `IScheme`."""
        if not any(all(f"{family}-{part}" in headers for part in STANDARD_PARTS) for family in ("webhook", "svix")):
            self.verify((), headers, b"", 0.0, 0)  # raises with the names of missing headers

    def sign(self, key: bytes, body: bytes, now: float, message_id: str = EXAMPLE_ID) -> dict[str, str]:
        """See `IScheme`."""
        timestamp = str(int(now))
        signature = "v1," + sign_standard(key, message_id, timestamp, body).decode("ascii")
        return {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": signature}
