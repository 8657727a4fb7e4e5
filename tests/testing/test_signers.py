"""Requests as each sender makes and signs them: each provider accepts its own, and no other's secret."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.interfaces import ConnectorBinding, IConnectorPlugin
from harn.connectors.providers.any_sender import BASIC
from harn.connectors.providers.discord import DISCORD
from harn.connectors.receivers import ConfiguredProvider
from harn.errors import CredentialsRejected
from harn.plugins import builtin
from harn.testing.signers import (
    ED25519_PRIVATE,
    ED25519_PUBLIC,
    STANDARD_SECRET,
    example_request,
    example_secret,
    signed_request,
)
from tests.connectors.examples import NOW, connector

PLUGINS = [each for each in vars(builtin).values() if IConnectorPlugin.providedBy(each)]


class SignersTests(SynchronousTestCase):
    def test_every_provider(self) -> None:
        """What is signed as the sender does is accepted with the same secret, and refused with another."""
        tried = []
        for plugin in PLUGINS:
            if "webhook" not in plugin.kinds or plugin.provider == "github":
                continue  # nothing is signed by senders; and no example of its own
            table: Any = dict(plugin.example_settings) if isinstance(plugin, ConfiguredProvider) else None
            declared = plugin.declared(table) if isinstance(plugin, ConfiguredProvider) else plugin
            secret, key = example_secret(getattr(declared, "scheme", BASIC.declared({}).scheme))
            names = plugin.required_secrets or plugin.optional_secrets[:1]
            secrets = dict.fromkeys(names, (secret,))
            request = example_request(plugin, secrets, "/x", NOW, table)
            private = key if getattr(getattr(declared, "scheme", None), "signs_privately", False) else None
            request = signed_request(plugin, secrets, request, NOW, table, private)
            made = self.receiver(plugin, table, secrets)
            made.verify(request, NOW)
            made.normalize(request)
            if private is None:
                other = self.receiver(plugin, table, dict.fromkeys(names, (b"b3RoZXItc2VjcmV0",)))
                with self.assertRaises(CredentialsRejected):
                    other.verify(request, NOW)
            tried.append(plugin.provider)
        webhooks = [each for each in PLUGINS if "webhook" in each.kinds]
        self.assertEqual(len(tried), len(webhooks) - 1)

    def receiver(self, plugin: Any, table: Any, secrets: Any) -> Any:
        binding = ConnectorBinding(
            trigger_id="t",
            provider=plugin.provider,
            kind="webhook",
            path="/x",
            events=(),
            settings=table,
            secrets=secrets,
        )
        return connector(plugin, binding)

    def test_kind(self) -> None:
        """An example of another kind has that kind where the sender has it in one place."""
        secrets = {"signing_secret": (STANDARD_SECRET,)}
        for plugin, kind in (
            (builtin.SHOPIFY, "orders/paid"),
            (builtin.GITEA, "pull_request.closed"),
            (builtin.PAGERDUTY, "incident.resolved"),
            (builtin.STANDARD, "a.b"),
            (builtin.STRIPE, "invoice.paid"),
            (builtin.webhook, "w"),
        ):
            request = example_request(plugin, secrets, "/x", NOW, None, kind)
            (event,) = self.receiver(plugin, None, secrets).normalize(request).events
            self.assertEqual(event.kind, kind)
        with self.assertRaisesRegex(ValueError, "depends on the message"):
            example_request(builtin.SLACK, secrets, "/x", NOW, None, "app_mention")

    def test_time_in_the_body(self) -> None:
        """A time that is signed as a part of the body is the one that was asked for, so that it is accepted then."""
        secrets = {"signing_secret": (STANDARD_SECRET,)}
        request = signed_request(
            builtin.LINEAR, secrets, example_request(builtin.LINEAR, secrets, "/x", NOW + 9e6), NOW + 9e6
        )
        receiver = self.receiver(builtin.LINEAR, None, secrets)
        receiver.verify(request, NOW + 9e6)
        self.assertEqual(len(receiver.normalize(request).events), 1)

    def test_private_keys(self) -> None:
        """A public key signs nothing: the message says what to do; the private key does."""
        secrets = {"signing_secret": (ED25519_PUBLIC,)}
        request = example_request(DISCORD, secrets, "/x", NOW)
        with self.assertRaisesRegex(ValueError, "discord signs with a private key"):
            signed_request(DISCORD, secrets, request, NOW)
        signed_request(DISCORD, secrets, request, NOW, None, ED25519_PRIVATE)
        with self.assertRaisesRegex(ValueError, "does not say how its sender signs"):
            signed_request(builtin.poll, {}, request, NOW)
