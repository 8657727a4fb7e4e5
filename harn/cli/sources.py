"""
Where a command finds what it shows while no server runs: in the store of a state directory. No generation is live then.

Records, figures, holds and generations are read here, and deliveries: those of a running server, or else of its store.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from msgspec import Struct, structs, to_builtins
from msgspec.structs import replace

from harn.cli.client import OTHER_PROGRAM, AdminClient, Answered, ServerUnreachable, ask
from harn.cli.generations import History
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
from harn.deliveries.selection import Scan, only, unknown
from harn.errors import GenerationUnknown
from harn.history.operations import (
    DiffGenerations,
    GenerationContent,
    GenerationDiff,
    ListGenerations,
    ShowGeneration,
    describe_history,
    describe_recorded,
)
from harn.manifest.model import Manifest
from harn.model.display import NO_SECRETS
from harn.model.event import Fixture, read_fixture
from harn.orchestrator.record_operations import RecordInfo, describe_record
from harn.orchestrator.stores import open_offline
from harn.reload.archive import read_kept_bundle, read_manifest_text
from harn.statistics.figures import Figures, StoredTotals
from harn.store.deliveries import WholeDelivery, as_held
from harn.store.event_log import OURS, check_known
from harn.store.event_log import Record as StoredRecord
from harn.store.generations import GenerationRecord
from harn.store.holds import CIRCUITS, PAUSES, Holds, RecordedHolds
from harn.store.offline import OfflineStore
from harn.vm.bundle import Bundle

MOST_UNCOUNTED = 1_000_000
"""Deliveries of a crashed server that are counted at most: far more than it takes in the seconds that it can lose."""


def open_store(state_dir: str) -> OfflineStore:
    """
    Open the store of a state directory.

    :raises StateDirectoryUnusable: there is none, it is not harn's, or it cannot be read.
    """
    return open_offline(state_dir, os.environ)


class StoredRecords(Struct, frozen=True):
    """
    Records from the database, opened for each look at it: a server may start, and move it, between two.

    :ivar state_dir: absolute.
    """

    state_dir: str

    def read(self, topic: str, after: int, limit: int) -> Sequence[RecordInfo]:
        """
        Return one page.

        :raises StateDirectoryUnusable: there is no database, or it is not harn's.
        :raises EventLogUnavailable: it cannot be read.
        :raises RouteUnknown: there is no such topic.
        """
        with open_store(self.state_dir) as store:
            page = plain(store.ask(store.event_log.read(topic, after, limit)))
            if not page and topic not in OURS:
                check_known(topic, store.ask(store.event_log.topics()))
            return page

    def newest(self, topic: str, count: int) -> Sequence[RecordInfo]:
        """Return the newest records, the oldest of them first; numbers may have gaps, so these may be fewer."""
        with open_store(self.state_dir) as store:
            latest = store.ask(store.event_log.latest(topic))
            return plain(store.ask(store.event_log.read(topic, max(0, latest - count), count)))


def plain(records: Iterable[StoredRecord]) -> tuple[RecordInfo, ...]:
    """Return records as the admin API gives them."""
    return tuple(describe_record(record, record.payload) for record in records)


class StoredFigures(Struct, frozen=True):
    """
    Figures of triggers from the database: after a crash it has more than the state file.

    :ivar state_dir: absolute.
    """

    state_dir: str

    def read(self) -> Figures:
        """
        Return them.

        :raises StateDirectoryUnusable: there is no database, or it is not harn's.
        :raises EventLogUnavailable: it cannot be read.
        """
        with open_store(self.state_dir) as store:
            return Figures(
                totals=StoredTotals(
                    store.ask(store.totals.totals()), store.ask(store.totals.uncounted(MOST_UNCOUNTED))
                ),
                waiting=waiting_in(store, time.time()),
                dead=store.ask(store.totals.dead()),
                backlogs=store.ask(store.totals.backlogs(time.time(), ())),
            )


def holds_of(store: OfflineStore, now: float) -> Holds:
    """Return the holds of the next server at a time (seconds, Unix), by the records of the last one."""
    pauses, circuits = (store.ask(store.checkpoints.get(name)) for name in (PAUSES, CIRCUITS))
    return RecordedHolds.of(pauses, circuits).holds(now)


def waiting_in(store: OfflineStore, now: float) -> Mapping[str, int]:
    """Count by trigger id what waits for a due time, or while its trigger is held, at a time (seconds, Unix)."""
    holds = holds_of(store, now)
    return {
        each.trigger_id: each.waiting + (each.ready if holds.of(each.trigger_id) is not None else 0)
        for each in store.ask(store.totals.unfinished())
    }


Content = tuple[GenerationRecord, bytes, Bundle]


class StoredGenerations(Struct, frozen=True, kw_only=True):
    """
    A `harn.cli.generations.GenerationSource` that reads the database.

    Every method raises `StateDirectoryUnusable` or `EventLogUnavailable` when it cannot be read, and
    `GenerationUnknown` for a generation whose content it does not have.

    :ivar state_dir: absolute.
    :ivar manifest: where the manifest lies.
    """

    state_dir: str
    manifest: str

    def history(self, wanted: ListGenerations) -> History:
        """Return the last ones, the newest first."""
        with self._open() as store:
            return History(generations=describe_history(store.ask(store.generations.history(wanted.limit)), None))

    def show(self, wanted: ShowGeneration) -> Answered[GenerationContent]:
        """Return one with its content."""
        with self._open() as store:
            record, text, bundle = read_content(store, wanted.generation)
        found = describe_recorded(record, text.decode("utf-8", "replace"), bundle, None, sources=wanted.sources)
        return Answered(found, to_builtins(found))

    def diff(self, wanted: DiffGenerations) -> Answered[GenerationDiff]:
        """Return the differences; without a second one, from the newest that served."""
        with self._open() as store:
            new = newest(store) if wanted.new is None else wanted.new
            contents = [read_content(store, number) for number in (wanted.old, new)]
        from harn.history.differences import generation_diff, make_recorded
        from harn.reload.build import installed_rules

        rules = installed_rules()
        found = generation_diff(
            *(make_recorded(record.number, text, bundle, self.manifest, rules) for record, text, bundle in contents)
        )
        return Answered(found, to_builtins(found))

    def newest_manifest(self) -> Manifest | None:
        """Return the manifest of the newest generation; None where it is not kept, or is not accepted any more."""
        from harn.history.differences import make_recorded
        from harn.reload.build import installed_rules

        try:
            with self._open() as store:
                record, text, bundle = read_content(store, newest(store))
        except GenerationUnknown:
            return None
        return make_recorded(record.number, text, bundle, self.manifest, installed_rules()).manifest

    def _open(self) -> OfflineStore:
        return open_store(self.state_dir)


def newest(store: OfflineStore) -> int:
    """
    Return the number of the newest generation that served.

    :raises GenerationUnknown: none did.
    """
    found = store.ask(store.generations.history(1))
    if not found:
        raise GenerationUnknown("no generation has served yet; start a server first")
    return found[0].number


def read_content(store: OfflineStore, number: int) -> Content:
    """
    Read one generation.

    :raises GenerationUnknown: its content is not kept, or damaged.
    """
    record = store.ask(store.generations.generation(number))
    text = (
        store.ask(store.generations.manifest(record.manifest_digest))
        if record is not None and record.manifest_digest
        else None
    )
    data = store.ask(store.generations.bundle(record.bundle_id)) if record is not None else None
    if record is None or text is None or data is None:
        raise GenerationUnknown(f"the content of generation {number} is not kept; `history` lists those that served")
    try:
        return record, read_manifest_text(text, record.manifest_digest), read_kept_bundle(data, record.bundle_id)
    except ValueError as error:
        raise GenerationUnknown(f"the content of generation {number} is damaged: {error}") from error


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


class ServerDeliveries(Struct, frozen=True):
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


class StoredDeliveries(Struct, frozen=True):
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
                scan.add(store.ask(store.lists.part(*scan.request())))
            return describe_list(scan)

    def show(self, wanted: ShowDelivery) -> Answered[DeliveryDetail]:
        """See `DeliverySource.show`."""
        found = describe_whole(self._whole(wanted), NO_SECRETS)
        return Answered(found, to_builtins(found))

    def export(self, wanted: ShowDelivery) -> Fixture:
        """See `DeliverySource.export`."""
        return fixture_of(self._whole(wanted).delivery, NO_SECRETS)

    def _whole(self, wanted: ShowDelivery) -> WholeDelivery:
        with self._open() as store:
            found = only(wanted.event_id, store.ask(store.lists.whole(wanted.event_id)))
            return replace(found, delivery=as_held(found.delivery, holds_of(store, time.time())))

    def dead_letters(self, wanted: ListDeadLetters) -> Answered[DeadLetters]:
        """See `DeliverySource.dead_letters`."""
        with self._open() as store:
            groups = store.ask(store.lists.dead_groups(wanted.trigger or None))
            found = describe_dead(groups, wanted.offset, wanted.limit)
        return Answered(found, to_builtins(found))

    def _open(self) -> OfflineStore:
        return open_store(self.state_dir)


def place_of(store: OfflineStore, before: str) -> int:
    """
    Return the number that a list continues from.

    :raises DeliveryUnknown: no delivery has this id.
    """
    number = number_of(before)
    if number is None:
        number = store.ask(store.lists.place(before))
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
