"""Our connectors against the suite that every connector must pass."""

from __future__ import annotations

from harn.connectors.providers.slack import SLACK
from harn.connectors.providers.stripe import STRIPE
from harn.testing.connectors import make_connector_tests, signed_case
from tests.connectors.examples import a2a_push_case, github_case, webhook_case


class GithubContractTests(make_connector_tests(github_case)):
    """``github``."""


class StandardWebhookContractTests(make_connector_tests(lambda: webhook_case("standard"))):
    """``webhook`` with the scheme of Standard Webhooks."""


class StripeWebhookContractTests(make_connector_tests(lambda: webhook_case("stripe"))):
    """``webhook`` with the scheme of Stripe."""


class GithubWebhookContractTests(make_connector_tests(lambda: webhook_case("github"))):
    """``webhook`` with the scheme of GitHub."""


class SlackWebhookContractTests(make_connector_tests(lambda: webhook_case("slack"))):
    """``webhook`` with the scheme of Slack."""


class SlackContractTests(make_connector_tests(lambda: signed_case(SLACK))):
    """``slack``."""


class StripeContractTests(make_connector_tests(lambda: signed_case(STRIPE))):
    """``stripe``."""


class A2aPushContractTests(make_connector_tests(a2a_push_case)):
    """``a2a-push``."""
