"""The connectors and destinations that come with harn, registered like third-party ones."""

from __future__ import annotations

from harn.connectors.a2a_push import A2aPushPlugin
from harn.connectors.github import GithubPlugin
from harn.connectors.slack import SLACK
from harn.connectors.stripe import STRIPE
from harn.connectors.webhook import WebhookPlugin
from harn.destinations.local import LocalPlugin

__all__ = ["SLACK", "STRIPE", "a2a_push", "github", "local", "webhook"]

github = GithubPlugin()
webhook = WebhookPlugin()
a2a_push = A2aPushPlugin()
local = LocalPlugin()
