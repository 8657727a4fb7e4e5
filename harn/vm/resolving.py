"""Imports under way in an interpreter: which module, and, should they come to no end, at which line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from harn.vm.sources import BundleProblem

ASKING = 2.0
"""Seconds between two questions where an import is."""
IMPORTS = -1
"""Number of the pings that ask that."""


@define
class Resolving:
    """A resolve under way: ``importing`` is the module that is being imported."""

    references: list[str]
    answered: Deferred[list[BundleProblem]]
    importing: str = ""


def ask_where(
    reactor: Any, answered: Deferred[list[BundleProblem]], ping: Callable[[int], None]
) -> Deferred[list[BundleProblem]]:
    """Ask from time to time where the import is, until ``answered`` has fired; gives that."""
    asking = LoopingCall(ping, IMPORTS)
    asking.clock = reactor
    asking.start(ASKING, now=False)

    def stop(result: Any) -> Any:
        asking.stop()
        return result

    return answered.addBoth(stop)


def still_importing(under_way: Iterable[Resolving], where: str) -> str:
    """Say which module is being imported, and at which line that was last; empty when none is."""
    for resolving in under_way:
        if resolving.importing:
            return f"module {resolving.importing!r} is still being imported" + (f", at {where}" if where else "")
    return ""
