"""Twilio: messages, calls and their status, as forms, and JSON of event streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from harn.connectors.bodies import FORM, media_type, word
from harn.connectors.interfaces import Respond
from harn.connectors.receivers import ConfiguredProvider, Example, Message, SignedProvider, always, header
from harn.connectors.url_signatures import UrlScheme

_STATES = (("call", "CallStatus"), ("message", "MessageStatus"), ("message", "SmsStatus"))
_NAMES = (
    *("MessageSid", "CallSid", "AccountSid", "From", "To", "Body", "NumMedia", "Digits", "SpeechResult", "ErrorCode"),
)
_FIELDS = always(**{name: (name,) for name in _NAMES}, data=("data",))


def _read(headers: Mapping[str, str], body: bytes) -> Message | tuple[Message, ...]:
    """Parse a form, or the events of a stream."""
    return (Message.of if media_type(headers) == FORM else Message.each_of)(headers, body)


def _kind(message: Message) -> str:
    """Return the type of a stream's event, else ``message.received``, ``call.ringing``, ...; else ``webhook``."""
    states = ((prefix, word(message.at(name))) for prefix, name in _STATES)
    found = next((f"{prefix}.{state}" for prefix, state in states if state), None)
    return found or word(message.at("type")) or "webhook"


class TwilioSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[triggers.twilio]``."""

    url: Annotated[
        Annotated[str, msgspec.Meta(pattern="^https?://")] | None,
        msgspec.Meta(
            description="The URL as it is entered at Twilio, which signs it; default: made of the request's `Host`.",
        ),
    ] = None

    def declared(self) -> SignedProvider:
        """Return the declaration."""
        return SignedProvider(
            provider="twilio",
            home=__name__,
            scheme=UrlScheme(self.url),
            read=_read,
            kind=_kind,
            identity=header("I-Twilio-Idempotency-Token"),
            fields=_FIELDS,
            # TwiML without an instruction: nothing is said, and no message is sent back.
            acknowledgement=lambda message: _EMPTY,
            example=Example(
                body=b"MessageSid=SM1&SmsStatus=received&From=%2B15551230001&To=%2B15551230002&Body=hello&NumMedia=0",
                headers={"Content-Type": FORM, "Host": "example.com"},
            ),
        )


_EMPTY = Respond(status=200, body=b"<Response/>", content_type="text/xml; charset=utf-8")
TWILIO = ConfiguredProvider(provider="twilio", home=__name__, settings=TwilioSettings)
