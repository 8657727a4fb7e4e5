"""What ``harn connector check`` finds in a plugin, and what it says about a package that it cannot check."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from harn.connectors.interfaces import ConnectorContext, IConnectorPlugin
from harn.connectors.providers.stripe import STRIPE
from harn.connectors.providers.webhook import WebhookPlugin
from harn.errors import PackageUnknown
from harn.testing.checking import Outcome, check_package, check_plugin
from harn.testing.connectors import ConnectorCase
from tests.connectors.examples import webhook_case
from tests.connectors.test_suite import Credulous


class Exemplary(WebhookPlugin):
    """The generic webhook's plugin, with an example of its use."""

    def connector_case(self) -> ConnectorCase:
        """Return the example."""
        return webhook_case("github")


@implementer(IConnectorPlugin)
class Careless(WebhookPlugin):
    """A plugin whose connector verifies nothing."""

    def connector(self, context: ConnectorContext) -> Any:
        """Return the connector."""
        return Credulous(context)

    def connector_case(self) -> ConnectorCase:
        """Return an example that uses this plugin."""
        case = webhook_case("github")
        return ConnectorCase(
            plugin=self, binding=case.binding, request=case.request, signature_headers=case.signature_headers
        )


class CheckPluginTests(SynchronousTestCase):
    """`check_plugin`."""

    def test_declared(self) -> None:
        """A declared provider is checked with the example of its declaration."""
        checked = check_plugin(STRIPE)
        self.assertEqual((checked.provider, checked.module), ("stripe", "harn.connectors.providers.stripe"))
        self.assertEqual(checked.count(Outcome.FAILED), 0, checked)
        self.assertGreater(checked.count(Outcome.PASSED), 10)

    def test_without_example(self) -> None:
        """A plugin without an example is checked as far as that needs no request."""
        skipped = {check.name for check in check_plugin(WebhookPlugin()).checks if check.status is Outcome.SKIPPED}
        self.assertIn("altered body", skipped)
        self.assertNotIn("required secrets", skipped)

    def test_own_example(self) -> None:
        """The example of a plugin is used."""
        checks = check_plugin(Exemplary()).checks
        self.assertIn(("altered body", Outcome.PASSED), [(check.name, check.status) for check in checks])

    def test_faulty(self) -> None:
        """A connector that verifies nothing fails the checks of signatures, with a reason."""
        failed = {
            check.name: check.detail for check in check_plugin(Careless()).checks if check.status is Outcome.FAILED
        }
        self.assertIn("altered body", failed)
        self.assertIn("CredentialsRejected", failed["altered body"])


class CheckPackageTests(SynchronousTestCase):
    """`check_package`."""

    def test_chosen(self) -> None:
        """Only the providers that are asked for are checked."""
        found = check_package("harn.connectors", ("slack",))
        self.assertEqual([each.provider for each in found.checked_connectors], ["slack"])
        self.assertEqual((found.status, found.warnings), ("ok", ()))

    def test_warned(self) -> None:
        """A plugin without an example is named."""
        found = check_package("harn.connectors.providers.webhook")
        self.assertEqual(found.status, "ok")
        self.assertIn("webhook: no example request", found.warnings[0])

    def test_our_own(self) -> None:
        """All connectors of this package pass the suite that those of others are checked with."""
        found = check_package("harn.connectors")
        self.assertEqual([each.provider for each in found.checked_connectors if each.count(Outcome.FAILED)], [])
        self.assertEqual(found.status, "ok")

    def test_unknown(self) -> None:
        """A package or provider that is not there is named, and what is there beside it."""
        for package, providers, expected in (
            ("no_such_package", (), "there is no package 'no_such_package'"),
            ("..acme", (), "there is no package '..acme'"),
            ("harn.model", (), "brings no connector plugin; its providers: none"),
            ("harn.connectors.providers.slack", ("acme",), "brings no provider acme; its providers: slack"),
        ):
            with self.assertRaises(PackageUnknown) as caught:
                check_package(package, providers)
            self.assertIn(expected, str(caught.exception))
