"""The connectors and destinations that come with harn, registered like third-party ones."""

from __future__ import annotations

from harn.connectors.a2a_push import A2aPushPlugin
from harn.connectors.github import GITHUB
from harn.connectors.slack import SLACK
from harn.connectors.stripe import STRIPE
from harn.connectors.webhook import WebhookPlugin
from harn.destinations.targets import LocalPlugin

__all__ = ["GITHUB", "SLACK", "STRIPE", "a2a_push", "local", "webhook"]

webhook = WebhookPlugin()
a2a_push = A2aPushPlugin()
local = LocalPlugin()
