"""The public suite, over each store of ours."""

import os

from harn.store.interfaces import IStore
from harn.store.memory.store import MemoryStore
from harn.store.sqlite.store import SQLiteStore
from harn.testing.stores.kit import StoreClock, StoreTestCase
from harn.testing.stores.suite import make_store_tests


def make_sqlite(case: StoreTestCase, clock: StoreClock) -> IStore:
    directory = getattr(case, "directory", None)
    if directory is None:
        directory = case.directory = case.mktemp()
        os.makedirs(directory)
    return SQLiteStore.at(os.path.join(directory, "events.sqlite"), clock)


def make_memory(case: StoreTestCase, clock: StoreClock) -> IStore:
    if not hasattr(case, "kept"):
        case.kept = MemoryStore(clock)
    return case.kept


def make_memory_in_turns(case: StoreTestCase, clock: StoreClock) -> IStore:
    if not hasattr(case, "kept"):
        case.kept = MemoryStore(clock, at_once=False)
    return case.kept


class SQLiteStoreTests(make_store_tests(make_sqlite)):
    """The store on SQLite keeps every promise."""


class MemoryStoreTests(make_store_tests(make_memory)):
    """The store in memory keeps every promise, at once."""


class MemoryStoreInTurnsTests(make_store_tests(make_memory_in_turns)):
    """The store in memory keeps every promise, in the clock's turns."""
