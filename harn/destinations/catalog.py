"""The destinations of this installation: those of harn and of other packages, all found as Twisted plugins."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct, field
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from harn.destinations.interfaces import IDestinationPlugin
from harn.discovery import PACKAGES, find_plugins, home_of
from harn.manifest.interfaces import SchemeRules
from harn.model.problem import Problem

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.ASCII)


class DestinationCatalog(Struct, frozen=True, kw_only=True):
    """
    All schemes, and what is wrong with the plugins that are not among them.

    :ivar plugins: by scheme.
    :ivar schemes: what the manifest may say about each (`harn.manifest.interfaces.SchemeRules`).
    :ivar problems: one for each plugin that could not be used. Modules that cannot be imported are problems of the
        connectors' catalog, which looks in the same places.
    """

    plugins: Mapping[str, IDestinationPlugin]
    schemes: Mapping[str, SchemeRules]
    problems: tuple[Problem, ...] = field(default=())

    @classmethod
    def discover(cls, packages: Sequence[str] = PACKAGES) -> DestinationCatalog:
        """Find every plugin in ``packages``. Imports their modules, so: once, at start."""
        found, _ = find_plugins(IDestinationPlugin, packages)
        return cls.of(found)

    @classmethod
    def of(cls, plugins: Iterable[IDestinationPlugin]) -> DestinationCatalog:
        """Check plugins and order them by scheme; of two for one, harn's own wins, else the first by module name."""
        usable: dict[str, IDestinationPlugin] = {}
        rules: dict[str, SchemeRules] = {}
        wrong: list[Problem] = []
        own = "harn.destinations."
        for plugin in sorted(plugins, key=lambda plugin: (not home_of(plugin).startswith(own), home_of(plugin))):
            try:
                rule = _rules(plugin)
            except Exception as error:
                message = f"{type(plugin).__name__} is not a usable destination plugin: {error}"
                hint = "fix or uninstall the package that contains it"
            else:
                if rule.scheme not in usable:
                    usable[rule.scheme] = plugin
                    rules[rule.scheme] = rule
                    continue
                other = home_of(usable[rule.scheme])
                message = f"scheme {rule.scheme!r} already belongs to {other}; this plugin is not used"
                hint = "uninstall one of the two packages, or give the scheme another name"
            wrong.append(Problem(file=home_of(plugin), message=message, hint=hint))
        return cls(plugins=usable, schemes=rules, problems=tuple(wrong))

    def plugin(self, scheme: str) -> IDestinationPlugin:
        """
        Return the plugin of a scheme.

        :raises KeyError: there is none; a checked manifest names none that is not there.
        """
        return self.plugins[scheme]


def _rules(plugin: IDestinationPlugin) -> SchemeRules:
    """
    Return the manifest's rules of a plugin.

    :raises Exception: it does not keep its interface's promise; whatever its attributes raise.
    """
    try:
        verifyObject(IDestinationPlugin, plugin)
    except Invalid as error:
        raise ValueError(" ".join(str(error).split())) from error
    if not isinstance(plugin.scheme, str) or not _SCHEME.fullmatch(plugin.scheme):
        raise ValueError(f"scheme must be lower-case letters, digits, + . and -, got {plugin.scheme!r}")
    if not isinstance(plugin.example, str) or not plugin.example:
        raise ValueError(f"example must be a handler, got {plugin.example!r}")
    return SchemeRules(
        scheme=plugin.scheme,
        example=plugin.example,
        plugin=plugin,
        is_remote=bool(getattr(plugin, "is_remote", True)),
    )
