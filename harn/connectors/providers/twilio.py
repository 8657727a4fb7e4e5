"""
Twilio: messages, calls and their status, as forms, and JSON of event streams.

Its signature is an HMAC over the URL and the form, or over a URL that has the digest of another body.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Annotated
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct, structs
from zope.interface import implementer

from harn.connectors.bodies import FORM, media_type, word
from harn.connectors.interfaces import Headers, IRequestScheme, Respond
from harn.connectors.receivers import ConfiguredProvider, Example, Message, SignedProvider, always, header
from harn.connectors.request_hmac import urls_of
from harn.connectors.signatures import any_equal
from harn.errors import SignatureMismatch, SignatureMissing
from harn.model.exchange import InboundRequest

_HEADER = "x-twilio-signature"
_SETTINGS = "x-twilio-webhooks-signature-settings"
_DIGEST = "bodySHA256"
_MOST_FIELDS = 1000
_STATES = (("call", "CallStatus"), ("message", "MessageStatus"), ("message", "SmsStatus"))
_FIELDS = always(
    *("MessageSid", "CallSid", "AccountSid", "From", "To", "Body", "NumMedia", "Digits", "SpeechResult", "ErrorCode"),
    "data",
)


def _kind(message: Message) -> str:
    """Return the type of a stream's event, else ``message.received``, ``call.ringing``, ...; else ``webhook``."""
    states = ((prefix, word(message.at(name))) for prefix, name in _STATES)
    found = next((f"{prefix}.{state}" for prefix, state in states if state), None)
    return found or word(message.at("type")) or "webhook"


@implementer(IRequestScheme)
class TwilioScheme(Struct, frozen=True):
    """
    The signature of ``X-Twilio-Signature``.

    :ivar url: the URL as it is entered at Twilio; None: it is made of the request's ``Host``.

    Source: Twilio, "Webhooks Security", and the library ``twilio`` 9.13, ``request_validator.py``.
    """

    url: str | None = None
    name = "twilio"

    def key(self, secret: bytes) -> bytes:
        """See `IRequestScheme`."""
        if not secret:
            raise ValueError("it is empty")
        return secret

    def check_headers(self, headers: Headers) -> None:
        """See `IRequestScheme`."""
        if _HEADER not in headers:
            raise SignatureMissing("the header X-Twilio-Signature is missing; is this a request of Twilio?")

    def verify_request(self, keys: Sequence[bytes], request: InboundRequest, now: float, tolerance: int) -> None:
        """See `IRequestScheme`."""
        self.check_headers(request.headers)
        signed = _signed_after_url(request)
        sha256 = "algorithm=hmac_sha256" in request.headers.get(_SETTINGS, "").lower().replace(" ", "")
        made = [
            _signature(key, url, signed, "sha256" if sha256 else "sha1")
            for url in urls_of(request, self.url)
            for key in keys
        ]
        if not any_equal(made, [request.headers[_HEADER]]):
            raise SignatureMismatch(
                "X-Twilio-Signature does not match URL and body: another auth token, or another URL than the one at"
                " Twilio; behind a proxy, set url"
            )

    def sign_request(self, key: bytes, request: InboundRequest, now: float) -> InboundRequest:
        """See `IRequestScheme`."""
        if media_type(request.headers) != FORM and request.body and _DIGEST not in request.query:
            digest = f"{_DIGEST}={hashlib.sha256(request.body).hexdigest()}"
            request = structs.replace(request, query="&".join(filter(None, (request.query, digest))))
        made = _signature(key, urls_of(request, self.url)[0], _signed_after_url(request), "sha1")
        return structs.replace(request, headers={**request.headers, _HEADER: made.decode("ascii")})


def _signed_after_url(request: InboundRequest) -> bytes:
    """
    Return the bytes that are signed after the URL: names and values of a form, sorted; none of any other body.

    :raises SignatureMismatch: the query has another digest of the body, or none that it needs; or it is not a form.
    """
    try:
        query = parse_qs(request.query, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        digests = query.get(_DIGEST, [])
        if digests or (request.body and media_type(request.headers) != FORM):
            if digests != [hashlib.sha256(request.body).hexdigest()]:
                raise SignatureMismatch(f"the body does not match the parameter {_DIGEST} of the URL, which is signed")
            return b""
        form = parse_qs(request.body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise SignatureMismatch("the body is not a form") from None
    fields = "".join(name + value for name in sorted(form) for value in sorted(set(form[name])))
    return fields.encode("utf-8", "replace")


def _signature(key: bytes, url: str, signed: bytes, algorithm: str) -> bytes:
    return base64.b64encode(hmac.digest(key, url.encode("latin-1", "replace") + signed, algorithm))


class TwilioSettings(msgspec.Struct, frozen=True, kw_only=True):
    """``[triggers.twilio]``."""

    url: Annotated[
        Annotated[str, msgspec.Meta(pattern="^https?://", title="a URL that begins with https:// or http://")] | None,
        msgspec.Meta(description="The URL as entered at Twilio, which signs it; default: of the request's `Host`."),
    ] = None

    def declared(self) -> SignedProvider:
        """Return the declaration."""
        return SignedProvider(
            provider="twilio",
            home=__name__,
            scheme=TwilioScheme(self.url),
            read=Message.form_or_each_of,
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
