"""The suite that every connector must pass, built-in or third-party: plugin, life cycle, handling of requests."""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from attrs import evolve
from msgspec import Struct, field, structs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from harn.connectors.catalog import Catalog
from harn.connectors.credentials import BasicScheme, TokenScheme
from harn.connectors.interfaces import (
    PUBLIC,
    ConnectorBinding,
    ConnectorContext,
    Events,
    IConnector,
    IConnectorPlugin,
    IEarlyReceiver,
    IEmitter,
    IReceiver,
    NormalizedEvent,
    Reject,
    Respond,
)
from harn.connectors.receivers import ConfiguredProvider, SignedProvider
from harn.connectors.signing_keys import prove
from harn.errors import CredentialsRejected, PayloadInvalid, StageFailed
from harn.model.exchange import InboundRequest
from harn.testing.signers import example_secret, other_secret

HOSTILE_BODIES = (
    b"",
    b" ",
    b"{",
    b"[]",
    b"null",
    b"1",
    b'"text"',
    b"\xff\xfe",
    b"\xef\xbb\xbf{}",
    b'{"\xff": 1}',
    b'{"id": NaN}',
    b'{"id": 1e999}',
    b'{"id": 1' + b"0" * 5000 + b"}",
    b'{"id": "\\ud800"}',
    b'{"id": {}, "type": [], "event": 1, "action": null}',
    b'{"id": 1, "id": 2}',
    b'{"a": "' + b"x" * 100_000 + b'"}',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b'{"a":' + b"[" * 900 + b"]" * 900 + b"}",
    b"payload=%7B%7D",
    b"payload=" + b"%5B" * 50_000,
    b"a&" * 1000,
)
"""What no body may do anything to but be refused (`PayloadInvalid`) or kept."""

HOSTILE_HEADERS = ("", " ", ",", "=", "v1,", "t=,v1=", "sha256=", "\x80\xff", "9" * 5000, "-1", "1.5", "v1," * 500)
"""What no signature header may do anything to but be refused (`CredentialsRejected`)."""


class ConnectorCase(Struct, frozen=True, kw_only=True):
    """
    A plugin and an example of its use.

    :ivar binding: as the manifest would give it, with a value for every required secret.
    :ivar request: for a receiver: a request that is right in every way at ``now`` (seconds, Unix).
    :ivar signature_headers: for a receiver whose provider signs: the headers without which it must refuse.
    :ivar other_secret: a value that a secret may have, with which nothing was signed.
    :ivar signs_body: the provider signs the body, so that an altered one must be refused.
    """

    plugin: Any
    binding: ConnectorBinding
    request: InboundRequest | None = None
    signature_headers: tuple[str, ...] = ()
    signs_body: bool = True
    other_secret: bytes = b"b3RoZXItc2VjcmV0"
    now: float = field(default=1_700_000_000.0)


def signed_case(
    provider: SignedProvider | ConfiguredProvider,
    settings: Mapping[str, Any] | None = None,
    secret: bytes | None = None,
    *,
    signs_body: bool | None = None,
) -> ConnectorCase:
    """
    Make the case of a declared provider out of its example, proven with a secret of its scheme.

    :param settings: keys of its table; by default those with which it is tried.
    :param secret: another secret; not for a provider whose secret is a public key.
    :param signs_body: see `ConnectorCase`; None for what the scheme does with each secret.
    :raises ValueError: it declares no example.
    """
    table = None
    if isinstance(provider, ConfiguredProvider):
        table = dict(provider.example_settings if settings is None else settings)
    declared = provider if isinstance(provider, SignedProvider) else provider.declared(table)
    now, example, scheme = 1_700_000_000.0, declared.example, declared.scheme
    if example is None:
        raise ValueError(f"{provider.provider} declares no example")
    configured, key = example_secret(scheme) if secret is None else (secret, scheme.key(secret))
    names = declared.secrets[:1] if declared.any_secret else declared.secrets
    path = f"/triggers/{provider.provider}"
    binding = ConnectorBinding(
        trigger_id=provider.provider,
        provider=provider.provider,
        kind="webhook",
        path=path,
        events=(),
        settings=table,
        secrets=dict.fromkeys(names, (configured,)),
    )
    headers = {name.lower(): value for name, value in example.headers.items()}
    request = InboundRequest(method="POST", path=path, query="", headers=headers, body=example.body, received_at=now)
    proven = prove(scheme, b":".join([key] * len(names)), request, now)
    return ConnectorCase(
        plugin=provider,
        binding=binding,
        request=proven,
        signature_headers=tuple(name for name in proven.headers if name not in headers),
        signs_body=not isinstance(scheme, TokenScheme | BasicScheme) if signs_body is None else signs_body,
        other_secret=other_secret(scheme),
        now=now,
    )


@implementer(IEmitter)
class OpenGate:
    """
    Takes every event.

    :ivar taken: the events, each with its trigger.
    """

    def __init__(self, taken: list[tuple[str, NormalizedEvent]] | None = None) -> None:
        self.taken = [] if taken is None else taken

    def emit(self, trigger_id: str, event: NormalizedEvent) -> Deferred[None]:
        """See `IEmitter.emit`."""
        self.taken.append((trigger_id, event))
        return succeed(None)


def make_connector_tests(factory: Callable[[], ConnectorCase]) -> type[TestCase]:
    """
    Make the test case class; derive from it in a test module and add what is special to the connector.

    :param factory: makes a fresh case for each test.
    """

    class ConnectorTests(TestCase):
        """One connector against the common suite."""

        def setUp(self) -> None:
            self.case = factory()
            self.clock = Clock()
            self.clock.advance(self.case.now)
            self.emitted: list[tuple[str, NormalizedEvent]] = []

        def connector(self, binding: ConnectorBinding | None = None) -> Any:
            """Make a connector for the case's binding, or another."""
            gate = OpenGate(self.emitted)
            context = ConnectorContext(
                clock=self.clock, wall=self.clock, binding=binding or self.case.binding, gate=gate
            )
            return self.case.plugin.connector(context)

        async def prepared(self, binding: ConnectorBinding | None = None) -> Any:
            """Make a connector and prepare it; it is closed at the end of the test."""
            connector = self.connector(binding)
            self.addCleanup(lambda: Deferred.fromCoroutine(_finish(connector.close())))
            await _finish(connector.prepare())
            return connector

        def receiver_request(self) -> InboundRequest:
            """Return the case's request; a connector without one takes none, and the test is not for it."""
            if self.case.request is None:
                self.skipTest("takes no requests")
            assert self.case.request is not None
            return self.case.request

        def test_interfaces(self) -> None:
            """The plugin and its connector provide the interfaces that they claim."""
            verifyObject(IConnectorPlugin, self.case.plugin)
            connector = self.connector()
            verifyObject(IConnector if self.case.request is None else IReceiver, connector)

        def test_catalog_takes_it(self) -> None:
            """The catalog finds nothing wrong with the plugin, and the case is one of its kinds."""
            catalog = Catalog.of([self.case.plugin])
            self.assertEqual(catalog.problems, ())
            self.assertIn(self.case.binding.kind, catalog.providers[self.case.binding.provider].kinds)

        def test_settings_schema(self) -> None:
            """The schema refuses an unknown key, and describes the table as JSON."""
            if self.case.plugin.schema is None:
                self.skipTest("has no settings")
            settings, problems = self.case.plugin.schema.check({"no_such_key": 1})
            self.assertIsNone(settings)
            self.assertIn("no_such_key", [problem.key for problem in problems])
            self.assertEqual(self.case.plugin.schema.json_schema()["type"], "object")

        async def test_life_in_order(self) -> None:
            """Prepared, activated, quiesced and closed, it leaves no timer behind."""
            connector = self.connector()
            self.assertEqual(self.clock.getDelayedCalls(), [], "a connector that is only made acquires nothing")
            await _finish(connector.prepare())
            self.assertEqual(self.emitted, [], "nothing is emitted before activate")
            await _finish(connector.activate())
            self.assertIsNone(connector.quiesce(), "quiesce happens at once")
            self.emitted.clear()
            self.clock.advance(86400)
            self.assertEqual(self.emitted, [], "nothing is emitted after quiesce")
            await _finish(connector.close())
            self.assertEqual(self.clock.getDelayedCalls(), [])

        async def test_closed_without_activate(self) -> None:
            """A candidate that is given up after prepare leaves nothing behind, and emitted nothing."""
            connector = self.connector()
            await _finish(connector.prepare())
            await _finish(connector.close())
            self.assertEqual((self.clock.getDelayedCalls(), self.emitted), ([], []))

        async def test_required_secrets(self) -> None:
            """Without a required secret, or with an empty value, prepare fails; it can be closed all the same."""
            for name in self.case.plugin.required_secrets:
                for values in ((), (b"",)):
                    secrets = {**self.case.binding.secrets, name: values}
                    connector = self.connector(evolve(self.case.binding, secrets=secrets))
                    with self.assertRaises(StageFailed):
                        await _finish(connector.prepare())
                    await _finish(connector.close())

        async def test_secrets_are_not_shown(self) -> None:
            """No value of a secret is in the representation of the connector or its binding."""
            connector = await self.prepared()
            shown = repr(connector) + repr(self.case.binding)
            for values in self.case.binding.secrets.values():
                for value in values:
                    self.assertNotIn(repr(value)[2:-1], shown)

        async def test_right_request(self) -> None:
            """A right request is verified, and means the same each time it is normalized."""
            request = self.receiver_request()
            connector = await self.prepared()
            await _finish(connector.activate())
            connector.verify(request, self.case.now)
            meaning = connector.normalize(request)
            self.assertEqual(connector.normalize(request), meaning)
            self.assertIsInstance(meaning, (Events, Respond, Reject))
            for event in () if isinstance(meaning, Reject) else meaning.events:
                self.assertTrue(event.kind)
                self.assertTrue(event.dedupe_key)
                self.assertIn(event.body_format, ("json", "form", "fields", "bytes", "none"))

        async def test_leased_request_after_quiesce(self) -> None:
            """A request that was leased before quiesce is still verified and normalized after it."""
            request = self.receiver_request()
            connector = await self.prepared()
            await _finish(connector.activate())
            connector.quiesce()
            connector.verify(request, self.case.now)
            self.assertEqual(connector.normalize(request), connector.normalize(request))

        async def test_altered_body(self) -> None:
            """A body that is not what was signed is refused."""
            request = self._signed_request()
            if not self.case.signs_body:
                self.skipTest("its provider does not sign the body")
            connector = await self.prepared()
            for body in (request.body + b" ", request.body[:-1], b""):
                with self.assertRaises(CredentialsRejected):
                    connector.verify(structs.replace(request, body=body), self.case.now)

        async def test_signature_headers(self) -> None:
            """A signature header that is absent or malformed is refused, and causes no other error."""
            request = self._signed_request()
            connector = await self.prepared()
            for name in self.case.signature_headers:
                without = {header: value for header, value in request.headers.items() if header != name}
                with self.assertRaises(CredentialsRejected):
                    connector.verify(structs.replace(request, headers=without), self.case.now)
                for value in HOSTILE_HEADERS:
                    with self.assertRaises(CredentialsRejected):
                        connector.verify(structs.replace(request, headers={**without, name: value}), self.case.now)

        async def test_early_check(self) -> None:
            """Where the headers are checked first, a right request passes, and one without its signature does not."""
            request = self._signed_request()
            connector = await self.prepared()
            if not IEarlyReceiver.providedBy(connector):
                self.skipTest("checks no headers first")
            verifyObject(IEarlyReceiver, connector)
            connector.check_headers(request.headers)
            for name in self.case.signature_headers:
                without = {header: value for header, value in request.headers.items() if header != name}
                with self.assertRaises(CredentialsRejected):
                    connector.check_headers(without)
                for value in HOSTILE_HEADERS:
                    with suppress(CredentialsRejected):
                        connector.check_headers({**without, name: value})
            with self.assertRaises(CredentialsRejected):
                connector.check_headers({})

        async def test_rotation(self) -> None:
            """Every value of a secret is tried; when the right one is not among them, the request is refused."""
            request = self._signed_request()
            for name in self.case.plugin.required_secrets:
                right = self.case.binding.secrets[name]
                other = self.case.other_secret
                for values, accepted in (((other, *right), True), ((*right, other), True), ((other,), False)):
                    secrets = {**self.case.binding.secrets, name: values}
                    connector = await self.prepared(evolve(self.case.binding, secrets=secrets))
                    if accepted:
                        connector.verify(request, self.case.now)
                    else:
                        with self.assertRaises(CredentialsRejected):
                            connector.verify(request, self.case.now)

        async def test_hostile_bodies(self) -> None:
            """No body does anything but be refused as invalid or be kept; nothing crashes, nothing loops."""
            request = self.receiver_request()
            connector = await self.prepared()
            for body in HOSTILE_BODIES:
                for content_type in ("application/json", "application/x-www-form-urlencoded", "\xff"):
                    headers = {**request.headers, "content-type": content_type}
                    try:
                        meaning = connector.normalize(structs.replace(request, body=body, headers=headers))
                    except (PayloadInvalid, CredentialsRejected) as error:
                        self.assertTrue(str(error))
                    else:
                        self.assertIsInstance(meaning, (Events, Respond, Reject))

        def _signed_request(self) -> InboundRequest:
            request = self.receiver_request()
            if self.case.plugin.authentication != PUBLIC or not self.case.signature_headers:
                self.skipTest("its provider signs nothing")
            return request

    return ConnectorTests


async def _finish(result: Any) -> Any:
    """Wait for a Deferred or a coroutine; take anything else as it is."""
    return await result if inspect.isawaitable(result) else result
