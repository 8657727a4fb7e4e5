"""Finding plugins: objects that provide an interface, in modules of the package `harn.plugins`, of any distribution."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.plugin import getPlugins
from twisted.python.failure import Failure
from zope.interface import implementer

from harn.model.problem import Problem

PACKAGES = ("harn.plugins", "twisted.plugins")
"""Packages with plugins. Given by name: the first is a layer above, and both may contain third-party modules."""


def find_plugins(interface: Any, packages: Sequence[str] = PACKAGES) -> tuple[list[Any], list[Problem]]:
    """
    Find every object in ``packages`` that provides ``interface``. Imports their modules, so: once, at start.

    :return: the objects, and a problem for each module that cannot be imported. Nothing that a module does ends this.
    """
    found: list[Any] = []
    problems: list[Problem] = []
    for name in packages:
        _find(interface, importlib.import_module(name), found, problems)
    return found, problems


def home_of(plugin: object) -> str:
    """Return the name of the module that a plugin comes from: its attribute ``home``, else its class's module."""
    home = getattr(plugin, "home", None)
    return home if isinstance(home, str) else type(plugin).__module__


def _find(interface: Any, package: ModuleType, found: list[Any], problems: list[Problem]) -> None:
    """Add the plugins of one package, and a problem for each module of it that failed."""
    failures = _Failures(package)
    globalLogPublisher.addObserver(failures)
    try:
        found.extend(getPlugins(interface, package))
    except Exception:
        failures.note(Failure())
    finally:
        globalLogPublisher.removeObserver(failures)
    problems.extend(failures.problems)


@implementer(ILogObserver)
class _Failures:
    """
    Collects the failures of modules that cannot be imported.

    ``getPlugins`` logs a module's exception and continues without it: it is reported only in the log.
    """

    def __init__(self, package: ModuleType) -> None:
        self.problems: list[Problem] = []
        self._package = package.__name__
        self._places = [os.path.join(os.path.realpath(path), "") for path in package.__path__]

    def __call__(self, event: LogEvent) -> None:
        # ``failure`` is the key of Twisted's older log, which ``getPlugins`` writes to.
        failure = event.get("log_failure", event.get("failure"))
        if isinstance(failure, Failure) and self._module(failure) is not None:
            self.note(failure)

    def note(self, failure: Failure) -> None:
        """Add a problem for a failure."""
        module = self._module(failure)
        self.problems.append(
            Problem(
                file=self._package if module is None else f"{self._package}.{module}",
                message=f"the plugin module cannot be imported: {type(failure.value).__name__}: {failure.value}",
                hint="fix or uninstall the package that brings it; the log has the traceback",
            )
        )

    def _module(self, failure: Failure) -> str | None:
        """Return the name of our package's module in whose import ``failure`` arose, or None."""
        files = [str(frame[1]) for frame in failure.frames]
        if isinstance(failure.value, SyntaxError) and failure.value.filename:
            files.append(failure.value.filename)
        for file in map(os.path.realpath, files):
            for place in self._places:
                if file.startswith(place):
                    return file.removeprefix(place).partition(os.sep)[0].removesuffix(".py")
        return None
