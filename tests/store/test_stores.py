"""The public suite, over each store of harn."""

import os

from harn.store.interfaces import IStore
from harn.store.sqlite.store import SQLiteStore
from harn.testing.stores.kit import StoreClock, StoreTestCase
from harn.testing.stores.pumped import PumpedStore
from harn.testing.stores.suite import make_store_tests


def make_sqlite(case: StoreTestCase, clock: StoreClock) -> IStore:
    directory = getattr(case, "directory", None)
    if directory is None:
        directory = case.directory = case.mktemp()
        os.makedirs(directory)
    return SQLiteStore.at(os.path.join(directory, "events.sqlite"), clock)


def make_in_memory(case: StoreTestCase, clock: StoreClock) -> IStore:
    if hasattr(case, "kept"):
        return case.kept.beside()
    case.kept = PumpedStore(clock)
    return case.kept


class SQLiteStoreTests(make_store_tests(make_sqlite)):
    """The store on SQLite keeps every promise."""


class PumpedStoreTests(make_store_tests(make_in_memory)):
    """The store of tests, in memory and without threads, keeps every promise but that of outlasting the process."""
