"""Every provider by name against the suite that every connector must pass."""

from __future__ import annotations

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
from harn.connectors.providers.standard import STANDARD
from harn.connectors.providers.twilio import TWILIO
from harn.connectors.providers.zendesk import ZENDESK
from harn.testing.connectors import make_connector_tests, signed_case

TIMED = {"header": "X-Sig", "signed": "{method}.{url}.{timestamp}.{body}", "timestamp_header": "X-Time"}


class ShopifyTests(make_connector_tests(lambda: signed_case(SHOPIFY))):
    """``shopify``."""


class GitlabTests(make_connector_tests(lambda: signed_case(GITLAB))):
    """``gitlab``, signed."""


class GitlabTokenTests(make_connector_tests(lambda: signed_case(GITLAB, secret=b"shared-token", signs_body=False))):
    """``gitlab`` with a token."""


class GiteaTests(make_connector_tests(lambda: signed_case(GITEA))):
    """``gitea``."""


class ForgejoTests(make_connector_tests(lambda: signed_case(FORGEJO))):
    """``forgejo``."""


class BitbucketTests(make_connector_tests(lambda: signed_case(BITBUCKET))):
    """``bitbucket``."""


class LinearTests(make_connector_tests(lambda: signed_case(LINEAR))):
    """``linear``."""


class NotionTests(make_connector_tests(lambda: signed_case(NOTION))):
    """``notion``."""


class TwilioTests(make_connector_tests(lambda: signed_case(TWILIO))):
    """``twilio``."""


class SendgridTests(make_connector_tests(lambda: signed_case(SENDGRID))):
    """``sendgrid``."""


class DiscordTests(make_connector_tests(lambda: signed_case(DISCORD))):
    """``discord``."""


class SentryTests(make_connector_tests(lambda: signed_case(SENTRY))):
    """``sentry``."""


class PagerdutyTests(make_connector_tests(lambda: signed_case(PAGERDUTY))):
    """``pagerduty``."""


class ZendeskTests(make_connector_tests(lambda: signed_case(ZENDESK))):
    """``zendesk``."""


class CloudeventsTests(make_connector_tests(lambda: signed_case(CLOUDEVENTS))):
    """``cloudevents``, signed."""


class CloudeventsTokenTests(
    make_connector_tests(lambda: signed_case(CLOUDEVENTS, secret=b"shared-token", signs_body=False))
):
    """``cloudevents`` with a token."""


class StandardTests(make_connector_tests(lambda: signed_case(STANDARD))):
    """``standard``."""


class TokenTests(make_connector_tests(lambda: signed_case(TOKEN))):
    """``token`` in a header."""


class QueryTokenTests(make_connector_tests(lambda: signed_case(TOKEN, {"query": "t"}))):
    """``token`` in the query."""


class BasicTests(make_connector_tests(lambda: signed_case(BASIC))):
    """``basic``."""


class HmacTests(make_connector_tests(lambda: signed_case(HMAC))):
    """``hmac`` of the body."""


class TimedHmacTests(make_connector_tests(lambda: signed_case(HMAC, TIMED))):
    """``hmac`` of URL, time and body."""
