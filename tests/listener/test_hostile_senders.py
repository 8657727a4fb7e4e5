"""Requests of senders to every provider through the whole listener, signed by them or not, with anything in them."""

from __future__ import annotations

import json
import os
from typing import Any

import msgspec
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs
from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.gate import Gate
from harn.connectors.signing_keys import prove
from harn.errors import SignatureMismatch
from harn.lifecycle import Accepted, AcceptedDelivery
from harn.model.event import TriggerEvent, decode_envelope
from harn.model.exchange import InboundRequest
from harn.reload.connections import ConnectorPool, RunningConnector
from harn.testing.clients import request_bytes
from harn.testing.connectors import HOSTILE_BODIES, ConnectorCase
from harn.testing.signers import example_secret
from tests.connectors.test_hostile import CASES, CONNECTORS, DOCUMENTS, TYPES
from tests.listener.world import World

VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"), max_size=60)
HEADERS = st.sampled_from(
    [
        *("content-type", "content-encoding", "x-forwarded-for", "authorization", "webhook-id", "webhook-signature"),
        *(
            "x-github-event",
            "x-gitea-event",
            "x-event-key",
            "x-shopify-topic",
            "sentry-hook-resource",
            "linear-delivery",
        ),
        *("x-shopify-triggered-at", "idempotency-key", "request-id", "x-request-uuid", "x-slack-retry-num"),
        *("ce-id", "ce-type", "ce-source", "ce-time", "ce-specversion", "ce-data", "ce-provider", "ce-raw"),
        *("x-twilio-webhooks-signature-settings", "i-twilio-idempotency-token", "x-kind", "x-gitlab-event"),
    ]
)
VALUES = VISIBLE | TYPES | st.sampled_from(["gzip", "identity", "br, gzip", "zstd", "1.0", "%ED%A0%80", "%", "9" * 400])
FORMS = st.lists(
    st.tuples(st.sampled_from(["payload", "command", "MessageSid", "SmsStatus", "ssl_check", "type"]), VISIBLE),
    max_size=4,
)


@st.composite
def altered(draw: Any, document: Any) -> Any:
    """Draw a document in which one value, at any depth, is another one."""
    if not isinstance(document, dict | list) or not document or draw(st.integers(0, 3)) == 0:
        return draw(DOCUMENTS | st.text("x", min_size=250, max_size=260) | st.integers(10**17, 10**19))
    changed: Any = document.copy()
    at = draw(st.sampled_from(sorted(document) if isinstance(document, dict) else range(len(document))))
    changed[at] = draw(altered(document[at]))
    return changed


@st.composite
def bodies(draw: Any, body: bytes) -> bytes:
    """Draw a body: the right one, one that differs in a value, a form, or anything."""
    anything = st.binary(max_size=100) | st.sampled_from([each for each in HOSTILE_BODIES if len(each) < 5000])
    other: Any = DOCUMENTS.map(json.dumps).map(str.encode) | FORMS.map(_form) | anything
    try:
        document = json.loads(body)
    except ValueError:
        return bytes(draw(st.just(body) | other))
    return bytes(draw(st.just(body) | altered(document).map(json.dumps).map(str.encode) | other))


def _form(fields: list[tuple[str, str]]) -> bytes:
    return "&".join(f"{name}={value}" for name, value in fields).encode("latin-1")


@st.composite
def attempts(draw: Any) -> tuple[int, InboundRequest, bool]:
    """Draw a case, a request to it, and whether its sender signed just this request."""
    at = draw(st.integers(0, len(CASES) - 1))
    right = CASES[at].request
    assert right is not None
    headers = {**right.headers, **draw(st.dictionaries(HEADERS, VALUES, max_size=3))}
    for name in draw(st.lists(st.sampled_from(sorted(right.headers)), max_size=1)):
        headers.pop(name)
    request = structs.replace(right, headers=headers, body=draw(bodies(right.body)))
    signed = proven(CASES[at], CONNECTORS[at], request) if draw(st.booleans()) else None
    return at, signed or request, signed is not None


def proven(case: ConnectorCase, connector: Any, request: InboundRequest) -> InboundRequest | None:
    """Return a request as its sender signs it; None where no sender can."""
    try:
        signed: InboundRequest = connector.prove(request, case.now)
    except ValueError:  # by a private key
        signed = prove(connector.scheme, example_secret(connector.scheme)[1], request, case.now)
    except SignatureMismatch:  # Twilio signs what a form has
        return None
    return signed


class HostileSenderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.accepted: list[AcceptedDelivery] = []
        self.world.lifecycle.subscribe(Accepted, lambda event: self.accepted.extend(event.deliveries))
        self.pool = ConnectorPool(self.world.clock)

    def serve(self, at: int) -> None:
        """Serve one case alone, on the path that its request has."""
        case = CASES[at]
        assert case.request is not None
        running = RunningConnector.of("t", CONNECTORS[at], Gate(), case.plugin.authentication)
        shared = self.pool.acquire(str(at)) or self.pool.add(str(at), running)
        made = self.world.trigger("t", case.request.path, running.authentication)
        self.world.serve(2, evolve(made, route=evolve(made.route, receiver=shared)))

    @settings(
        max_examples=int(os.environ.get("HARN_EXAMPLES", "150")),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(attempts())
    def test_any_request(self, drawn: tuple[int, InboundRequest, bool]) -> None:
        """Never a 5xx, an exception in the log, or an event without its proof; and handlers can read each event."""
        at, request, is_signed = drawn
        self.serve(at)
        self.accepted.clear()
        target = request.path + (f"?{request.query}" if request.query else "")
        wire = self.world.wire()
        headers = {"Host" if name == "host" else name: value for name, value in request.headers.items()}
        wire.send(request_bytes("POST", target, headers, request.body))
        while self.world.threads:
            self.world.threads.pop(0)()
        answer = wire.answer()
        self.assertLess(answer.status, 500, answer)
        self.assertEqual(self.flushLoggedErrors(), [])
        if answer.status >= 400:
            self.assertEqual((answer.headers["content-type"], self.accepted), ("application/problem+json", []))
        if self.accepted and not is_signed:
            self.check_replayed(CASES[at], request)
        for each in self.accepted:
            event = TriggerEvent(decode_envelope(each.delivery.envelope), each.delivery.body)
            self.assertEqual(event.signature_status, {"state": "verified"})
            msgspec.json.encode(event.to_dict())

    def check_replayed(self, case: ConnectorCase, request: InboundRequest) -> None:
        """See that an accepted request that was not signed afresh has all that was signed of the right one."""
        right = case.request
        assert right is not None
        for name in case.signature_headers:
            self.assertIn(right.headers[name].lower(), request.headers.get(name, "").lower())
        if case.signs_body:
            self.assertEqual(request.body, right.body)
