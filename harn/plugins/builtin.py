"""The connectors and destinations that come with harn, registered like third-party ones."""

from __future__ import annotations

from harn.connectors.providers.a2a_push import A2aPushPlugin
from harn.connectors.providers.any_sender import BASIC, HMAC, TOKEN
from harn.connectors.providers.bitbucket import BITBUCKET
from harn.connectors.providers.cloudevents import CLOUDEVENTS
from harn.connectors.providers.cron import CronPlugin
from harn.connectors.providers.discord import DISCORD
from harn.connectors.providers.gitea import FORGEJO, GITEA
from harn.connectors.providers.github import GITHUB
from harn.connectors.providers.gitlab import GITLAB
from harn.connectors.providers.linear import LINEAR
from harn.connectors.providers.notion import NOTION
from harn.connectors.providers.pagerduty import PAGERDUTY
from harn.connectors.providers.poll import PollPlugin
from harn.connectors.providers.sendgrid import SENDGRID
from harn.connectors.providers.sentry import SENTRY
from harn.connectors.providers.shopify import SHOPIFY
from harn.connectors.providers.slack import SLACK
from harn.connectors.providers.standard import STANDARD
from harn.connectors.providers.stripe import STRIPE
from harn.connectors.providers.twilio import TWILIO
from harn.connectors.providers.webhook import WebhookPlugin
from harn.connectors.providers.zendesk import ZENDESK
from harn.destinations.targets import LocalPlugin

__all__ = [
    "BASIC",
    "BITBUCKET",
    "CLOUDEVENTS",
    "DISCORD",
    "FORGEJO",
    "GITEA",
    "GITHUB",
    "GITLAB",
    "HMAC",
    "LINEAR",
    "NOTION",
    "PAGERDUTY",
    "SENDGRID",
    "SENTRY",
    "SHOPIFY",
    "SLACK",
    "STANDARD",
    "STRIPE",
    "TOKEN",
    "TWILIO",
    "ZENDESK",
    "a2a_push",
    "cron",
    "local",
    "poll",
    "webhook",
]

webhook = WebhookPlugin()
a2a_push = A2aPushPlugin()
cron = CronPlugin()
poll = PollPlugin()
local = LocalPlugin()
