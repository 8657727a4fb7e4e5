"""The event of a delivery as it may be shown: what authorizes or signs is replaced, in headers and in the body."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import structs

from harn.model.display import REDACTED, candidates, is_signature, looks_secret, redact
from harn.model.event import Envelope, TriggerEvent, decode_envelope
from harn.model.json_text import is_too_deep
from harn.store.deliveries import ListedDelivery

IsCredential = Callable[[bytes], bool]
"""Returns whether a value is a known secret."""

_MOST_WORDS = 10_000


def no_credential(value: bytes) -> bool:
    """Return False: no secret is known, as where no server runs."""
    return False


def envelope_of(delivery: ListedDelivery) -> Envelope | None:
    """Return the event's envelope, its body to be read as bytes if no JSON could be written of it; None if damaged."""
    try:
        envelope = decode_envelope(delivery.envelope)
    except msgspec.MsgspecError:
        return None
    return structs.replace(envelope, body_format="bytes") if is_too_deep(delivery.body) else envelope


def event_document(delivery: ListedDelivery) -> dict[str, Any]:
    """Return the event for an expression: headers that authorize are replaced, by their names."""
    envelope = envelope_of(delivery)
    if envelope is None:
        return _damaged(delivery)
    event = TriggerEvent(envelope, delivery.body).to_dict()
    event["headers"] = redact(event["headers"])
    return event


def shown_event(delivery: ListedDelivery, is_credential: IsCredential) -> dict[str, Any]:
    """Return the event as it is shown: without secrets and signatures, and with its bytes only if they hold none."""
    envelope = envelope_of(delivery)
    if envelope is None:
        return _damaged(delivery)
    event = TriggerEvent(envelope, delivery.body).to_dict()
    event["headers"] = shown_headers(event["headers"], is_credential)
    payload = shown_value(event["provider_payload"], is_credential)
    if payload != event["provider_payload"] or holds_credential(delivery.body, is_credential):
        event["provider_payload"] = payload
        if "raw_body" in event:
            event["raw_body"] = REDACTED
    return event


def shown_headers(headers: dict[str, str], is_credential: IsCredential) -> dict[str, str]:
    """Return headers as they are shown."""
    return {name: REDACTED if is_signature(name) else value for name, value in redact(headers, is_credential).items()}


def shown_value(value: Any, is_credential: IsCredential) -> Any:
    """Return a JSON value without secrets: known ones, and whatever stands under the name of one."""
    if isinstance(value, dict):
        return {
            name: REDACTED if looks_secret(name) and each not in (None, "") else shown_value(each, is_credential)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [shown_value(each, is_credential) for each in value]
    if isinstance(value, str) and any(map(is_credential, candidates(value))):
        return REDACTED
    return value


def shown_body(envelope: Envelope, body: bytes, is_credential: IsCredential) -> bytes:
    """
    Return a body as it is shown: the same bytes if no secret is in it; else JSON is encoded again without its secrets,
    and any other body is replaced as a whole.
    """
    raw = TriggerEvent(envelope, body).provider_payload["raw"]
    shown = shown_value(raw, is_credential)
    if shown == raw and not holds_credential(body, is_credential):
        return body
    if envelope.body_format == "json" and shown != raw:
        return msgspec.json.encode(shown)
    return REDACTED.encode("ascii")


def holds_credential(body: bytes, is_credential: IsCredential) -> bool:
    """Return whether a known secret stands in a body, with white space around it."""
    return any(map(is_credential, body.split(None, _MOST_WORDS)[:_MOST_WORDS]))


def _damaged(delivery: ListedDelivery) -> dict[str, Any]:
    return {"id": delivery.event_id, "provider": delivery.provider, "kind": delivery.kind}
