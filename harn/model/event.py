"""
The event in the common envelope: its body, JSON as senders write it; and the fixture, a JSON document
with an event that is fed to a handler in a test, or to another server.

Parsers are stricter than RFC 8259 needs, and a body that the edge accepts must be readable by a handler, whose
interpreter's child process imports this module, too.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final, Literal
from urllib.parse import parse_qs

import msgspec
from msgspec import UNSET, UnsetType

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

# Escapes within strings, from left to right, so that the backslash of an escaped backslash begins none. A pair of
# surrogates is one match; the second alternative matches a surrogate without a partner.
_ESCAPES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\.", re.DOTALL
)
_REPLACEMENT = rb"\ufffd"

DEEPEST = 500
"""The most levels of nesting. Parsers and writers may fail on deeper text, depending on their caller's stack."""

# A string without an end matches to the end of the text. Otherwise each quote in it would be tried as a beginning.
_BRACKETS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|([\[{])|([\]}])', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SLICE = 256 * 1024


def mended(text: bytes) -> bytes:
    """
    Return JSON text without a byte order mark, and with U+FFFD for each escape of half a surrogate pair.

    RFC 8259 lets a parser ignore the mark (section 8.1), and its grammar allows such escapes (section 8.2): senders
    make them where they cut a text in the middle of an emoji. Text without either is returned unchanged.
    """
    text = text.removeprefix(BYTE_ORDER_MARK)
    if b"\\u" not in text:
        return text
    return _ESCAPES.sub(lambda match: match[0] if match[1] is None else _REPLACEMENT, text)


def is_too_deep(text: bytes) -> bool:
    """
    Return whether JSON text is nested deeper than `DEEPEST`.

    Counts all brackets first, including those in strings; only text that seems too deep by them is examined exactly.
    """
    if text.count(b"[") + text.count(b"{") <= DEEPEST:
        return False
    depth = deepest = 0
    for piece in slices(text):
        brackets = piece.translate(None, _NO_BRACKETS)
        depths = list(accumulate((1 if byte in b"[{" else -1 for byte in brackets), initial=depth))
        depth, deepest = depths[-1], max(deepest, *depths)
    if deepest <= DEEPEST:
        return False
    depth = deepest = 0
    for match in _BRACKETS.finditer(text):
        if match[1] is not None:
            depth += 1
            deepest = max(deepest, depth)
        elif match[2] is not None:
            depth -= 1
    return deepest > DEEPEST


def slices(text: bytes, overlap: int = 0) -> Iterator[bytes]:
    """Yield pieces short enough not to block other threads for long; each but the first repeats ``overlap`` bytes."""
    for start in range(0, len(text), _SLICE):
        yield text[max(0, start - overlap) : start + _SLICE]


VERIFIED: dict[str, str] = {"state": "verified"}
UNSIGNED: dict[str, str] = {"state": "unsigned"}


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """
    The common envelope, as it is stored and as it crosses to the interpreter.

    ``received_at`` and ``occurred_at`` are RFC 3339 in UTC; ``headers`` are as received, without the server's own
    credentials, with lower-case names; ``payload`` holds the provider's fields that are not in the body; ``lifted``
    maps the name of each other field to its path in the parsed body; ``body_format`` is ``json``, ``form`` (a form
    whose field ``payload`` is JSON), ``fields`` (any other form), ``bytes`` or ``none``. ``trace_link`` is there where
    the event is not of the request that its headers describe: of a replay, the ``traceparent`` of the event that it
    repeats; of an imported one, empty.
    """

    id: str
    provider: str
    kind: str
    received_at: str
    occurred_at: str | None = None
    dedupe_key: str
    trace_id: str
    tenant_id: str | None = None
    headers: dict[str, str]
    signature_status: dict[str, str]
    payload: dict[str, Any]
    lifted: dict[str, list[str]]
    body_format: str
    trace_link: str | UnsetType = UNSET


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Envelope)


encode_envelope = _encoder.encode
"""Encodes an `Envelope` for the store and for the interpreter (JSON): the encoder's own method, for every event."""


def decode_envelope(data: bytes) -> Envelope:
    """
    Decode the bytes that `encode_envelope` returned.

    :raises msgspec.DecodeError: it is something else.
    """
    return _decoder.decode(data)


def parse_body(body_format: str, body: bytes) -> Any:
    """
    Return the parsed body: the JSON value, or a dict of a form's fields, or None for no body.

    A body that cannot be parsed is returned as ``{"raw_base64", "raw_utf8"}``.
    """
    if body_format == "none":
        return None
    try:
        if body_format == "json":
            return _parse_json(body)
        if body_format in ("form", "fields"):
            form = parse_qs(body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
            fields = {name: values[0] for name, values in form.items()}
            return fields if body_format == "fields" else _parse_json(fields["payload"].encode())
    except (ValueError, KeyError, RecursionError):
        # Connectors refuse bodies that cannot be parsed; rows of earlier versions may hold some.
        pass
    try:
        text: str | None = body.decode("utf-8")
    except UnicodeDecodeError:
        text = None
    return {"raw_base64": base64.b64encode(body).decode("ascii"), "raw_utf8": text}


def _parse_json(text: bytes) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, ValueError):
        return msgspec.json.decode(mended(text))


class TriggerEvent:
    """
    The event as handlers, predicates, filters and dedupe keys see it.

    Attributes are the fields of the envelope, and ``raw_body`` (bytes as received, without their content coding) and
    ``provider_payload`` (a dict with the provider's fields and ``raw``, the whole parsed body). ``to_dict()`` returns
    the JSON form.
    """

    __slots__ = ("_envelope", "_payload", "raw_body")

    raw_body: bytes

    def __init__(self, envelope: Envelope, body: bytes) -> None:
        self._envelope = envelope
        self._payload: dict[str, Any] | None = None
        self.raw_body = body

    @property
    def id(self) -> str:
        """``trigger_evt_`` and a UUIDv7."""
        return self._envelope.id

    @property
    def provider(self) -> str:
        """The provider's id, for example ``github``."""
        return self._envelope.provider

    @property
    def kind(self) -> str:
        """The kind of event, in the provider's words, for example ``issues.opened``."""
        return self._envelope.kind

    @property
    def received_at(self) -> str:
        """When the request was complete: RFC 3339, UTC."""
        return self._envelope.received_at

    @property
    def occurred_at(self) -> str | None:
        """When it happened, if the provider says so: RFC 3339."""
        return self._envelope.occurred_at

    @property
    def dedupe_key(self) -> str:
        """The provider's own id of this delivery."""
        return self._envelope.dedupe_key

    @property
    def trace_id(self) -> str:
        """``trace_`` and a UUIDv7, one for each request."""
        return self._envelope.trace_id

    @property
    def trace_link(self) -> str | None:
        """The ``traceparent`` of the event that a replay repeats; empty for an imported event, else None."""
        link = self._envelope.trace_link
        return None if link is UNSET else link

    @property
    def tenant_id(self) -> str | None:
        """The tenant, if any."""
        return self._envelope.tenant_id

    @property
    def headers(self) -> dict[str, str]:
        """The request's headers, names in lower case, as received except for harn's own credentials."""
        return self._envelope.headers

    @property
    def signature_status(self) -> dict[str, str]:
        """``{"state": "verified"}`` or ``{"state": "unsigned"}``."""
        return self._envelope.signature_status

    @property
    def provider_payload(self) -> dict[str, Any]:
        """The provider's fields, and ``raw``, the whole parsed body."""
        if self._payload is None:
            envelope = self._envelope
            raw = parse_body(envelope.body_format, self.raw_body)
            payload: dict[str, Any] = {"provider": envelope.provider, **envelope.payload}
            for name, path in envelope.lifted.items():
                value = raw
                for step in path:
                    value = value.get(step) if isinstance(value, dict) else None
                payload[name] = value
            payload["raw"] = raw
            self._payload = payload
        return self._payload

    def to_dict(self) -> dict[str, Any]:
        """Return the event's JSON form; ``raw_body`` is base64, and absent if there was no body."""
        envelope = self._envelope
        document: dict[str, Any] = {
            "id": envelope.id,
            "provider": envelope.provider,
            "kind": envelope.kind,
            "received_at": envelope.received_at,
            "occurred_at": envelope.occurred_at,
            "dedupe_key": envelope.dedupe_key,
            "trace_id": envelope.trace_id,
            "tenant_id": envelope.tenant_id,
            "headers": envelope.headers,
            "provider_payload": self.provider_payload,
            "signature_status": envelope.signature_status,
        }
        if self.raw_body:
            document["raw_body"] = base64.b64encode(self.raw_body).decode("ascii")
        return document

    def __repr__(self) -> str:
        return f"<TriggerEvent {self.id} {self.provider} {self.kind}>"


FORMAT: Final = "harn-fixture/1"


class Fixture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    One event.

    ``envelope`` has the fields of `Envelope`, secrets replaced by ``[redacted]``; the body is ``body`` where it is
    UTF-8, else ``body_base64``; neither for an empty one. ``redacted`` says whether anything was replaced.
    """

    format: Literal["harn-fixture/1"] = FORMAT
    trigger_id: str
    redacted: bool = False
    envelope: Envelope
    body: str | UnsetType = UNSET
    body_base64: str | UnsetType = UNSET

    def __post_init__(self) -> None:
        """
        Check the body.

        :raises ValueError: there are two, or the base64 is wrong.
        """
        if self.body is not UNSET and self.body_base64 is not UNSET:
            raise ValueError("must have body or body_base64, got both")
        self.raw_body()

    def raw_body(self) -> bytes:
        """Return the body's bytes."""
        if self.body_base64 is not UNSET:
            try:
                return base64.b64decode(self.body_base64, validate=True)
            except (binascii.Error, ValueError):
                raise ValueError("body_base64 must be base64") from None
        return b"" if self.body is UNSET else self.body.encode("utf-8", "surrogatepass")

    def event(self) -> TriggerEvent:
        """Return the event as a handler gets it."""
        return TriggerEvent(self.envelope, self.raw_body())


def make_fixture(trigger_id: str, envelope: Envelope, body: bytes, *, redacted: bool) -> Fixture:
    """Return the fixture of an event."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        encoded = base64.b64encode(body).decode("ascii")
        return Fixture(trigger_id=trigger_id, redacted=redacted, envelope=envelope, body_base64=encoded)
    return Fixture(trigger_id=trigger_id, redacted=redacted, envelope=envelope, body=text if body else UNSET)


def fixture_document(fixture: Fixture) -> dict[str, Any]:
    """Return a fixture as a JSON document, its format first."""
    document: dict[str, Any] = msgspec.to_builtins(fixture)
    return {"format": FORMAT, **document}


def read_fixture(document: Any) -> Fixture:
    """
    Read a fixture out of a decoded JSON document.

    :raises ValueError: it is something else; says where and what is wrong.
    """
    try:
        if not isinstance(document, dict) or "format" not in document:
            raise ValueError(f"format: must be {FORMAT!r}, got nothing")
        return msgspec.convert(document, Fixture)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
