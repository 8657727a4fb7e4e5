"""
Events as a server makes them of requests: read by the provider's own connector, with the fields that it lifts.

::

    github("issues.opened")                               # an example, in the shape of the real one
    stripe("invoice.paid", body={"type": "invoice.paid", "data": {}})
    github("push", body=Path("push.json"))                # a request that was recorded
    example("acme", settings={"region": "eu"})            # any provider that is installed
    tick("0 9 * * 1-5", timezone="Europe/Berlin")         # of a schedule
    polled({"order": 7}, "order.created")                 # found by a poll
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec.structs import replace
from twisted.internet.task import Clock

from harn.clocks import rfc3339
from harn.connectors.catalog import Catalog
from harn.connectors.gate import Gate
from harn.connectors.interfaces import (
    ConnectorBinding,
    ConnectorContext,
    Events,
    IConnectorPlugin,
    IReceiver,
    NormalizedEvent,
    Reject,
    Respond,
)
from harn.connectors.messages import Example
from harn.connectors.providers.cron import CronSettings, make_tick
from harn.connectors.providers.poll import POLL, read_polled
from harn.connectors.receivers import ConfiguredProvider, SignedProvider
from harn.errors import PayloadInvalid
from harn.model.event import Envelope, TriggerEvent
from harn.model.exchange import InboundRequest
from harn.model.references import new_event_id, new_trace_id
from harn.testing import shapes
from harn.testing.places import places_of

_WITHOUT_REQUESTS: Mapping[str, str] = {"cron": "tick()", "poll": "polled()"}
"""What makes the events of these providers."""

Body = bytes | str | Mapping[str, Any] | list[Any] | Path
"""A body: as bytes, as text, as a value for JSON, or the file that holds it."""


def example(
    provider: str,
    kind: str | None = None,
    *,
    body: Body | None = None,
    headers: Mapping[str, str] = {},
    settings: Mapping[str, Any] | None = None,
) -> TriggerEvent:
    """
    Return an event of a provider, as a handler gets it: the request is read as in production, unsigned.

    :param kind: for example ``issues.opened``; None for that of the provider's example, or of the body.
    :param body: of the request; None for an example of that kind.
    :param headers: of the request, beside those that its sender sends.
    :param settings: the provider's own table of a trigger, for example ``{"signature_scheme": "github"}``.
    :raises ValueError: there is no such provider, no example of that kind, or its connector makes no event of the
        request; the message says what to give.
    """
    plugin = plugin_of(provider)
    if provider in _WITHOUT_REQUESTS:
        raise ValueError(f"events of {provider} do not come as requests; make one with {_WITHOUT_REQUESTS[provider]}")
    found = sample(plugin, kind, body=None if body is None else bytes_of(body), settings=settings)
    sent = {**found.headers, **{name.lower(): value for name, value in headers.items()}}
    now = time.time()
    request = InboundRequest(method="POST", path="/", query="", headers=sent, body=found.body, received_at=now)
    made = normalized(plugin, request, settings)
    if kind is not None and made.kind != kind and body is None and not headers:
        raise ValueError(f"no example of {provider} is of kind {kind!r}; the nearest is of {made.kind!r}: ask for that")
    return event_of(provider, request, made)


def sample(
    plugin: IConnectorPlugin,
    kind: str | None = None,
    *,
    body: bytes | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Example:
    """
    Return a request as the sender makes it, unsigned; names of headers in lower case.

    :param kind: None for that of the example, or of ``body``.
    :param body: the bytes to send; only a kind that is in the body, and differs, changes them.
    :raises ValueError: there is no example of that kind; the message says what to give.
    """
    meant = None if kind is None else shapes.meant(plugin.provider, kind)
    if meant is not None:
        raise ValueError(f"{plugin.provider} has no kind {kind!r}; did you mean {meant!r}?")
    given = None if kind is None else shapes.example_of(plugin.provider, kind)
    if given is None:
        given = _own_example(plugin, settings)
        if given is None and body is None:
            raise ValueError(f"provider {plugin.provider} has no example of a request; give a body (harn send: --data)")
        given = given or Example(body=b"")
        given = replace(given, body=given.body if body is None else body)
        given = given if kind is None else _as_kind(plugin, given, kind, settings)
    elif body is not None:
        given = _as_kind(plugin, replace(given, body=body), cast("str", kind), settings)
    headers = {name.lower(): value for name, value in given.headers.items()}
    return Example(body=_as_of_now(plugin, given.body, settings), headers=headers)


def _as_of_now(plugin: IConnectorPlugin, body: bytes, settings: Mapping[str, Any] | None) -> bytes:
    """Return a body with the time at which it is sent, where its sender signs that as a part of it."""
    declared = declared_by(plugin, settings)
    put = None if declared is None else getattr(declared.sent_at, "put", None)
    document = None if put is None else _json_object(body)
    if put is None or document is None:
        return body
    put(time.time(), document)
    return msgspec.json.encode(document)


def _json_object(body: bytes) -> dict[str, Any] | None:
    """Return a body that is a JSON object, decoded; None for any other."""
    try:
        document = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    return document if isinstance(document, dict) else None


def declared_by(plugin: IConnectorPlugin, settings: Mapping[str, Any] | None = None) -> SignedProvider | None:
    """Return the declaration of a plugin that has one."""
    if isinstance(plugin, ConfiguredProvider):
        return plugin.declared(plugin.example_settings if settings is None else settings)
    return plugin if isinstance(plugin, SignedProvider) else None


def _own_example(plugin: IConnectorPlugin, settings: Mapping[str, Any] | None) -> Example | None:
    declared = declared_by(plugin, settings)
    if declared is not None:
        return declared.example
    connector = connector_of(plugin, settings)
    return cast("Example | None", connector.example_of()) if hasattr(connector, "example_of") else None


def _as_kind(plugin: IConnectorPlugin, given: Example, kind: str, settings: Mapping[str, Any] | None) -> Example:
    """Return a request with a kind; its bytes are the same where the kind is in a header, or is that already."""
    declared = declared_by(plugin, settings)
    fact: Any = places_of(plugin).kind if declared is None else declared.kind
    put = getattr(fact, "put", None)
    if put is None:
        known = ", ".join(shapes.kinds(plugin.provider))
        raise ValueError(
            f"{plugin.provider} has the kind in different places, so that no example of kind {kind!r} can be made; give"
            f" a body of that kind, and no kind{f', or one of: {known}' if known else ''}"
        )
    headers = {name.lower(): value for name, value in given.headers.items()}
    document = _json_object(given.body)
    changed: dict[str, Any] = dict(document or {})
    put(kind, headers, changed)
    if changed == (document or {}):
        return Example(body=given.body, headers=headers)
    if document is None:
        raise ValueError(f"{plugin.provider} has the kind in the body, which must be a JSON object to be of {kind!r}")
    return Example(body=msgspec.json.encode(changed), headers=headers)


def plugin_of(provider: str) -> IConnectorPlugin:
    """
    Return the plugin of a provider.

    :raises ValueError: none is installed; names those that are.
    """
    from harn.manifest.diagnostics import suggest

    plugins = _installed().plugins
    if provider not in plugins:
        raise ValueError(f"no provider {provider!r} is installed; {suggest(provider, plugins)}")
    return plugins[provider]


@cache
def _installed() -> Catalog:
    return Catalog.discover()


def connector_of(
    plugin: IConnectorPlugin,
    settings: Mapping[str, Any] | None = None,
    secrets: Mapping[str, tuple[bytes, ...]] | None = None,
) -> Any:
    """
    Return a connector that reads requests; prepared, one with ``secrets`` verifies them, too.

    :raises ValueError: the settings are wrong.
    """
    table: Any = settings
    if settings is None and isinstance(plugin, ConfiguredProvider):
        table = plugin.example_settings
    if plugin.schema is not None:
        checked, wrong = plugin.schema.check(table or {})
        if wrong:
            advice = f"; {wrong[0].hint}" if wrong[0].hint else ""
            raise ValueError(f"settings: {wrong[0].key}: {wrong[0].message}{advice}")
        table = checked
    elif table:
        raise ValueError(f"settings: {plugin.provider} has none, got {', '.join(table)}")
    binding = ConnectorBinding(
        trigger_id="test",
        provider=plugin.provider,
        kind=plugin.kinds[0],
        path="/",
        events=(),
        settings=table,
        secrets=secrets or dict.fromkeys((*plugin.required_secrets, *plugin.optional_secrets), (b"unused",)),
    )
    return plugin.connector(ConnectorContext(clock=cast("Any", Clock()), binding=binding, gate=Gate()))


def normalized(
    plugin: IConnectorPlugin, request: InboundRequest, settings: Mapping[str, Any] | None = None
) -> NormalizedEvent:
    """
    Return the event that the connector makes of a request; of several the first.

    :raises ValueError: it makes none.
    """
    connector = connector_of(plugin, settings)
    if not IReceiver.providedBy(connector):
        raise ValueError(f"events of provider {plugin.provider} do not come as requests")
    try:
        found = connector.normalize(request)
    except PayloadInvalid as wrong:
        raise ValueError(f"this is not a request of {plugin.provider}: {wrong}") from None
    events = found.events if isinstance(found, Events | Respond) else ()
    if not events:
        why = found.detail if isinstance(found, Reject) else "it is answered at once, as a handshake is"
        raise ValueError(f"{plugin.provider} makes no event of this request: {why}")
    return events[0]


def event_of(provider: str, request: InboundRequest, made: NormalizedEvent) -> TriggerEvent:
    """Return the event that a handler gets."""
    envelope = Envelope(
        id=new_event_id(request.received_at),
        provider=provider,
        kind=made.kind,
        received_at=rfc3339(request.received_at),
        occurred_at=made.occurred_at,
        dedupe_key=made.dedupe_key,
        trace_id=new_trace_id(request.received_at),
        headers=dict(request.headers),
        signature_status=made.signature_status,
        payload=made.payload,
        lifted=made.lifted,
        body_format=made.body_format,
    )
    return TriggerEvent(envelope, request.body if made.body is None else made.body)


def tick(
    schedule: str = "0 9 * * *",
    *,
    timezone: str = "UTC",
    at: float | None = None,
    trigger_id: str = "test",
    is_late: bool = False,
) -> TriggerEvent:
    """
    Return the tick of a schedule, as a handler gets it.

    :param at: when it was due (seconds, Unix); None for the last time before the present one.
    :param is_late: it had been missed.
    :raises ValueError: the schedule or the zone is wrong.
    """
    settings = CronSettings(schedule=schedule, timezone=timezone)
    wrong = settings.problems()
    if wrong:
        raise ValueError(f"{wrong[0].key}: {wrong[0].message}; {wrong[0].hint}")
    now = time.time()
    due = settings.times().preceding(now) if at is None else at
    return event_of("cron", _no_request(now), make_tick(trigger_id, settings, due or now, is_late=is_late))


def polled(payload: Any, kind: str = "poll", *, trigger_id: str = "test") -> TriggerEvent:
    """
    Return an event that a function of a poll has found, as a handler gets it.

    :param payload: any JSON value.
    """
    result = msgspec.json.encode({"events": [{"kind": kind, "payload": payload}]})
    (found,) = read_polled(result, trigger_id, b"null").events
    return polled_event(found)


def polled_event(found: NormalizedEvent) -> TriggerEvent:
    """Return an event that a poll has found, as a handler gets it."""
    return event_of(POLL, _no_request(time.time()), found)


def _no_request(now: float) -> InboundRequest:
    return InboundRequest(method="", path="", query="", headers={}, body=b"", received_at=now)


def bytes_of(body: Body) -> bytes:
    """
    Return a body's bytes.

    :raises OSError: its file cannot be read.
    """
    if isinstance(body, Path):
        return body.read_bytes()
    if isinstance(body, str):
        return body.encode()
    return body if isinstance(body, bytes) else msgspec.json.encode(body)


github = partial(example, "github")
gitlab = partial(example, "gitlab")
gitea = partial(example, "gitea")
forgejo = partial(example, "forgejo")
bitbucket = partial(example, "bitbucket")
slack = partial(example, "slack")
stripe = partial(example, "stripe")
shopify = partial(example, "shopify")
linear = partial(example, "linear")
notion = partial(example, "notion")
twilio = partial(example, "twilio")
sendgrid = partial(example, "sendgrid")
discord = partial(example, "discord")
sentry = partial(example, "sentry")
pagerduty = partial(example, "pagerduty")
zendesk = partial(example, "zendesk")
cloudevents = partial(example, "cloudevents")
standard = partial(example, "standard")
webhook = partial(example, "webhook")
