"""The suite that every store must pass, put together from its parts."""

from __future__ import annotations

from collections.abc import Callable

from zope.interface.verify import verifyObject

from harn.store.checkpoints import ICheckpoints
from harn.store.deliveries import IDeliveries
from harn.store.event_log import IEventLog
from harn.store.generations import IGenerations
from harn.store.inbox import IInbox
from harn.store.interfaces import IStore
from harn.store.jobs import IJobs
from harn.store.lists import IDeliveryLists
from harn.store.recovery import IRecovery
from harn.store.statistics import IStatistics, ITotals
from harn.testing.stores.accepting import AcceptingTests
from harn.testing.stores.delivering import DeliveringTests
from harn.testing.stores.keeping import KeepingTests
from harn.testing.stores.kit import StoreClock, StoreTestCase
from harn.testing.stores.listing import ListingTests
from harn.testing.stores.measuring import MeasuringTests
from harn.testing.stores.operating import OperatingTests
from harn.testing.stores.recording import RecordingTests
from harn.testing.stores.remembering import RememberingTests
from harn.testing.stores.replaying import ReplayingTests
from harn.testing.stores.totalling import TotallingTests


def make_store_tests(factory: Callable[[StoreTestCase, StoreClock], IStore]) -> type[StoreTestCase]:
    """
    Make the suite that every store must pass.

    :param factory: makes a store that is not open; called again in one test, one over the same data. It gets the test
        (for its ``mktemp``) and the reactor to use.
    """

    class StoreTests(
        AcceptingTests,
        DeliveringTests,
        OperatingTests,
        ListingTests,
        RecordingTests,
        KeepingTests,
        RememberingTests,
        ReplayingTests,
        TotallingTests,
        MeasuringTests,
    ):
        """Every promise of `IStore`, kept by the stores of ``factory``."""

        def make_store(self) -> IStore:
            """See `StoreTestCase`."""
            return factory(self, self.clock)

        def test_provides_the_interface(self) -> None:
            """The store and each of its ideas provide their interfaces, with all methods and their parameters."""
            verifyObject(IStore, self.store)
            verifyObject(IInbox, self.store.inbox)
            verifyObject(IDeliveries, self.store.deliveries)
            verifyObject(IDeliveryLists, self.store.lists)
            verifyObject(IRecovery, self.store.recovery)
            verifyObject(IEventLog, self.store.event_log)
            verifyObject(IGenerations, self.store.generations)
            verifyObject(IJobs, self.store.jobs)
            verifyObject(ICheckpoints, self.store.checkpoints)
            verifyObject(ITotals, self.store.totals)
            verifyObject(IStatistics, self.store.statistics)

    return StoreTests
