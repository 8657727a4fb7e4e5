"""The suite that every store must pass, put together from its parts."""

from __future__ import annotations

from collections.abc import Callable

from zope.interface.verify import verifyObject

from harn.store.interfaces import IStore
from harn.testing.stores.accepting import AcceptingTests
from harn.testing.stores.delivering import DeliveringTests
from harn.testing.stores.keeping import KeepingTests
from harn.testing.stores.kit import StoreClock, StoreTestCase
from harn.testing.stores.operating import OperatingTests
from harn.testing.stores.recording import RecordingTests
from harn.testing.stores.remembering import RememberingTests


def make_store_tests(factory: Callable[[StoreTestCase, StoreClock], IStore]) -> type[StoreTestCase]:
    """
    Make the suite that every store must pass.

    :param factory: makes a store that is not open; called again in one test, one over the same data. It gets the test
        (for its ``mktemp``) and the reactor to use.
    """

    class StoreTests(AcceptingTests, DeliveringTests, OperatingTests, RecordingTests, KeepingTests, RememberingTests):
        """Every promise of `IStore`, kept by the stores of ``factory``."""

        def make_store(self) -> IStore:
            """See `StoreTestCase`."""
            return factory(self, self.clock)

        def test_provides_the_interface(self) -> None:
            """It provides `IStore`, with all methods and their parameters."""
            verifyObject(IStore, self.store)

    return StoreTests
