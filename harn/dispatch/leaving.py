"""
Transfer of all rows of a version in the store: to another version, or to the dead letters.

While the transfer is being written, no dispatcher runs these rows. Rows that are added to the version meanwhile are
transferred with the others, and so are the leases that wait for them: the store writes its units in order, so a row
reported before a unit's end was written before that unit. A version is transferred once.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred

from harn.model.delivery import StoredDelivery
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import Registry


@define(eq=False)
class Leaving:
    """
    The rows of one version, on their way.

    :ivar stored: leases of the version for rows that are not in memory.
    :ivar target: the version that has taken such leases over, and is held; None while the rows go to the dead letters.
    :ivar joined: some of these rows have never been the window's to know of.
    :ivar waiters: fired when it is on disk.
    """

    binding: BindingVersion
    stored: int
    target: BindingVersion | None = None
    joined: bool = False
    waiters: list[Deferred[None]] = field(factory=list)


@define(eq=False)
class Leavings:
    """
    All that is leaving.

    :ivar burying: ids of triggers that are gone, of whose ended versions the last rows are being given up.
    """

    burying: set[str] = field(factory=set)
    _under_way: dict[BindingVersion, Leaving] = field(factory=dict)

    def begin(self, binding: BindingVersion) -> Leaving:
        """Start to transfer the rows that are not in memory, once `arrived`; the version stays leased until `end`."""
        binding.lease()
        leaving = self._under_way[binding] = Leaving(binding, binding.stored)
        binding.stored = 0
        return leaving

    async def arrived(self, binding: BindingVersion) -> None:
        """Wait until what is on its way to this version is there: before that it cannot leave again."""
        arrivals: list[Deferred[None]] = []
        for leaving in self._under_way.values():
            if leaving.target is binding:
                arrivals.append(Deferred())
                leaving.waiters.append(arrivals[-1])
        for arrival in arrivals:  # all are waited for from now on: one may come while another is awaited
            await arrival

    def written(self, leaving: Leaving) -> None:
        """Record that it is on disk: nothing leaves with it any more."""
        del self._under_way[leaving.binding]
        for waiter in leaving.waiters:
            waiter.callback(None)

    @staticmethod
    def aim(leaving: Leaving, target: BindingVersion) -> None:
        """Set the version that takes over the leases of a transfer; it is leased, too."""
        leaving.target = target
        target.lease(leaving.stored + 1)
        target.stored += leaving.stored

    @staticmethod
    def end(leaving: Leaving) -> None:
        """Release both versions, and of what the first was held for."""
        leaving.binding.release(leaving.stored + 1)
        if leaving.target is not None:
            leaving.target.release()

    def follow(self, binding: BindingVersion) -> tuple[BindingVersion, Leaving | None]:
        """Return where a row ends up that has just become this version's: with whom, and if it leaves that for good."""
        leaving = self._under_way.get(binding)
        while leaving is not None and leaving.target is not None:
            binding = leaving.target
            leaving = self._under_way.get(binding)
        return binding, leaving

    def hold_stored(self, binding: BindingVersion, count: int) -> None:
        """Acquire leases for ``count`` rows that have just become this version's in the store alone."""
        binding, leaving = self.follow(binding)
        binding.lease(count)
        if leaving is None:
            binding.stored += count
        else:
            leaving.stored += count

    def may_hold(self, trigger_id: str) -> bool:
        """
        Return whether the lease of a row of this trigger may be among those that are leaving.

        A version may stand in for an earlier one that could not be revived: then it holds leases for that one's rows.
        """
        return any(each.binding.id == trigger_id and each.target is None for each in self._under_way.values())

    def holds(self, row: StoredDelivery, registry: Registry) -> bool:
        """Return whether a row that was read is on its way to the dead letters."""
        if not self._under_way and not self.burying:
            return False
        own = registry.get(row.trigger_id, row.version)
        if own is None:
            return row.trigger_id in self.burying
        return self.follow(own)[1] is not None
