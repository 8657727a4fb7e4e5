"""The public suite, over each store of harn."""

import os
from weakref import WeakKeyDictionary

from harn.store.interfaces import IStore
from harn.store.sqlite.store import SQLiteStore
from harn.testing.stores.kit import StoreClock, StoreTestCase
from harn.testing.stores.pumped import PumpedStore
from harn.testing.stores.suite import make_store_tests
from tests import postgres

DIRECTORIES: WeakKeyDictionary[StoreTestCase, str] = WeakKeyDictionary()
STORES: WeakKeyDictionary[StoreTestCase, PumpedStore] = WeakKeyDictionary()
"""What a test made first: a store that it makes later is over the same data."""


def make_sqlite(case: StoreTestCase, clock: StoreClock) -> IStore:
    directory = DIRECTORIES.get(case)
    if directory is None:
        directory = DIRECTORIES[case] = case.mktemp()
        os.makedirs(directory)
    return SQLiteStore.at(os.path.join(directory, "events.sqlite"), clock)


def make_in_memory(case: StoreTestCase, clock: StoreClock) -> IStore:
    if case in STORES:
        return STORES[case].beside()
    return STORES.setdefault(case, PumpedStore(clock))


def make_postgres(case: StoreTestCase, clock: StoreClock) -> IStore:
    directory = DIRECTORIES.get(case)
    if directory is None:
        postgres.emptied(postgres.schema_of_process())
        directory = DIRECTORIES[case] = case.mktemp()
        os.makedirs(directory)
    return postgres.make_store(case, directory, clock)


class SQLiteStoreTests(make_store_tests(make_sqlite)):
    """The store on SQLite keeps every promise."""


class PumpedStoreTests(make_store_tests(make_in_memory)):
    """The store of tests, in memory and without threads, keeps every promise but that of outlasting the process."""


class PostgresStoreTests(make_store_tests(make_postgres)):
    """The store on PostgreSQL keeps every promise."""
