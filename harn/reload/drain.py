"""
Draining: what a reload replaced finishes in the background, within a limit.

Each adopt that replaced versions leaves one group. At its deadline, or when more groups drain than may, what its
versions have not begun is moved on; what runs keeps running until its own time-out. Nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.triggers.binding import DRAINING, BindingVersion

log = Logger(namespace="harn.reload")

MOST_DRAINING = 4
"""Generations that drain at once; the oldest is moved on to make room for one more."""


@define(eq=False)
class Group:
    """The versions that one adopt replaced, as long as they drain."""

    generation: int
    bindings: set[BindingVersion]
    deadline: IDelayedCall | None = None

    def move_on(self, move: Callable[[BindingVersion], Deferred[int]]) -> None:
        """Move on what its versions have not begun, once."""
        if self.deadline is not None and self.deadline.active():
            self.deadline.cancel()
        self.deadline = None
        for binding in list(self.bindings):
            if not binding.moved:
                move(binding).addErrback(_not_moved, binding.key)


def _not_moved(failure: Failure, key: str) -> None:
    log.failure("moving {binding} on failed", failure, binding=key)


class Drains:
    """
    All draining groups, the oldest first.

    :param move_on: `harn.dispatch.dispatcher.Dispatcher.move_on`.
    :param retired: called after each version that has ended.
    """

    def __init__(
        self,
        clock: IReactorTime,
        move_on: Callable[[BindingVersion], Deferred[int]],
        retired: Callable[[BindingVersion], None],
    ) -> None:
        self._clock = clock
        self._move_on = move_on
        self._retired = retired
        self._groups: list[Group] = []

    @property
    def generations(self) -> tuple[int, ...]:
        """Numbers of the generations of which something drains, the oldest first."""
        return tuple(group.generation for group in self._groups)

    def begin(self, generation: int, bindings: Sequence[BindingVersion], timeout: float) -> None:
        """
        Watch versions that drain since now.

        :param generation: the number of the generation that they served last.
        :param timeout: seconds until what they have not begun is moved on.
        """
        still = {binding for binding in bindings if binding.state == DRAINING}
        if not still:
            return
        group = Group(generation, still)
        group.deadline = self._clock.callLater(timeout, group.move_on, self._move_on)
        self._groups.append(group)
        for oldest in self._groups[:-MOST_DRAINING]:
            oldest.move_on(self._move_on)

    def ended(self, binding: BindingVersion) -> None:
        """Take notice of a version's end: an observer of the registry."""
        for group in list(self._groups):
            if binding in group.bindings:
                group.bindings.discard(binding)
                if not group.bindings:
                    if group.deadline is not None and group.deadline.active():
                        group.deadline.cancel()
                    self._groups.remove(group)
        self._retired(binding)

    def stop(self) -> None:
        """Cancel every deadline; what drains goes on with the next server."""
        for group in self._groups:
            if group.deadline is not None and group.deadline.active():
                group.deadline.cancel()
        self._groups.clear()
