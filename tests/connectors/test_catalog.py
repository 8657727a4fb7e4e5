"""Plugins are found wherever they are installed, and a bad one costs only itself."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.connectors.catalog import Catalog
from harn.connectors.providers.a2a_push import A2aPushPlugin
from harn.connectors.providers.github import GITHUB
from harn.connectors.providers.webhook import WebhookPlugin

PLUGIN = """
from twisted.plugin import IPlugin
from zope.interface import implementer
from harn.interfaces import PUBLIC, IConnectorPlugin

@implementer(IPlugin, IConnectorPlugin)
class AcmePlugin:
    provider = "{provider}"
    kinds = ("webhook",)
    table = None
    schema = None
    required_secrets = ()
    optional_secrets = ()
    authentication = PUBLIC

    def connector(self, context):
        raise NotImplementedError

acme = AcmePlugin()
"""


class CatalogTests(SynchronousTestCase):
    """What a catalog is made of."""

    def test_ours(self) -> None:
        """The built-in connectors are found in the same way as third-party ones, without a problem."""
        catalog = Catalog.discover()
        self.assertEqual(catalog.problems, ())
        self.assertEqual(
            sorted(catalog.plugins),
            [
                *("a2a-push", "basic", "bitbucket", "cloudevents", "cron", "discord", "forgejo", "gitea", "github"),
                *("gitlab", "hmac", "linear", "notion", "pagerduty", "poll", "sendgrid", "sentry", "shopify"),
                *("slack", "standard", "stripe", "token", "twilio", "webhook", "zendesk"),
            ],
        )
        self.assertIs(catalog.plugin("github"), GITHUB)
        self.assertRaises(KeyError, catalog.plugin, "acme")

    def test_rules(self) -> None:
        """The manifest's rules of a provider are those that its plugin states."""
        rules = Catalog.of([WebhookPlugin(), A2aPushPlugin()]).providers["webhook"]
        self.assertEqual(
            (rules.kinds, rules.table, rules.required_secrets), (("webhook",), "webhook", ("signing_secret",))
        )
        self.assertIs(rules.schema, WebhookPlugin.schema)

    def test_two_for_one_provider(self) -> None:
        """A built-in plugin wins over another with the same provider, in any order, and a problem names both."""

        class ForeignPlugin(WebhookPlugin):
            """Says that it is GitHub too."""

            provider = "github"

        for plugins in ([GITHUB, ForeignPlugin()], [ForeignPlugin(), GITHUB]):
            catalog = Catalog.of(plugins)
            self.assertIs(catalog.plugin("github"), GITHUB)
            (problem,) = catalog.problems
            self.assertEqual(problem.file, __name__)
            self.assertIn("'github' is harn.connectors.providers.github's", problem.message)

    def test_broken_promises(self) -> None:
        """A plugin that does not keep its interface's promise is a problem that says how."""

        class Explosive(A2aPushPlugin):
            """Raises when it is asked."""

            @property
            def kinds(self) -> Any:  # type: ignore[override]
                raise RuntimeError("boom")

        def changed(**attributes: Any) -> A2aPushPlugin:
            plugin = A2aPushPlugin()
            for name, value in attributes.items():
                setattr(plugin, name, value)
            return plugin

        for plugin, said in (
            (changed(provider=""), "provider"),
            (changed(kinds="webhook"), "kinds"),
            (changed(kinds=(1,)), "kinds"),
            (changed(authentication="none"), "authentication"),
            (changed(table=None), "table and schema"),
            (changed(connector=None), "connector"),
            (Explosive(), "boom"),
        ):
            catalog = Catalog.of([plugin, WebhookPlugin()])
            self.assertEqual(sorted(catalog.plugins), ["webhook"])
            (problem,) = catalog.problems
            self.assertIn(said, problem.message)


class DiscoverTests(SynchronousTestCase):
    """Modules of a plugin package on disk, imported for real."""

    def setUp(self) -> None:
        self.root = os.path.abspath(self.mktemp())
        self.package = f"acme_{id(self)}"
        self.directory = os.path.join(self.root, self.package)
        os.makedirs(self.directory)
        self.write("__init__", "")
        sys.path.insert(0, self.root)
        self.addCleanup(sys.path.remove, self.root)
        self.addCleanup(self.forget)

    def forget(self) -> None:
        """Remove the modules that were imported."""
        for name in [name for name in sys.modules if name.partition(".")[0] == self.package]:
            del sys.modules[name]

    def write(self, module: str, source: str) -> None:
        """Write one module of the package."""
        with open(os.path.join(self.directory, f"{module}.py"), "w") as file:
            file.write(source)
        importlib.invalidate_caches()

    def test_found(self) -> None:
        """A module that holds a plugin is a provider, as soon as it is there."""
        self.write("acme", PLUGIN.format(provider="acme"))
        catalog = Catalog.discover([self.package])
        self.assertEqual((sorted(catalog.plugins), catalog.problems), (["acme"], ()))

    def test_broken_modules(self) -> None:
        """Modules that cannot be imported are each named with their error; the others are found."""
        self.write("acme", PLUGIN.format(provider="acme"))
        self.write("missing", "import no_such_module_anywhere\n")
        self.write("syntax", "def (:\n")
        self.write("leaving", "raise SystemExit(3)\n")
        catalog = Catalog.discover([self.package])
        self.assertEqual(len(self.flushLoggedErrors()), 3)
        self.assertEqual(sorted(catalog.plugins), ["acme"])
        self.assertEqual(
            sorted(problem.file for problem in catalog.problems),
            [f"{self.package}.{name}" for name in ("leaving", "missing", "syntax")],
        )
        said = {problem.file.rpartition(".")[2]: problem.message for problem in catalog.problems}
        self.assertIn("ModuleNotFoundError: No module named 'no_such_module_anywhere'", said["missing"])
        self.assertIn("SyntaxError", said["syntax"])
        self.assertIn("SystemExit", said["leaving"])

    def test_hostile_object(self) -> None:
        """An object that breaks the search itself is a problem, not the end of the server."""
        self.write(
            "hostile", "class H:\n    def __conform__(self, interface):\n        raise ValueError('no')\nh = H()\n"
        )
        catalog = Catalog.discover([self.package])
        self.flushLoggedErrors()
        (problem,) = catalog.problems
        self.assertEqual(problem.file, f"{self.package}.hostile")

    def test_other_failures_are_not_ours(self) -> None:
        """What others log meanwhile is not taken for a plugin's failure."""
        self.write(
            "acme",
            "from twisted.logger import Logger\n"
            "from twisted.python.failure import Failure\n"
            "Logger().failure('elsewhere', Failure(ValueError('elsewhere')))\n" + PLUGIN.format(provider="acme"),
        )
        catalog = Catalog.discover([self.package])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual((sorted(catalog.plugins), catalog.problems), (["acme"], ()))

    def test_plugins_package_extends(self) -> None:
        """A directory ``harn/plugins`` without ``__init__.py`` on the path belongs to ``harn.plugins``."""
        elsewhere = os.path.join(self.root, "harn", "plugins")
        os.makedirs(elsewhere)
        script = "import harn.plugins; print(harn.plugins.__path__)"
        import subprocess

        shown = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([self.root, os.getcwd(), *sys.path])},
            capture_output=True,
            text=True,
            check=True,
        )
        self.assertIn(elsewhere, shown.stdout)
