"""
The resolves under way in one process: their answers, and the module and line of an import that does not end.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall

from harn.vm.calls import problem_of_flaw
from harn.vm.childprocess import ChildProcess
from harn.vm.frames import Flaw, Resolve, Resolved
from harn.vm.interfaces import PendingImport
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

    def answer(self, problems: list[BundleProblem]) -> None:
        """Answer, unless the caller has cancelled."""
        if not self.answered.called:
            self.answered.callback(problems)


class Resolves:
    """The resolves of one worker; they are all in one process, and end with it."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._under_way: dict[int, Resolving] = {}
        self._where = ""

    def begin(self, process: ChildProcess, number: int, references: Collection[str]) -> Deferred[list[BundleProblem]]:
        """Make a process import and look up ``references``; fires with a problem for each that cannot be used."""
        wanted = sorted(references)
        answered: Deferred[list[BundleProblem]] = Deferred(lambda _: process.kill("its imports were cut off"))
        self._under_way[number] = Resolving(wanted, answered)
        process.send(Resolve(number, wanted))
        asking = LoopingCall(process.ping, IMPORTS)
        asking.clock = self._reactor
        asking.start(ASKING, now=False)

        def stop(result: Any) -> Any:
            asking.stop()
            return result

        return answered.addBoth(stop)

    def import_began(self, module: str) -> None:
        """Called when the import of a module begins."""
        self._where = ""
        for resolving in self._under_way.values():
            resolving.importing = module

    def located(self, where: str) -> None:
        """Called with the line at which the import is: ``file:line``, or empty if that is not in a local module."""
        self._where = where

    def resolved(self, frame: Resolved) -> None:
        """Called with an answer of the process."""
        resolving = self._under_way.pop(frame.number, None)
        if resolving is not None:
            resolving.answer([problem_of_flaw(flaw) for flaw in frame.flaws])

    def importing(self) -> PendingImport | None:
        """Return the import that has not ended; None if none is under way."""
        for resolving in self._under_way.values():
            if resolving.importing:
                return PendingImport(f"module {resolving.importing!r} is still being imported", self._where)
        return None

    def end(self, why: str) -> None:
        """Answer all: the process has ended."""
        under_way, self._under_way = self._under_way, {}
        for resolving in under_way.values():
            resolving.answer(problems_of_death(why, resolving.importing, resolving.references))


def problems_of_death(why: str, importing: str, references: Collection[str]) -> list[BundleProblem]:
    """
    Return the problems after a process ended while it resolved: for the module that it was importing, or for all
    references.
    """
    blamed = [each for each in references if each.partition(":")[0] == importing] or list(references)
    during = f" while module {importing!r} was imported" if importing else ""
    return [problem_of_flaw(Flaw(each, "", None, f"{why}{during}", "")) for each in sorted(blamed)]
