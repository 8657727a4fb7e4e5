"""
Draining: what a reload replaced finishes in the background, within a limit.

Each adopt that replaced versions leaves one group. At its deadline, or when more groups drain than may, deliveries that
its versions have not begun are moved on; those that run keep running until their own time-out. Nothing is dropped. An
operator may move a version on before that, or cancel its drain: then its unfinished deliveries become dead letters.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from harn.clocks import WallTime
from harn.errors import RouteUnknown
from harn.lifecycle import Lifecycle, VersionEnded
from harn.manifest.settings import ReloadSettings
from harn.reload.events import Adopted
from harn.triggers.binding import DRAINING, BindingVersion
from harn.triggers.interfaces import IVersionDeliveries

log = Logger(namespace="harn.reload")

MOST_DRAINING = 4
"""Generations that drain at once; the oldest is moved on to make room for one more."""
MOST_NAMED = 20
"""Draining versions that an error names."""


@define(eq=False)
class Group:
    """
    The versions that one adopt replaced, as long as they drain.

    :ivar generation: the number of the generation that they served last; 0 for what an earlier server left.
    """

    generation: int
    bindings: dict[str, BindingVersion]  # by key
    began_at: float  # seconds, Unix
    deadline: IDelayedCall | None = None

    def move_on(self, deliveries: IVersionDeliveries) -> None:
        """Move on the deliveries that its versions have not begun, once."""
        if self.deadline is not None and self.deadline.active():
            self.deadline.cancel()
        self.deadline = None
        for binding in list(self.bindings.values()):
            if not binding.is_closed:
                deliveries.move_on(binding).addErrback(_not_moved, binding.key)


@frozen(kw_only=True)
class Draining:
    """
    One draining version.

    :ivar generation: see `Group`.
    :ivar since: when it began to drain (seconds, Unix).
    :ivar deadline: when the deliveries that it has not begun are moved on (seconds, Unix); None when that was done.
    """

    binding: BindingVersion
    generation: int
    since: float
    deadline: float | None

    @property
    def version(self) -> tuple[str, int]:
        """The trigger's id and the version's number."""
        return self.binding.id, self.binding.version


def _not_moved(failure: Failure, key: str) -> None:
    log.failure("moving {binding} on failed", failure, binding=key)


class Drains:
    """
    All draining groups, the oldest first.

    :param wall: for stamps; ``clock`` if None.
    :ivar timeout: seconds until the deliveries that a version has not begun are moved on, by the live generation's
        settings.
    """

    def __init__(
        self,
        clock: IReactorTime,
        deliveries: IVersionDeliveries,
        lifecycle: Lifecycle,
        wall: WallTime | None = None,
    ) -> None:
        self._clock = clock
        self._wall: WallTime = wall or clock
        self._deliveries = deliveries
        self.timeout = ReloadSettings().drain_timeout
        self._groups: list[Group] = []
        lifecycle.subscribe(Adopted, self._adopted)
        lifecycle.subscribe(VersionEnded, self._version_ended)

    @property
    def generations(self) -> tuple[int, ...]:
        """Numbers of the generations of which something drains, the oldest first."""
        return tuple(dict.fromkeys(group.generation for group in self._groups))

    def begin(self, generation: int, bindings: Sequence[BindingVersion]) -> None:
        """
        Watch versions that have just begun to drain.

        :param generation: the number of the generation that they served last.
        """
        still = {binding.key: binding for binding in bindings if binding.state == DRAINING}
        if not still:
            return
        group = Group(generation, still, self._wall.seconds())
        group.deadline = self._clock.callLater(self.timeout, group.move_on, self._deliveries)
        self._groups.append(group)
        # By generation: one whose ramps end one after the other leaves several groups, and counts once.
        served = list(dict.fromkeys(each.generation for each in self._groups))
        for each in self._groups:
            if each.generation in served[:-MOST_DRAINING]:
                each.move_on(self._deliveries)

    def _adopted(self, event: Adopted) -> None:
        candidate = event.candidate
        self.timeout = candidate.generation.inputs.manifest.orchestrator.reload.drain_timeout
        self.begin(event.previous, candidate.ended)

    def describe(self) -> list[Draining]:
        """Describe every draining version, the longest draining first."""
        found = [
            Draining(
                binding=binding,
                generation=group.generation,
                since=group.began_at if binding.draining_since is None else binding.draining_since,
                deadline=None if binding.is_closed else self._deadline_of(group),
            )
            for group in self._groups
            for binding in group.bindings.values()
        ]
        return sorted(found, key=lambda each: (each.since, each.binding.id, each.binding.version))

    def _deadline_of(self, group: Group) -> float | None:
        """Return when the group's deadline is (seconds, Unix), by the present wall clock; None once it has passed."""
        deadline = group.deadline
        if deadline is None or not deadline.active():
            return None
        return self._wall.seconds() + deadline.getTime() - self._clock.seconds()

    def find(self, key: str) -> BindingVersion:
        """
        Find a draining version by its key.

        :raises RouteUnknown: no such version drains; says which do.
        """
        for group in self._groups:
            if key in group.bindings:
                return group.bindings[key]
        names = [each.binding.key for each in self.describe()]
        more = f", and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        known = f"draining now: {', '.join(names[:MOST_NAMED])}{more}" if names else "nothing drains now"
        raise RouteUnknown(f"no version {key!r} drains; {known}")

    def _version_ended(self, event: VersionEnded) -> None:
        for group in list(self._groups):
            if group.bindings.pop(event.binding, None) is not None and not group.bindings:
                if group.deadline is not None and group.deadline.active():
                    group.deadline.cancel()
                self._groups.remove(group)

    def stop(self) -> None:
        """Cancel every deadline; what drains goes on with the next server."""
        for group in self._groups:
            if group.deadline is not None and group.deadline.active():
                group.deadline.cancel()
        self._groups.clear()
