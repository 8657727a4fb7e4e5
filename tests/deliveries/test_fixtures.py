"""Export and import of fixtures."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from harn.deliveries.operations import FixtureImporter, ImportFixture, fixture_of, import_fixture
from harn.errors import DeliveryUnknown, PayloadInvalid, RouteUnknown
from harn.model.display import NO_SECRETS
from harn.model.event import decode_envelope, fixture_document, read_fixture
from harn.secrets.providers import KnownSecrets, secret_hash
from harn.testing.stores.kit import new_delivery
from tests.deliveries.test_selection import listed
from tests.dispatch.world import World
from tests.operations.asking import asked
from tests.triggers.examples import spec

KEY = b"k" * 16


def with_headers(**headers: str) -> bytes:
    envelope = msgspec.json.decode(new_delivery("e1").envelope)
    envelope["headers"] = {name.replace("_", "-"): value for name, value in headers.items()}
    return msgspec.json.encode(envelope)


class ExportTests(SynchronousTestCase):
    def test_round_trip(self) -> None:
        """A fixture is the event, byte for byte, where there is nothing to hide."""
        for body in (b'{"n": 1}', b"", b"\x00\xff", '{"ü": 1}'.encode()):
            delivery = listed(body=body)
            document = msgspec.json.decode(msgspec.json.encode(fixture_document(fixture_of(delivery, NO_SECRETS))))
            found = read_fixture(document)
            self.assertEqual((found.redacted, found.trigger_id, found.raw_body()), (False, "gh", body))
            self.assertEqual(found.envelope, decode_envelope(delivery.envelope))

    def test_redacted(self) -> None:
        """No secret and no signature is in a fixture, which says that something was replaced."""
        envelope = with_headers(authorization="Bearer x", x_hub_signature_256="sha256=ab", x_event="ping")
        body = b'{"access_token": "t0ken", "note": "s3cret", "n": 1}'
        fixture = fixture_of(
            listed(envelope=envelope, body=body), KnownSecrets(KEY, frozenset((secret_hash(KEY, b"s3cret"),)))
        )
        text = msgspec.json.encode(fixture)
        for secret in (b"Bearer", b"sha256=ab", b"t0ken", b"s3cret"):
            self.assertNotIn(secret, text)
        self.assertTrue(fixture.redacted)
        self.assertEqual(fixture.event().provider_payload["raw"]["n"], 1)
        self.assertEqual(fixture.envelope.headers["x-event"], "ping")

    def test_damaged(self) -> None:
        """A damaged event cannot be exported."""
        with self.assertRaisesRegex(DeliveryUnknown, "e1 is damaged"):
            fixture_of(listed(envelope=b"?"), NO_SECRETS)


class ImportTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.world.adopt({"gh": spec()})
        self.provider = self.world.version().spec.provider
        self.importer = FixtureImporter(wall=self.world.wall, registry=self.world.registry, intake=self.world.intake)

    def document(self, **envelope: Any) -> dict[str, Any]:
        document = fixture_document(fixture_of(listed(), NO_SECRETS))
        document["envelope"] |= {"provider": self.provider, **envelope}
        return document

    def test_new_delivery(self) -> None:
        """A fixture becomes a new delivery of the newest version, and runs."""
        found = self.successResultOf(
            asked(import_fixture, self.importer, ImportFixture(fixture=self.document(dedupe_key="k")))
        )
        self.assertEqual((found.trigger_id, found.binding), ("gh", "gh@v1"))
        (call,) = self.world.calls
        envelope = decode_envelope(call.call.envelope)
        self.assertEqual((envelope.id, envelope.dedupe_key, call.call.body), (found.event_id, "k", b'{"n": 1}'))
        self.assertNotEqual(found.event_id, "e1")
        self.assertEqual(envelope.trace_link, "", "it belongs to no trace that its headers may name")
        call.returns()
        self.assertEqual((self.world.states(), self.world.version().in_flight), (["done"], 0))

    def test_refused(self) -> None:
        """What is not a fixture, of another provider, or for an unknown trigger is refused, and nothing is kept."""
        for wanted, kind, why in (
            (ImportFixture(fixture={"n": 1}), PayloadInvalid, "fixture: format: must be"),
            (ImportFixture(fixture=self.document(provider="other")), PayloadInvalid, "must be that of trigger 'gh'"),
            (ImportFixture(fixture=self.document(), trigger="no"), RouteUnknown, "there is no trigger 'no'"),
        ):
            failure = self.failureResultOf(asked(import_fixture, self.importer, wanted), kind)
            self.assertIn(why, str(failure.value))
        self.assertEqual((self.world.states(), self.world.version().in_flight), ([], 0))
