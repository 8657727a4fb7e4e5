"""
The interfaces of connectors. Harn's own connectors use the same ones as third-party connectors.

Order of life, which `harn.testing.connectors` checks: ``prepare`` once, ``activate`` at most once after it, ``quiesce``
at most once, ``close`` exactly once (after a failed ``prepare`` too). ``prepare``, ``activate`` and ``close`` may
return a Deferred, be coroutines, or plain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.plugin import IPlugin
from zope.interface import Attribute, Interface

from harn.connectors.model import ConnectorContext, Normalized, NormalizedEvent
from harn.model.exchange import InboundRequest

Headers = Mapping[str, str]
PUBLIC = "public"
CREDENTIALS = "credentials"


class IConnector(Interface):
    """Receives or produces events of one provider for one trigger."""

    def prepare() -> Any:
        """Acquire everything that can fail; have no effect visible outside."""

    def activate() -> Any:
        """Start; its own events go through the gate, which may still be shut."""

    def quiesce() -> None:
        """Accept no new work, at once. Requests that hold a lease may still be verified and normalized."""

    def close() -> Any:
        """Release everything."""


class IReceiver(IConnector):
    """A connector whose events come as requests to the trigger's route."""

    def verify(inbound: InboundRequest, now: float) -> None:
        """
        Check that the provider sent it. Pure computation on raw bytes, in constant time.

        :param now: seconds, Unix.
        :raises CredentialsRejected: one of its classes.
        """

    def normalize(inbound: InboundRequest) -> Normalized:
        """
        Convert a request to events or an answer. Pure computation.

        :raises PayloadInvalid: the body does not have the provider's format.
        """


class IEarlyReceiver(IReceiver):
    """A receiver that can refuse a request by its headers, before the body is read."""

    def check_headers(headers: Mapping[str, str]) -> None:
        """
        Check that the headers which carry the signature are present. Pure computation; `verify` checks the signature
        itself.

        :param headers: names in lower case.
        :raises CredentialsRejected: one of its classes.
        """


class IConnectorPlugin(IPlugin):
    """One provider; found with ``twisted.plugin.getPlugins`` in ``harn.plugins``."""

    provider: str = Attribute("For example ``github``: the value of ``provider`` in the manifest.")
    kinds: Sequence[str] = Attribute("Trigger kinds, for example ``('webhook',)``.")
    table: str | None = Attribute("The provider's own table in a trigger, for example ``webhook``; None for none.")
    schema: Any = Attribute("A `harn.manifest.interfaces.ISettingsSchema` for that table; None for none.")
    required_secrets: Sequence[str] = Attribute("Names that a trigger's ``secrets`` must have.")
    optional_secrets: Sequence[str] = Attribute("Names that it may have.")
    authentication: str = Attribute("`PUBLIC` (the provider's signature decides) or `CREDENTIALS` (harn's own).")

    def connector(context: ConnectorContext) -> IConnector:
        """Make a connector for one trigger; acquire nothing yet."""


class IEventSink(Interface):
    """Takes the events that connectors start themselves, through their gates."""

    def take(trigger_id: str, event: NormalizedEvent) -> Deferred[None]:
        """
        Accept an event for the newest version of a trigger.

        :return: fires when the event is durable; fails with `GateShut` when the trigger is not in force.
        """


class IScheme(Interface):
    """One way of signing requests. Pure computation."""

    name: str = Attribute("For example ``standard``.")

    def key(secret: bytes) -> bytes:
        """
        Return the key for a configured secret.

        :raises ValueError: it is not a key; the message does not quote it.
        """

    def verify(keys: Sequence[bytes], headers: Headers, body: bytes, now: float, tolerance: int) -> None:
        """
        Check that the sender signed ``body`` with one of ``keys``, and did so recently if it signs a time.

        :param headers: names in lower case, as received.
        :param body: the request body before any decoding.
        :param now: seconds, Unix.
        :param tolerance: seconds either way, inclusive.
        :raises SignatureMissing: a header is absent.
        :raises SignatureStale: the time is malformed, or outside the window.
        :raises SignatureMismatch: no key made it (compared in constant time), or it is malformed.
        """

    def check_headers(headers: Headers) -> None:
        """
        Check the headers alone, before the body has arrived.

        :param headers: names in lower case.
        :raises SignatureMissing: a header that carries the signature is absent; names one.
        """

    def sign(key: bytes, body: bytes, now: float) -> dict[str, str]:
        """
        Return the headers, spelled as the sender does, with which ``body`` is verified at ``now`` (seconds, Unix).
        """
