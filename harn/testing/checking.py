"""
Run the public connector suite against the connectors of one installed package; see ``harn connector check``.

A package belongs to the check if its import name, the module of its plugin or its distribution name is the one asked
for. A plugin may offer a complete example of its use by a method ``connector_case`` that returns a
`harn.testing.connectors.ConnectorCase`; without one, only what needs no request is checked.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
from collections.abc import Collection
from enum import Enum
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import Struct
from twisted.trial.reporter import TestResult
from twisted.trial.unittest import TestCase

from harn.connectors.catalog import Catalog
from harn.connectors.interfaces import ConnectorBinding, IConnectorPlugin
from harn.connectors.receivers import ConfiguredProvider, SignedProvider
from harn.discovery import home_of
from harn.errors import PackageUnknown
from harn.testing.connectors import ConnectorCase, make_connector_tests, signed_case

_EXAMPLE_SECRET = b"d2hhdCBhbiBleGFtcGxlIHNpZ25zIHdpdGg="
"""Base64, since some schemes decode their secret."""


class Outcome(Enum):
    """The outcome of one check of the suite."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class Check(msgspec.Struct, frozen=True):
    """
    One test of the suite.

    :ivar detail: why it failed or was skipped; empty where it passed.
    """

    name: str
    status: Outcome
    detail: str = ""


class CheckedConnector(msgspec.Struct, frozen=True):
    """The checks of one plugin."""

    provider: str
    module: str
    kinds: tuple[str, ...]
    checks: tuple[Check, ...]

    def count(self, outcome: Outcome) -> int:
        """Return how many checks had this outcome."""
        return sum(check.status is outcome for check in self.checks)


class CheckedPackage(msgspec.Struct, frozen=True):
    """
    The checks of one package.

    :ivar status: ``ok`` or ``failed``.
    :ivar problems: plugins of the package that could not be used at all.
    """

    package: str
    status: str
    checked_connectors: tuple[CheckedConnector, ...]
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class _Modules(Struct, frozen=True):
    """The modules of a package; ``names`` are those of its distribution or folder, if it is one."""

    package: str
    names: frozenset[str]

    @classmethod
    def of(cls, package: str) -> _Modules:
        """Find the modules of a package by its import name, the name of its distribution, or its source folder."""
        if os.path.isdir(package):
            root = source_root(Path(package))
            sys.path.insert(0, str(root))
            files = [file.relative_to(root) for file in root.rglob("*.py") if not _is_hidden(file.relative_to(root))]
            return cls(package, frozenset(map(_module_name, files)))
        try:
            installed = importlib.metadata.distribution(package).files or []
        except (importlib.metadata.PackageNotFoundError, ValueError):
            installed = []
        return cls(package, frozenset(_module_name(Path(file)) for file in installed if file.suffix == ".py"))

    def __contains__(self, module: str) -> bool:
        return module == self.package or module.startswith(f"{self.package}.") or module in self.names

    def is_known(self) -> bool:
        """Return whether there is such a package."""
        if self.names:
            return True
        try:
            importlib.import_module(self.package)
        except ImportError as error:
            # The package is there, but something that it imports is not.
            return error.name is not None and not f"{self.package}.".startswith(f"{error.name}.")
        except Exception:
            # Its own code raised: the catalog reports that. A name that begins with a dot is never a module's.
            return not self.package.startswith(".")
        return True


def source_root(folder: Path) -> Path:
    """Return the folder to import a package's modules from: its ``src``, where there is one."""
    folder = folder.resolve()
    return folder / "src" if (folder / "src").is_dir() else folder


def check_package(package: str, providers: Collection[str] = ()) -> CheckedPackage:
    """
    Run the suite against every connector of a package.

    :param package: for example ``harn.plugins.acme``, the distribution ``harn-acme``, or the folder of its source,
        which is put on the path.
    :param providers: the provider ids to check; empty for all.
    :raises PackageUnknown: there is no such package, or it brings no such connector.
    """
    modules = _Modules.of(package)
    if not modules.is_known():
        raise PackageUnknown(
            f"there is no package {package!r}; give a name that Python imports, for example harn.plugins.acme, the "
            f"name of a distribution that is installed in {sys.prefix}, or the folder of its source"
        )
    catalog = Catalog.discover()
    plugins = [plugin for plugin in catalog.plugins.values() if home_of(plugin) in modules]
    problems = tuple(dict.fromkeys(str(problem) for problem in catalog.problems if problem.file in modules))
    chosen = [plugin for plugin in plugins if not providers or plugin.provider in providers]
    missing = sorted(set(providers) - {plugin.provider for plugin in chosen})
    if missing or not (chosen or problems):
        known = ", ".join(sorted(plugin.provider for plugin in plugins)) or "none"
        wanted = f"no provider {', '.join(missing)}" if missing else "no connector plugin"
        raise PackageUnknown(f"{package} brings {wanted}; its providers: {known}")
    checked = tuple(check_plugin(plugin) for plugin in chosen)
    failed = bool(problems) or any(each.count(Outcome.FAILED) for each in checked)
    warnings = tuple(
        f"{plugin.provider}: no example request, so no check of a request was run; "
        "give the plugin a method connector_case, which returns a harn.testing.connectors.ConnectorCase"
        for plugin in chosen
        if not _has_example(plugin)
    )
    return CheckedPackage(package, "failed" if failed else "ok", checked, problems, warnings)


def check_plugin(plugin: IConnectorPlugin) -> CheckedConnector:
    """Run the suite against one plugin."""
    suite = make_connector_tests(lambda: _case(plugin))
    # Of this module: trial takes a name "suppress" in the module of a test for its own setting.
    tests = type("ConnectorTests", (suite,), {"__module__": __name__})
    names = [name for name in vars(suite) if name.startswith("test_")]
    checks = tuple(_run(tests, name) for name in names)
    return CheckedConnector(plugin.provider, home_of(plugin), tuple(plugin.kinds), checks)


def _run(tests: type[TestCase], name: str) -> Check:
    """Run one test of the suite."""
    result = TestResult()
    tests(name).run(result)
    label = name.removeprefix("test_").replace("_", " ")
    wrong = [*result.failures, *result.errors]
    if wrong:
        return Check(label, Outcome.FAILED, "; ".join(_reason(error) for _, error in wrong))
    if result.skips:
        return Check(label, Outcome.SKIPPED, str(result.skips[0][1]))
    return Check(label, Outcome.PASSED)


def _reason(failure: Any) -> str:
    """Return one line that says why a test failed, and where."""
    text = failure.getErrorMessage()
    reason = " ".join(str(text).split()) or failure.type.__name__
    frames = [frame for frame in failure.frames if "/twisted/" not in frame[1] and "/unittest/" not in frame[1]]
    place = f" ({frames[-1][1]}:{frames[-1][2]})" if frames else ""
    return f"{failure.type.__name__}: {reason}{place}"


def _has_example(plugin: IConnectorPlugin) -> bool:
    if isinstance(plugin, SignedProvider):
        return plugin.example is not None
    if isinstance(plugin, ConfiguredProvider):
        return plugin.declared(plugin.example_settings).example is not None
    return callable(getattr(plugin, "connector_case", None))


def _case(plugin: IConnectorPlugin) -> ConnectorCase:
    """Return the plugin's own example, or one without a request."""
    if isinstance(plugin, SignedProvider | ConfiguredProvider) and _has_example(plugin):
        return signed_case(plugin)
    if _has_example(plugin):
        return cast("Any", plugin).connector_case()  # type: ignore[no-any-return]
    binding = ConnectorBinding(
        trigger_id=plugin.provider,
        provider=plugin.provider,
        kind=plugin.kinds[0],
        path=f"/triggers/{plugin.provider}",
        events=(),
        settings=None,
        secrets=dict.fromkeys(plugin.required_secrets, (_EXAMPLE_SECRET,)),
    )
    return ConnectorCase(plugin=plugin, binding=binding)


def _is_hidden(file: Path) -> bool:
    return any(part.startswith(".") for part in file.parts)


def _module_name(file: Path) -> str:
    """Return the module name of an installed file."""
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
