"""The membership of servers on one PostgreSQL: heartbeats, one that dies, one that was stopped and comes back."""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

from attrs import define, field
from msgspec import Struct
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from harn.errors import EventLogUnavailable
from harn.lifecycle import Fenced, Lifecycle, ServersSeen, TakenAway
from harn.operations.model import Caller, Role
from harn.server import RecordWriter
from harn.servers.membership import TOPIC, Clocks, Condition, Membership
from harn.servers.operations import SILENT, ListServers, ServerInfo, ServerList, list_servers
from harn.store.postgres.store import PostgresStore
from harn.store.servers import SERVING, ServerRow
from tests.servers.test_fencing import TwoServers


class _Asked:
    """A store whose ``servers.look`` is another one."""

    def __init__(self, store: PostgresStore, look: Any) -> None:
        self._store = store
        self.servers = self
        self.look = look

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Always(Struct):
    """A condition that does not change."""

    condition: Condition

    def now(self) -> Condition:
        """See `IConditions.now`."""
        return self.condition


@define(eq=False)
class Member:
    """
    One server's membership, and the events that it emitted.

    :ivar clock: its process's time, which stands still while it is stopped.
    """

    clock: Clock
    store: PostgresStore
    members: Membership
    emitted: list[Any] = field(factory=list)

    def last(self) -> ServersSeen:
        """Return its last view of the others."""
        found = [each for each in self.emitted if isinstance(each, ServersSeen)]
        return found[-1]


class MembershipTests(TwoServers):
    def setUp(self) -> None:
        """Begin both memberships."""
        super().setUp()
        self.first, self.second = (self.member(store) for store in (self.store, self.other))
        self.running = [self.first, self.second]
        for each in self.running:
            self.result_of(Deferred.fromCoroutine(each.members.begin()))
            self.addCleanup(each.members.leave)

    def member(self, store: PostgresStore) -> Member:
        """Make a membership."""
        lifecycle, clock = Lifecycle(), Clock()
        records = RecordWriter(self.clock, store.event_log)
        member = Member(clock, store, Membership(Clocks(clock, self.clock), store, lifecycle, records, version="1.0"))
        for kind in (ServersSeen, Fenced, TakenAway):
            lifecycle.subscribe(kind, member.emitted.append)
        return member

    def pass_time(self, seconds: int) -> None:
        """Run each second with the clocks of the servers that run, and answer every question to the store."""
        for _ in range(seconds):
            self.clock.advance(1.0)
            for member in self.running:
                member.clock.advance(1.0)
            for _ in range(3):
                for member in self.running:
                    written = member.store.checkpoints.put("seconds", 1)
                    self.result_of(written.addErrback(lambda failure: failure.trap(EventLogUnavailable)))
                    self.result_of(member.store.servers.look())

    def servers_of(self, place: int) -> tuple[ServerInfo, ...]:
        """Return the servers, as one of them lists them."""
        caller = Caller(actor="me", role=Role.READ)

        async def listing() -> ServerList:
            found: ServerList = await list_servers.run((self.first, self.second)[place].members, caller, ListServers())
            return found

        found: ServerList = self.result_of(Deferred.fromCoroutine(listing()))
        return found.servers

    def listed(self, place: int) -> list[tuple[int, str, bool]]:
        """Return number, status and leadership of the servers, as one of them lists them."""
        return [(each.incarnation, each.status, each.leads) for each in self.servers_of(place)]

    def test_both_live(self) -> None:
        """As long as both beat, nothing happens; the one that came first leads; each describes itself."""
        self.first.members.describe(status=SERVING, generation=4)
        self.pass_time(20)
        first, second = self.store.incarnation, self.other.incarnation
        self.assertEqual(self.first.last(), ServersSeen((second,), True))
        self.assertEqual(self.second.last(), ServersSeen((first,), False))
        expected = [(first, "serving", True), (second, "starting", False)]
        self.assertEqual((self.listed(0), self.listed(1)), (expected, expected))

    def test_condition(self) -> None:
        """Outstanding deliveries and readiness are written with a heartbeat, if they changed; its own are current."""
        notes: list[Any] = []
        write = self.store.servers.note
        self.store.servers.note = lambda note: (notes.append(note), write(note))[1]
        self.first.members.describe(status=SERVING, generation=4)
        self.first.members.conditions = Always(Condition(3, ("paused",)))
        self.assertEqual(self.conditions(0), [(3, ("paused",)), (None, None)])
        self.pass_time(3)
        self.assertEqual(self.conditions(1), [(3, ("paused",)), (None, None)])
        self.first.members.conditions = Always(Condition(0, ()))
        self.assertEqual(self.conditions(0)[0], (0, ()))
        self.pass_time(10)
        self.assertEqual(self.conditions(1)[0], (0, ()))
        said = [(each.generation, each.outstanding, each.not_ready) for each in notes]
        self.assertEqual(said, [(4, None, None), (4, 3, ("paused",)), (4, 0, ())])
        self.assertEqual([each.outstanding for each in self.second.members.notes()], [None, 0])
        self.first.members.conditions = Always(Condition(9, ()))
        self.first.members.describe(generation=5)
        self.assertEqual((notes[-1].generation, notes[-1].outstanding), (5, 9))

    def conditions(self, place: int) -> list[tuple[int | None, tuple[str, ...] | None]]:
        """Return outstanding deliveries and readiness of the servers, as one of them lists them."""
        return [(each.outstanding, each.not_ready) for each in self.servers_of(place)]

    def test_age(self) -> None:
        """The age of a heartbeat is by the clock of the server that is asked, whatever the rows say."""
        self.pass_time(2)
        self.running.remove(self.first)
        self.clock.advance(1000.0)
        self.pass_time(3)
        first, second = (each.age_seconds for each in self.servers_of(1))
        assert first is not None and second is not None
        self.assertTrue(3.0 <= first <= 4.0, first)
        self.assertTrue(0.0 <= second <= 1.0, second)

    def test_records_of_a_life(self) -> None:
        """That a server serves is recorded, and that it ends; of one that ends before it serves, nothing is."""
        self.result_of(Deferred.fromCoroutine(self.first.members.record_start()))
        for each in (self.first, self.second):
            self.result_of(Deferred.fromCoroutine(each.members.close()))
        records = self.result_of(self.other.event_log.read(TOPIC, 0, 10))
        first = self.store.incarnation
        expected = [("server_started", first), ("server_ended", first)]
        self.assertEqual([(each.kind, each.payload["incarnation"]) for each in records], expected)

    def test_one_that_dies(self) -> None:
        """Within three heartbeats it is fenced, its deliveries are found, and the other leads; it is recorded."""
        self.accept_one("e1")
        self.pass_time(2)
        self.running.remove(self.first)
        self.pass_time(3)
        self.assertFalse(self.second.last().leads)
        self.pass_time(3)
        self.assertEqual(self.second.last(), ServersSeen((), True, True))
        (record,) = self.result_of(self.other.event_log.read(TOPIC, 0, 10))
        self.assertEqual((record.kind, record.payload["incarnation"]), ("server_fenced", self.store.incarnation))
        self.assertEqual(self.listed(1), [(self.other.incarnation, "starting", True)])

    def test_one_that_was_stopped(self) -> None:
        """It finds out that it was fenced with its next heartbeat, and continues under a new number, not leading."""
        before = self.store.incarnation
        self.pass_time(2)
        self.running.remove(self.first)
        self.pass_time(7)
        self.assertEqual(self.first.members.fenced, 0)
        self.running.append(self.first)
        self.pass_time(3)
        self.assertIn(Fenced(before, self.store.incarnation), self.first.emitted)
        self.assertGreater(self.store.incarnation, self.other.incarnation)
        self.assertEqual(self.first.last(), ServersSeen((self.other.incarnation,), False))
        self.accept_one("e1")
        kinds = [each.kind for each in self.result_of(self.store.event_log.read(TOPIC, 0, 10))]
        self.assertEqual(kinds, ["server_fenced", "server_rejoined"])

    def test_a_look_after_it_was_stopped(self) -> None:
        """One that was fenced looks at once when it continues, since others may have decided a reload meanwhile."""
        self.pass_time(2)
        self.running.remove(self.first)
        self.pass_time(7)
        self.running.append(self.first)
        while not any(isinstance(each, Fenced) for each in self.first.emitted):
            self.pass_time(1)
        self.assertIsInstance(self.first.emitted[-1], ServersSeen)

    def test_a_look_that_takes_long(self) -> None:
        """The heartbeats continue while the answer of a look is awaited: the server is not fenced."""
        self.pass_time(2)
        look = self.store.servers.look
        unanswered: list[Deferred[Any]] = []

        def asked() -> Deferred[Any]:
            unanswered.append(Deferred())
            return unanswered[-1]

        self.patch(self.first.members, "store", _Asked(self.store, asked))
        self.pass_time(10)
        self.assertEqual((self.second.last(), len(unanswered)), (ServersSeen((self.store.incarnation,), False), 1))
        look().chainDeferred(unanswered[0])
        self.pass_time(2)
        self.assertEqual((self.first.members.fenced, len(unanswered)), (0, 2))

    def test_writes_that_fail_at_once(self) -> None:
        """Servers that can read but not write fence no other, neither then nor when writes succeed again."""
        self.pass_time(2)
        beats = {each: each.store.heartbeat for each in self.running}
        for each in self.running:
            each.store.heartbeat = lambda now: fail(EventLogUnavailable("read-only"))
        self.pass_time(10)
        for each, beat in beats.items():
            each.store.heartbeat = beat
        self.pass_time(10)
        self.assertEqual([each.members.fenced for each in self.running], [0, 0])
        self.assertEqual(self.result_of(self.store.event_log.read(TOPIC, 0, 10)), [])

    def test_a_store_that_does_not_answer(self) -> None:
        """One heartbeat and one look wait for it, however long that takes, with one timer; then both continue."""
        self.pass_time(2)
        waiting: list[Deferred[Any]] = []

        def ask(*_: object) -> Deferred[Any]:
            waiting.append(Deferred())
            return waiting[-1]

        store: Any = self.store
        heartbeat, look = store.heartbeat, store.servers.look
        store.heartbeat = store.servers.look = ask
        for _ in range(60):
            self.first.clock.advance(1.0)
        self.assertEqual((len(waiting), len(self.first.clock.getDelayedCalls())), (2, 1))
        store.heartbeat, store.servers.look = heartbeat, look
        for each in waiting:
            each.errback(EventLogUnavailable("away"))
        self.pass_time(2)
        self.assertEqual(self.first.last(), ServersSeen((self.other.incarnation,), True))
        self.assertEqual([each.members.fenced for each in self.running], [0, 0])
        age = self.first.members.age_of(self.row_of(0))
        assert age is not None
        self.assertLess(age, 5.0)

    def row_of(self, place: int) -> ServerRow:
        """Return the row of a server."""
        return self.result_of(self.other.servers.look()).rows[place]

    def test_a_description_that_was_lost(self) -> None:
        """It is written again after the next look."""
        note = self.store.servers.note
        self.store.servers.note = lambda note: fail(EventLogUnavailable("away"))
        self.first.members.describe(status=SERVING, generation=4)
        self.store.servers.note = note
        self.pass_time(2)
        (row, _) = self.result_of(self.other.servers.look()).rows
        self.assertEqual((row.note.status, row.note.generation), ("serving", 4))

    def test_one_that_ends(self) -> None:
        """Its row says so: nothing is fenced, and the other leads at its next look."""
        self.first.members.leave()
        self.result_of(self.store.close())
        self.running.remove(self.first)
        self.pass_time(1)
        self.assertEqual(self.second.last(), ServersSeen((), True))
        self.assertEqual(self.result_of(self.other.event_log.read(TOPIC, 0, 10)), [])

    def test_silent(self) -> None:
        """A server that is silent is listed so before it is fenced."""
        self.pass_time(2)
        self.first.members.leave()
        self.patch(self.other.servers, "fence", lambda beats: Deferred())
        self.pass_time(6)
        self.assertEqual(self.listed(1)[0][1], SILENT)
