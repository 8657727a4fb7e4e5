"""A provider's rules for the manifest, so that this package does not import connectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct
from zope.interface import Interface

JsonSchema = dict[str, Any]
"""A JSON schema, as it stands in a document: values that JSON has."""


class SettingProblem(Struct, frozen=True, kw_only=True):
    """A problem in a provider's own table: ``key`` is relative to it, for example ``signature_scheme``."""

    key: str
    message: str
    hint: str = ""


class ISettingsSchema(Interface):
    """Checks a provider's own table, for example ``[triggers.webhook]``."""

    def check(table: Mapping[str, Any]) -> tuple[Any, Sequence[SettingProblem]]:
        """
        Return the settings as a frozen, canonically encodable value (None if there are problems), and every problem.
        """

    def json_schema() -> JsonSchema:
        """Return the table's JSON schema."""


class IHandlerCheck(Interface):
    """The part of a destination's plugin that the manifest's checks call."""

    def check(target: str) -> str:
        """
        Return the usual spelling of a handler of the scheme; see `IDestinationPlugin.check`.

        :raises ValueError: it is not valid; the message says what to write.
        """


class SchemeRules(Struct, frozen=True, kw_only=True):
    """
    The rules of one scheme of destinations for a trigger's handler.

    :ivar scheme: what the handler begins with, before ``://``; ``local`` for functions, which begin with none.
    :ivar example: a handler as the manifest may name it.
    :ivar plugin: checks such a handler.
    :ivar is_remote: its targets are not on this machine, so that a trigger has a circuit unless its own says otherwise.
    """

    scheme: str
    example: str
    plugin: IHandlerCheck
    is_remote: bool = False


class PluginRules(Struct, frozen=True):
    """
    The values that the plugins of an installation allow in a manifest.

    :ivar providers: by provider.
    :ivar schemes: of handlers, by scheme.
    """

    providers: Mapping[str, ProviderRules]
    schemes: Mapping[str, SchemeRules]


class ProviderRules(Struct, frozen=True, kw_only=True):
    """
    The rules of one provider for its triggers.

    :ivar kinds: trigger kinds it has, for example ``("webhook",)``.
    :ivar table: name of its own table in a trigger (``webhook``, ``a2a_push``), or None when it has none.
    :ivar keys: instead of a table: keys of the trigger itself.
    :ivar events: the kinds of its events, where they are always the same.
    :ivar schema: an `ISettingsSchema`, or None where there are neither ``table`` nor ``keys``.
    :ivar required_secrets: names that ``secrets`` must have.
    :ivar optional_secrets: names it may have.
    :ivar one_of_secrets: of these optional ones it must have one.
    """

    provider: str
    kinds: tuple[str, ...]
    table: str | None = None
    schema: Any = None
    required_secrets: tuple[str, ...] = ()
    optional_secrets: tuple[str, ...] = ()
    one_of_secrets: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
