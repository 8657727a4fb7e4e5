"""Fixtures: a delivery's event as a JSON document, to be fed to a handler in a test, or to another server."""

from __future__ import annotations

import base64
import binascii
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, UnsetType

from harn.model.event import Envelope, TriggerEvent

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
