"""Where deliveries come from: a running server, or, when none runs, its store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Protocol

from attrs import evolve, frozen
from msgspec import structs, to_builtins

from harn.cli.client import OTHER_PROGRAM, AdminClient, Answered, ServerUnreachable, ask
from harn.cli.offline import holds_of, open_store
from harn.cli.place import ServerTarget
from harn.deliveries.describing import (
    DeadLetters,
    DeliveryDetail,
    DeliveryList,
    describe_dead,
    describe_list,
    describe_whole,
)
from harn.deliveries.operations import (
    MOST_LISTED,
    ListDeadLetters,
    ListDeliveries,
    ShowDelivery,
    export_fixture,
    fixture_of,
    list_dead_letters,
    list_deliveries,
    number_of,
    show_delivery,
)
from harn.deliveries.redaction import no_credential
from harn.deliveries.selection import Scan, only, unknown
from harn.model.event import Fixture, read_fixture
from harn.store.deliveries import WholeDelivery, as_held
from harn.store.sqlite.connection import OfflineStore
from harn.store.sqlite.lists import SQLiteDeliveryLists


class DeliverySource(Protocol):
    """Gives deliveries."""

    def page(self, wanted: ListDeliveries) -> DeliveryList:
        """Return the next part of a list."""

    def show(self, wanted: ShowDelivery) -> Answered[DeliveryDetail]:
        """Return one delivery."""

    def dead_letters(self, wanted: ListDeadLetters) -> Answered[DeadLetters]:
        """Return the dead letters in groups."""

    def export(self, wanted: ShowDelivery) -> Fixture:
        """Return the fixture of one delivery."""


@frozen
class ServerDeliveries:
    """Deliveries from a running server."""

    client: AdminClient

    def page(self, wanted: ListDeliveries) -> DeliveryList:
        """See `DeliverySource.page`."""
        found: DeliveryList = ask(self.client, list_deliveries, wanted).result
        return found

    def show(self, wanted: ShowDelivery) -> Answered[DeliveryDetail]:
        """See `DeliverySource.show`."""
        return ask(self.client, show_delivery, wanted)

    def dead_letters(self, wanted: ListDeadLetters) -> Answered[DeadLetters]:
        """See `DeliverySource.dead_letters`."""
        return ask(self.client, list_dead_letters, wanted)

    def export(self, wanted: ShowDelivery) -> Fixture:
        """See `DeliverySource.export`."""
        try:
            return read_fixture(ask(self.client, export_fixture, wanted).result.fixture)
        except ValueError as wrong:
            raise ServerUnreachable(OTHER_PROGRAM) from wrong


@frozen
class StoredDeliveries:
    """
    Deliveries from the database.

    Every method raises `StateDirectoryUnusable` or `EventLogUnavailable` when it cannot be read.

    :ivar state_dir: absolute.
    """

    state_dir: str

    def page(self, wanted: ListDeliveries) -> DeliveryList:
        """See `DeliverySource.page`; reads to the end if need be."""
        with self._open() as store:
            now = time.time()
            before = None if not wanted.before else place_of(store, wanted.before)
            selection = wanted.selection(now).held(holds_of(store, now))
            scan = Scan(selection=selection, limit=wanted.limit, now=now, before=before)
            while scan.needs_more:
                scan.add(store.ask(SQLiteDeliveryLists.part, *scan.request()))
            return describe_list(scan)

    def show(self, wanted: ShowDelivery) -> Answered[DeliveryDetail]:
        """See `DeliverySource.show`."""
        found = describe_whole(self._whole(wanted), no_credential)
        return Answered(found, to_builtins(found))

    def export(self, wanted: ShowDelivery) -> Fixture:
        """See `DeliverySource.export`."""
        return fixture_of(self._whole(wanted).delivery, no_credential)

    def _whole(self, wanted: ShowDelivery) -> WholeDelivery:
        with self._open() as store:
            found = only(wanted.event_id, store.ask(SQLiteDeliveryLists.whole, wanted.event_id))
            return evolve(found, delivery=as_held(found.delivery, holds_of(store, time.time())))

    def dead_letters(self, wanted: ListDeadLetters) -> Answered[DeadLetters]:
        """See `DeliverySource.dead_letters`."""
        with self._open() as store:
            found = describe_dead(store.ask(SQLiteDeliveryLists.dead_groups, wanted.trigger or None))
        return Answered(found, to_builtins(found))

    def _open(self) -> OfflineStore:
        return open_store(self.state_dir)


def place_of(store: OfflineStore, before: str) -> int:
    """
    Return the number that a list goes on from.

    :raises DeliveryUnknown: no delivery has this id.
    """
    number = number_of(before)
    if number is None:
        number = store.ask(SQLiteDeliveryLists.place, before)
    if number is None:
        raise unknown(before)
    return number


def find_source(target: ServerTarget) -> DeliverySource:
    """Return the server's deliveries if one runs, else those of its store."""
    client = target.client_if_any()
    return StoredDeliveries(target.location.state_dir) if client is None else ServerDeliveries(client)


def read_list(source: DeliverySource, wanted: ListDeliveries, limit: int) -> DeliveryList:
    """Return a list of up to ``limit`` deliveries, however often the source ends before that."""
    pages = list(_pages(source, wanted, limit))
    last = pages[-1]
    passed_over = sum(page.passed_over for page in pages if page.passed_over)
    problems = [page.problem for page in pages if page.problem]
    return structs.replace(
        last,
        deliveries=tuple(each for page in pages for each in page.deliveries),
        **({"passed_over": passed_over, "problem": problems[0]} if problems else {}),
    )


def _pages(source: DeliverySource, wanted: ListDeliveries, limit: int) -> Iterator[DeliveryList]:
    left = limit
    while True:
        page = source.page(structs.replace(wanted, limit=min(left, MOST_LISTED)))
        yield page
        left -= len(page.deliveries)
        if not page.more or left == 0:
            return
        wanted = structs.replace(wanted, before=str(page.before))
