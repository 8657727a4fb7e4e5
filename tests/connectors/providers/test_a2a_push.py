"""What push notifications of the Agent2Agent protocol mean."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.fetching import fault_of_document_url
from harn.connectors.interfaces import CREDENTIALS, NormalizedEvent
from harn.connectors.providers.a2a_push import A2aPushPlugin
from harn.errors import PayloadInvalid
from harn.model.event import UNSIGNED
from harn.model.exchange import InboundRequest
from harn.testing.events import example, normalized, plugin_of, sample
from harn.testing.renewal import renewed
from harn.testing.signers import signed_request
from harn.wire import digest_bytes
from tests.connectors.declared import seen
from tests.connectors.examples import binding, connector, request
from tests.connectors.tokens import SETTINGS, key_set


class A2aPushTests(SynchronousTestCase):
    """The connector, and its settings."""

    def normalize(self, body: bytes, **headers: str) -> NormalizedEvent:
        """Normalize; header names with ``_`` for ``-``."""
        made = connector(A2aPushPlugin(), binding("a2a-push", None, "a2a-push"))
        inbound = request(body, {name.replace("_", "-"): value for name, value in headers.items()})
        (event,) = made.normalize(inbound).events
        return event

    def payload(self, document: Any) -> tuple[Any, ...]:
        """Return the payload of a notification for a handler: kind, task, state, artifact, sender."""
        body = json.dumps(document).encode()
        payload = seen(self.normalize(body), body)
        return tuple(payload[name] for name in ("kind", "task_id", "task_state", "artifact", "sender"))

    def test_credentials(self) -> None:
        """Our own credentials are asked for, so the event is not signed by its provider."""
        self.assertEqual(A2aPushPlugin().authentication, CREDENTIALS)
        event = self.normalize(b"{}")
        self.assertEqual((event.kind, event.signature_status), ("push", UNSIGNED))

    def test_dedupe_key(self) -> None:
        """The delivery's identifier, else what the body says."""
        self.assertEqual(self.normalize(b"{}", x_a2a_delivery="d-1").dedupe_key, "d-1")
        self.assertEqual(self.normalize(b"{}").dedupe_key, digest_bytes(b"{}"))

    def test_shapes(self) -> None:
        """The fields are found in every shape of a notification."""
        status = {"state": "working"}
        for document, expected in (
            ({"id": "t", "status": status}, ("a2a.task.working", "t", "working", None, None)),
            ({"task": {"id": "t", "status": status}}, ("a2a.task.working", "t", "working", None, None)),
            (
                {"statusUpdate": {"taskId": "t", "status": {"state": "cancelled"}}},
                ("a2a.task.canceled", "t", "cancelled", None, None),
            ),
            ({"artifactUpdate": {"taskId": "t", "artifact": [1]}}, ("a2a.task.artifact", "t", None, [1], None)),
            ({"message": {"taskId": "t"}}, ("a2a.task.message", "t", None, None, None)),
            ({"task_id": "t", "sender": "agent", "id": "x"}, ("a2a.task.update", "t", None, None, "agent")),
            ({"status": "odd", "task": None, "message": 3}, ("a2a.task.message", None, None, None, None)),
            ({}, ("a2a.task.update", None, None, None, None)),
        ):
            self.assertEqual(self.payload(document), expected)

    def test_example(self) -> None:
        """An example is of any state of a task, with the agreed token where there is one, and an id of its own."""
        plugin = plugin_of("a2a-push")
        found = renewed(plugin, sample(plugin, "a2a.task.input-required"), "delivery-7")
        request = InboundRequest(
            method="POST", path="/", query="", headers=dict(found.headers), body=found.body, received_at=0.0
        )
        signed = signed_request(plugin, {"token": [b"agreed"]}, request, 0.0)
        self.assertEqual(signed.headers["x-a2a-notification-token"], "agreed")
        event = normalized(plugin, signed)
        self.assertEqual((event.kind, event.dedupe_key), ("a2a.task.input-required", "delivery-7"))
        self.assertEqual(example("a2a-push").kind, "a2a.task.completed")
        self.assertRaises(ValueError, sample, plugin, "push")
        settings = plugin.schema.check(SETTINGS)[0]
        self.assertRaises(ValueError, signed_request, plugin, {}, request, 0.0, settings)

    def test_only_objects(self) -> None:
        """A notification is a JSON object; anything else is refused."""
        for body in (b"", b"[]", b"text", b'{"a": "\xff"}', b"[" * 1_000_000, b'{"a":' * 1_000_000):
            with self.assertRaises(PayloadInvalid):
                self.normalize(body)

    def test_settings(self) -> None:
        """A verifier that lacks something is refused: a check that is not made would be worse than none."""
        for table, keys in (
            ({"expected_iss": "x"}, ["expected_iss"]),
            ({"jwks_url": "https://a/jwks"}, ["expected_iss", "expected_aud"]),
            ({**SETTINGS, "jwks_url": "http://a/jwks"}, ["jwks_url"]),
            ({**SETTINGS, "jwks_url": "https://user@a/jwks"}, ["jwks_url"]),
            ({**SETTINGS, "inline_jwks": key_set("ec-1")}, ["inline_jwks"]),
            ({**SETTINGS, "audience": "y"}, ["audience"]),
            ({**SETTINGS, "leeway": "1h"}, ["leeway"]),
            ({"inline_jwks": {"keys": []}, "expected_iss": "x", "audience": "y"}, ["inline_jwks"]),
            ({"jwks": "x"}, ["jwks"]),
        ):
            settings, problems = A2aPushPlugin().schema.check(table)
            self.assertIsNone(settings)
            self.assertEqual([problem.key for problem in problems], keys, table)
        for table in ({}, SETTINGS, {"inline_jwks": key_set("ec-1"), "expected_iss": "x", "audience": "y"}):
            self.assertEqual(A2aPushPlugin().schema.check(table)[1], [])
        self.assertEqual(fault_of_document_url("http://127.0.0.1:9/x"), None)

    def test_states(self) -> None:
        """The states of the protocol's versions have one spelling in kinds."""
        for state, kind in (
            ("TASK_STATE_INPUT_REQUIRED", "a2a.task.input-required"),
            ("TASK_STATE_CANCELLED", "a2a.task.canceled"),
            ("input-required", "a2a.task.input-required"),
        ):
            document = {"task": {"id": "t", "status": {"state": state}}}
            self.assertEqual(self.payload(document)[0], kind)
