"""
What leaves a version in the store, all at once: to another version, or to the dead letters.

From the moment that this begins until it is on disk, the rows are nobody's to run. Whatever becomes a row of that
version meanwhile leaves with the others, and so do the leases that wait for it: the store does its units in order, so
that what is told before a unit's end was written before that unit.
"""

from __future__ import annotations

from attrs import define, field

from harn.model.delivery import StoredDelivery
from harn.triggers.binding import BindingVersion
from harn.triggers.registry import Registry


@define(eq=False)
class Leaving:
    """
    The rows of one version, on their way.

    :ivar stored: leases of the version that are held for rows which nobody has in memory.
    :ivar target: the version that has taken such leases over; None while the rows go to the dead letters.
    """

    binding: BindingVersion
    stored: int
    target: BindingVersion | None = None


@define(eq=False)
class Leavings:
    """
    All that is leaving.

    :ivar burying: ids of triggers that are gone, of whose ended versions the last rows are being given up.
    """

    burying: set[str] = field(factory=set)
    _under_way: dict[BindingVersion, Leaving] = field(factory=dict)

    def begin(self, binding: BindingVersion) -> Leaving:
        """Let what the version has in the store alone leave it; it is held until `end`."""
        binding.lease()
        leaving = self._under_way[binding] = Leaving(binding, binding.stored)
        binding.stored = 0
        return leaving

    def written(self, leaving: Leaving) -> None:
        """Take notice that it is on disk: nothing leaves with it any more."""
        if self._under_way.get(leaving.binding) is leaving:
            del self._under_way[leaving.binding]

    @staticmethod
    def end(leaving: Leaving) -> None:
        """Let go of the version, and of what it was held for."""
        leaving.binding.release(leaving.stored + 1)

    def join(self, binding: BindingVersion) -> bool:
        """Let a row that has become known just now, and has its lease, leave too; False if it does not."""
        leaving = self._under_way.get(binding)
        if leaving is None or leaving.target is not None:
            return False
        leaving.stored += 1
        return True

    def hold_stored(self, binding: BindingVersion, count: int) -> None:
        """Take the leases of ``count`` rows that have just become this version's in the store, wherever these go."""
        leaving = self._under_way.get(binding)
        while leaving is not None and leaving.target is not None:
            binding = leaving.target
            leaving = self._under_way.get(binding)
        binding.lease(count)
        if leaving is None:
            binding.stored += count
        else:
            leaving.stored += count

    def holds(self, row: StoredDelivery, registry: Registry) -> bool:
        """Tell whether a row that was read is on its way to the dead letters."""
        if not self._under_way and not self.burying:
            return False
        own = registry.get(row.trigger_id, row.version)
        if own is None:
            return row.trigger_id in self.burying
        leaving = self._under_way.get(own)
        return leaving is not None and leaving.target is None
