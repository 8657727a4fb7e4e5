"""The connectors and destinations that come with harn, registered like third-party ones."""

from __future__ import annotations

from harn.connectors.a2a_push import A2aPushPlugin
from harn.connectors.any_sender import BASIC, HMAC, TOKEN
from harn.connectors.bitbucket import BITBUCKET
from harn.connectors.cloudevents import CLOUDEVENTS
from harn.connectors.cron import CronPlugin
from harn.connectors.discord import DISCORD
from harn.connectors.gitea import FORGEJO, GITEA
from harn.connectors.github import GITHUB
from harn.connectors.gitlab import GITLAB
from harn.connectors.linear import LINEAR
from harn.connectors.notion import NOTION
from harn.connectors.pagerduty import PAGERDUTY
from harn.connectors.poll import PollPlugin
from harn.connectors.sendgrid import SENDGRID
from harn.connectors.sentry import SENTRY
from harn.connectors.shopify import SHOPIFY
from harn.connectors.slack import SLACK
from harn.connectors.standard import STANDARD
from harn.connectors.stripe import STRIPE
from harn.connectors.twilio import TWILIO
from harn.connectors.webhook import WebhookPlugin
from harn.connectors.zendesk import ZENDESK
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
