"""The suite that every store must pass, put together from its parts."""

from __future__ import annotations

from collections.abc import Callable

from zope.interface.verify import verifyObject

from harn.store.checkpoints import ICheckpoints
from harn.store.deliveries import IDeliveries, IDeliveryLists
from harn.store.event_log import IEventLog
from harn.store.generations import IGenerations
from harn.store.inbox import IInbox
from harn.store.interfaces import IStore
from harn.store.jobs import IJobs
from harn.store.recovery import IRecovery
from harn.store.statistics import IStatistics, ITotals
from harn.testing.stores.deliveries import DeadLetterTests, DeliveryTests
from harn.testing.stores.event_log import EventLogTests
from harn.testing.stores.generations import GenerationTests
from harn.testing.stores.inbox import InboxTests
from harn.testing.stores.kit import StoreClock, StoreTestCase
from harn.testing.stores.operators import JobTests, ListTests
from harn.testing.stores.recovery import RecoveryTests, RetentionTests
from harn.testing.stores.statistics import TotalTests, WindowTests


def make_store_tests(factory: Callable[[StoreTestCase, StoreClock], IStore]) -> type[StoreTestCase]:
    """
    Make the suite that every store must pass.

    :param factory: makes a store that is not open; called again in one test, one over the same data. It gets the test
        (for its ``mktemp``) and the reactor to use.
    """

    class StoreTests(
        InboxTests,
        DeliveryTests,
        DeadLetterTests,
        ListTests,
        EventLogTests,
        RetentionTests,
        GenerationTests,
        RecoveryTests,
        JobTests,
        TotalTests,
        WindowTests,
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
