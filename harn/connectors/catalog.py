"""The connectors of this installation: harn's and those of other packages, all found as Twisted plugins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct, field
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from harn.connectors.interfaces import CREDENTIALS, PUBLIC, IConnectorPlugin
from harn.discovery import PACKAGES, find_plugins, home_of
from harn.manifest.interfaces import ProviderRules
from harn.model.problem import Problem


class Catalog(Struct, frozen=True, kw_only=True):
    """
    All providers, and the problems of plugins that cannot be used.

    :ivar plugins: by provider id.
    :ivar providers: the manifest's rules of each (`harn.manifest.interfaces.ProviderRules`).
    :ivar problems: one for each plugin or module that could not be used; the others work without it.
    """

    plugins: Mapping[str, IConnectorPlugin]
    providers: Mapping[str, ProviderRules]
    problems: tuple[Problem, ...] = field(default=())

    @classmethod
    def discover(cls, packages: Sequence[str] = PACKAGES) -> Catalog:
        """
        Find every plugin in ``packages``. Imports their modules, so: once, at start.

        An exception of a plugin does not end it; a module that cannot be imported is a problem that names it.
        """
        found, problems = find_plugins(IConnectorPlugin, packages)
        return cls.of(found, problems)

    @classmethod
    def of(cls, plugins: Iterable[IConnectorPlugin], problems: Iterable[Problem] = ()) -> Catalog:
        """
        Check plugins and order them by provider; of two for one provider harn's own wins, else the first by module
        name.
        """
        usable: dict[str, IConnectorPlugin] = {}
        rules: dict[str, ProviderRules] = {}
        wrong = list(problems)
        for plugin in sorted(
            plugins, key=lambda plugin: (not home_of(plugin).startswith("harn.connectors."), home_of(plugin))
        ):
            try:
                rule = _rules(plugin)
            except Exception as error:
                wrong.append(
                    Problem(
                        file=home_of(plugin),
                        message=f"{type(plugin).__name__} is not a usable connector plugin: {error}",
                        hint="fix or uninstall the package that brings it",
                    )
                )
                continue
            other = usable.get(rule.provider)
            if other is not None:
                wrong.append(
                    Problem(
                        file=home_of(plugin),
                        message=f"provider {rule.provider!r} is {home_of(other)}'s already; this plugin is not used",
                        hint="uninstall one of the two packages, or give the provider another id",
                    )
                )
                continue
            usable[rule.provider] = plugin
            rules[rule.provider] = rule
        return cls(plugins=usable, providers=rules, problems=tuple(wrong))

    def plugin(self, provider: str) -> IConnectorPlugin:
        """
        Return the plugin of a provider.

        :raises KeyError: there is none; a checked manifest uses only existing providers.
        """
        return self.plugins[provider]


def _rules(plugin: IConnectorPlugin) -> ProviderRules:
    """
    Read the manifest's rules from a plugin.

    :raises Exception: the plugin does not provide its interface, or one of its attributes raises.
    """
    try:
        verifyObject(IConnectorPlugin, plugin)
    except Invalid as error:
        raise ValueError(" ".join(str(error).split())) from error
    if not isinstance(plugin.provider, str) or not plugin.provider:
        raise ValueError("provider is not a name")
    if plugin.authentication not in (PUBLIC, CREDENTIALS):
        raise ValueError(f"authentication is neither {PUBLIC!r} nor {CREDENTIALS!r}")
    keys = getattr(plugin, "keys", ())
    if (plugin.table is None and not keys) != (plugin.schema is None):
        raise ValueError("table and schema belong together: give both or neither")
    if plugin.table is not None and keys:
        raise ValueError("settings are in a table or in keys of the trigger: give one of both")
    for name in ("kinds", "required_secrets", "optional_secrets", "keys", "events"):
        value = getattr(plugin, name, ())
        if isinstance(value, str) or not all(isinstance(entry, str) for entry in value):
            raise ValueError(f"{name} is not a sequence of strings")
    return ProviderRules(
        provider=plugin.provider,
        kinds=tuple(plugin.kinds),
        table=plugin.table,
        schema=plugin.schema,
        required_secrets=tuple(plugin.required_secrets),
        optional_secrets=tuple(plugin.optional_secrets),
        one_of_secrets=tuple(getattr(plugin, "one_of_secrets", ())),
        keys=tuple(keys),
        events=tuple(getattr(plugin, "events", ())),
    )
