"""Any request to any provider: never an error of the server, never an event without its proof."""

from __future__ import annotations

import json
import os
from typing import Any

from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs
from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.interfaces import Events, Respond
from harn.connectors.providers.any_sender import BASIC, HMAC, TOKEN
from harn.connectors.providers.bitbucket import BITBUCKET
from harn.connectors.providers.cloudevents import CLOUDEVENTS
from harn.connectors.providers.discord import DISCORD
from harn.connectors.providers.gitea import FORGEJO, GITEA
from harn.connectors.providers.gitlab import GITLAB
from harn.connectors.providers.linear import LINEAR
from harn.connectors.providers.notion import NOTION
from harn.connectors.providers.pagerduty import PAGERDUTY
from harn.connectors.providers.sendgrid import SENDGRID
from harn.connectors.providers.sentry import SENTRY
from harn.connectors.providers.shopify import SHOPIFY
from harn.connectors.providers.slack import SLACK
from harn.connectors.providers.standard import STANDARD
from harn.connectors.providers.stripe import STRIPE
from harn.connectors.providers.twilio import TWILIO
from harn.connectors.providers.zendesk import ZENDESK
from harn.errors import Refused
from harn.listener.problems import status_of
from harn.testing.connectors import ConnectorCase, signed_case
from tests.connectors.examples import connector, github_case
from tests.connectors.providers.test_senders import TIMED

SIGNED: tuple[Any, ...] = (
    SHOPIFY,
    GITLAB,
    GITEA,
    FORGEJO,
    BITBUCKET,
    LINEAR,
    NOTION,
    TWILIO,
    SENDGRID,
    DISCORD,
    SENTRY,
    PAGERDUTY,
)
SIGNED += (ZENDESK, CLOUDEVENTS, STANDARD, SLACK, STRIPE, HMAC)
CASES: tuple[ConnectorCase, ...] = (
    *(signed_case(plugin) for plugin in SIGNED),
    signed_case(HMAC, TIMED),
    github_case(),
    *(signed_case(plugin, secret=b"shared-token", signs_body=False) for plugin in (GITLAB, CLOUDEVENTS, TOKEN, BASIC)),
    signed_case(TOKEN, {"query": "t"}, secret=b"shared-token", signs_body=False),
)
CONNECTORS = [connector(case.plugin, case.binding) for case in CASES]
EXPECTING = connector(NOTION, evolve(CASES[SIGNED.index(NOTION)].binding, secrets={}))

LATIN = st.text(st.characters(min_codepoint=1, max_codepoint=255), max_size=80)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
NAMES = st.sampled_from(["type", "event", "action", "id", "data", "object_kind", "webhookTimestamp", "time"])
DOCUMENTS = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4))
TYPES = st.sampled_from(
    ["application/json", "application/x-www-form-urlencoded", "application/cloudevents-batch+json", "text/plain", ""]
)


@st.composite
def changes(draw: Any, case: ConnectorCase) -> Any:
    """Draw a request that differs from the right one in some headers, its body or its query, or in nothing."""
    assert case.request is not None
    request = case.request
    headers = dict(request.headers)
    for name in draw(st.lists(st.sampled_from([*headers, "content-type", "ce-type", "webhook-signature"]), max_size=3)):
        value = draw(st.none() | LATIN | TYPES)
        if value is None:
            headers.pop(name, None)
        else:
            headers[name] = value
    body = draw(st.just(request.body) | st.binary(max_size=200) | DOCUMENTS.map(_encoded) | LATIN.map(str.encode))
    query = draw(st.just(request.query) | LATIN)
    return structs.replace(request, headers=headers, body=body, query=query)


def _encoded(document: Any) -> bytes:
    return json.dumps(document).encode()


class HostileTests(SynchronousTestCase):
    @settings(
        max_examples=int(os.environ.get("HARN_EXAMPLES", "150")),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.integers(0, len(CASES) - 1).flatmap(lambda at: st.tuples(st.just(at), changes(CASES[at]))))
    def test_any_request(self, drawn: Any) -> None:
        """A request is refused with 4xx or accepted; accepted only with its proof, over the body where that counts."""
        at, request = drawn
        case, made = CASES[at], CONNECTORS[at]
        right = case.request
        assert right is not None
        try:
            made.check_headers(request.headers)
            made.verify(request, case.now)
        except Refused as error:
            self.assertLess(status_of(type(error)).code, 500)
        else:
            for name in case.signature_headers:
                self.assertIn(right.headers[name].lower(), request.headers.get(name, "").lower())
            if case.signs_body:
                self.assertEqual(request.body, right.body)
            if not case.signature_headers:
                self.assertIn(right.query, request.query)
        for receiver in (made, EXPECTING):
            try:
                answer = receiver.normalize(request)
            except Refused as error:
                self.assertLess(status_of(type(error)).code, 500)
            else:
                self.assertIsInstance(answer, (Events, Respond))
                self.assertTrue(receiver is made or answer.events == ())
