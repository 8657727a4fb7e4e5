"""The connectors of this installation: ours and those that other packages bring, all found as Twisted plugins."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType

from attrs import field, frozen
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.plugin import getPlugins
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from harn.connectors.interfaces import CREDENTIALS, PUBLIC, IConnectorPlugin
from harn.manifest.interfaces import ProviderRules
from harn.model.problem import Problem

PACKAGES = ("harn.plugins", "twisted.plugins")
"""Where plugins live. Given by name: the first is a layer above, and both may hold anybody's modules."""


@frozen(kw_only=True)
class Catalog:
    """
    All providers, and what is wrong with the plugins that are not among them.

    :ivar plugins: by provider id.
    :ivar providers: what the manifest may say about each (`harn.manifest.interfaces.ProviderRules`).
    :ivar problems: one for each plugin or module that could not be used; the others work without it.
    """

    plugins: Mapping[str, IConnectorPlugin]
    providers: Mapping[str, ProviderRules]
    problems: tuple[Problem, ...] = field(default=())

    @classmethod
    def discover(cls, packages: Sequence[str] = PACKAGES) -> Catalog:
        """
        Find every plugin in ``packages``. Imports their modules, so: once, at start.

        Nothing that a plugin does ends it; a module that cannot be imported is a problem that names it.
        """
        found: list[IConnectorPlugin] = []
        problems: list[Problem] = []
        for name in packages:
            _find(importlib.import_module(name), found, problems)
        return cls.of(found, problems)

    @classmethod
    def of(cls, plugins: Iterable[IConnectorPlugin], problems: Iterable[Problem] = ()) -> Catalog:
        """
        Check plugins and order them by provider; of two for one provider ours wins, else the first by module name.
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
                        message=f"{type(plugin).__name__} is no usable connector plugin: {error}",
                        hint="mend or uninstall the package that brings it",
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
        Give the plugin of a provider.

        :raises KeyError: there is none; a checked manifest names none that is not there.
        """
        return self.plugins[provider]


def home_of(plugin: object) -> str:
    """Return the name of the module that a plugin comes from: its attribute ``home``, else its class's module."""
    home = getattr(plugin, "home", None)
    return home if isinstance(home, str) else type(plugin).__module__


def _rules(plugin: IConnectorPlugin) -> ProviderRules:
    """
    Take the manifest's rules from a plugin.

    :raises Exception: it does not keep its interface's promise; whatever its attributes raise.
    """
    try:
        verifyObject(IConnectorPlugin, plugin)
    except Invalid as error:
        raise ValueError(" ".join(str(error).split())) from error
    if not isinstance(plugin.provider, str) or not plugin.provider:
        raise ValueError("provider is not a name")
    if plugin.authentication not in (PUBLIC, CREDENTIALS):
        raise ValueError(f"authentication is neither {PUBLIC!r} nor {CREDENTIALS!r}")
    if (plugin.table is None) != (plugin.schema is None):
        raise ValueError("table and schema belong together: give both or neither")
    for name in ("kinds", "required_secrets", "optional_secrets"):
        value = getattr(plugin, name)
        if isinstance(value, str) or not all(isinstance(entry, str) for entry in value):
            raise ValueError(f"{name} is not a sequence of strings")
    return ProviderRules(
        provider=plugin.provider,
        kinds=tuple(plugin.kinds),
        table=plugin.table,
        schema=plugin.schema,
        required_secrets=tuple(plugin.required_secrets),
        optional_secrets=tuple(plugin.optional_secrets),
    )


def _find(package: ModuleType, found: list[IConnectorPlugin], problems: list[Problem]) -> None:
    """Collect the plugins of one package, and a problem for each module of it that failed."""
    failures = _Failures(package)
    globalLogPublisher.addObserver(failures)
    try:
        found.extend(getPlugins(IConnectorPlugin, package))
    except Exception:
        failures.note(Failure())
    finally:
        globalLogPublisher.removeObserver(failures)
    problems.extend(failures.problems)


@implementer(ILogObserver)
class _Failures:
    """
    Hears which modules of a package cannot be imported.

    ``getPlugins`` logs what a module raises and goes on without it: the log is the only place that tells.
    """

    def __init__(self, package: ModuleType) -> None:
        self.problems: list[Problem] = []
        self._package = package.__name__
        self._places = [os.path.join(os.path.realpath(path), "") for path in package.__path__]

    def __call__(self, event: LogEvent) -> None:
        # ``failure`` is where Twisted's older log, which ``getPlugins`` writes to, puts it.
        failure = event.get("log_failure", event.get("failure"))
        if isinstance(failure, Failure) and self._module(failure) is not None:
            self.note(failure)

    def note(self, failure: Failure) -> None:
        """Make a problem of a failure."""
        module = self._module(failure)
        self.problems.append(
            Problem(
                file=self._package if module is None else f"{self._package}.{module}",
                message=f"the plugin module cannot be imported: {type(failure.value).__name__}: {failure.value}",
                hint="mend or uninstall the package that brings it; the log has the traceback",
            )
        )

    def _module(self, failure: Failure) -> str | None:
        """Give the name of our package's module in whose import ``failure`` arose, if it did."""
        files = [str(frame[1]) for frame in failure.frames]
        if isinstance(failure.value, SyntaxError) and failure.value.filename:
            files.append(failure.value.filename)
        for file in map(os.path.realpath, files):
            for place in self._places:
                if file.startswith(place):
                    return file.removeprefix(place).partition(os.sep)[0].removesuffix(".py")
        return None
