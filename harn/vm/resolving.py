"""Imports under way in an interpreter: which module, and, if they do not end, at which line."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from harn.vm.sources import BundleProblem

ASKING = 2.0
"""Seconds between two pings that ask for the line."""
IMPORTS = -1
"""The number of these pings."""


@define
class Resolving:
    """A resolve under way: ``importing`` is the module that is being imported."""

    references: list[str]
    answered: Deferred[list[BundleProblem]]
    importing: str = ""


def ask_where(
    reactor: Any, answered: Deferred[list[BundleProblem]], ping: Callable[[int], None]
) -> Deferred[list[BundleProblem]]:
    """Send a ping from time to time, until ``answered`` has fired; return ``answered``."""
    asking = LoopingCall(ping, IMPORTS)
    asking.clock = reactor
    asking.start(ASKING, now=False)

    def stop(result: Any) -> Any:
        asking.stop()
        return result

    return answered.addBoth(stop)


def still_importing(under_way: Iterable[Resolving], where: str) -> str:
    """Return the module that is being imported, and its latest line; empty if none is."""
    for resolving in under_way:
        if resolving.importing:
            return f"module {resolving.importing!r} is still being imported" + (f", at {where}" if where else "")
    return ""
