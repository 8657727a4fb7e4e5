"""Requests to providers that are declared, and what a handler sees of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harn.connectors.interfaces import Events, NormalizedEvent, Respond
from harn.connectors.receivers import SignedProvider
from harn.model.event import Envelope, TriggerEvent
from harn.testing.signers import signed_headers
from tests.connectors.examples import NOW, binding, connector, request

SECRET = b"8f742231b10e8888abcd99yyyzzz85a5"
FORM = "application/x-www-form-urlencoded"


def deliver(
    provider: SignedProvider,
    body: bytes,
    content_type: str = "application/json",
    more: Mapping[str, str] = {},
    headers: Mapping[str, str] | None = None,
) -> Events | Respond:
    """
    Verify and normalize a request.

    :param headers: the signature, where a signer other than harn's is used.
    """
    made = connector(provider, binding(provider.provider, None, "webhook", b"another", SECRET))
    signed = signed_headers(provider.scheme, SECRET, body, NOW) if headers is None else headers
    inbound = request(body, {**signed, "Content-Type": content_type, **more})
    made.verify(inbound, NOW)
    answer = made.normalize(inbound)
    assert isinstance(answer, Events | Respond)
    return answer


def only(answer: Events | Respond) -> NormalizedEvent:
    """Return the one event."""
    (event,) = answer.events
    return event


def seen(event: NormalizedEvent, body: bytes, provider: str = "p") -> dict[str, Any]:
    """Return the provider's payload as a handler sees it."""
    envelope = Envelope(
        id="trigger_evt_1",
        provider=provider,
        kind=event.kind,
        received_at="2026-01-02T03:04:05.000Z",
        dedupe_key=event.dedupe_key,
        trace_id="trace_1",
        headers={},
        signature_status=event.signature_status,
        payload=event.payload,
        lifted=event.lifted,
        body_format=event.body_format,
    )
    return TriggerEvent(envelope, body).provider_payload
