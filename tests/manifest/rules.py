"""Providers for the tests of the manifest: the shapes that real ones have."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from hypothesis import HealthCheck, settings
from zope.interface import implementer

from harn.errors import ManifestInvalid
from harn.manifest.interfaces import IHandlerCheck, PluginRules, ProviderRules, SchemeRules
from harn.manifest.load import LoadedManifest, check_document
from harn.manifest.source import ManifestSource
from harn.manifest.tables import StructSchema

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""For properties: a slow machine does not fail a test."""


class WebhookTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[triggers.webhook]`` of the tests."""

    signature_scheme: Literal["standard", "stripe", "github", "slack"] = "standard"
    timestamp_tolerance_secs: Annotated[int, msgspec.Meta(ge=0, description="How old a signature may be.")] = 300
    source: str | None = None
    tags: list[str] = []


class PushTable(msgspec.Struct, frozen=True, kw_only=True):
    """``[triggers.a2a_push]`` of the tests."""

    issuer: str | None = None


@implementer(IHandlerCheck)
class AnyHandlers:
    """Takes any handler."""

    def check(self, target: str) -> str:
        """See `IHandlerCheck.check`."""
        return target


@implementer(IHandlerCheck)
class Files:
    """Takes handlers that name a file."""

    def check(self, target: str) -> str:
        """See `IHandlerCheck.check`."""
        path = target.removeprefix("file://")
        if not path.startswith("/"):
            raise ValueError(
                f"must be an absolute path, got {target!r}; write for example file:///var/log/events.jsonl"
            )
        return target


PROVIDERS = {
    "webhook": ProviderRules(
        provider="webhook",
        kinds=("webhook",),
        table="webhook",
        schema=StructSchema(WebhookTable),
        required_secrets=("signing_secret",),
    ),
    "github": ProviderRules(
        provider="github",
        kinds=("webhook",),
        required_secrets=("signing_secret",),
        optional_secrets=("access_token",),
    ),
    "a2a-push": ProviderRules(
        provider="a2a-push", kinds=("a2a-push",), table="a2a_push", schema=StructSchema(PushTable)
    ),
}

RULES = PluginRules(
    PROVIDERS,
    {
        "local": SchemeRules(scheme="local", example="handlers:on_issue", plugin=AnyHandlers()),
        "file": SchemeRules(scheme="file", example="file:///var/log/events.jsonl", plugin=Files()),
    },
)


def source(text: str) -> ManifestSource:
    """Return ``text`` as the content of ``/srv/demo/harn.toml``."""
    return ManifestSource.of("/srv/demo/harn.toml", text.encode("utf-8"))


def load(text: str, previous: LoadedManifest | None = None) -> LoadedManifest:
    """Check ``text`` against `RULES`."""
    return check_document(source(text), previous, RULES)


def complaints(text: str) -> list[str]:
    """Return the problems of ``text``, as a person reads them; empty when it is right."""
    try:
        load(text)
    except ManifestInvalid as error:
        return [str(problem) for problem in error.problems]
    return []
