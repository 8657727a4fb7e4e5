"""Which servers live, as each of them sees it: single decisions, and many servers with clocks, crashes and stops."""

from __future__ import annotations

from collections import Counter

from attrs import define, field
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from harn.servers.sights import BEAT, LATE, LOOK, SILENCE, Sights, leader, left_behind
from harn.store.servers import ServerRow


def row(number: int, home: str = "", seen_at: float = 0.0) -> ServerRow:
    """Make the row of a server."""
    return ServerRow(
        incarnation=number, host="h", pid=number, home=home or f"home{number}", started_at=0.0, seen_at=seen_at
    )


class SightsTests(SynchronousTestCase):
    def test_silent(self) -> None:
        """One whose heartbeat stays the same for long enough is silent; one that beats is not, whatever it says."""
        sights = Sights()
        for second in range(6):
            sights = sights.looked({1: 1000.0, 2: 5e9 - second, 3: float(second // 2)}, float(second))
            expected = {1: 1000.0} if second >= SILENCE else {}
            self.assertEqual(sights.silent(float(second)), expected)

    def test_a_late_look(self) -> None:
        """After a gap between looks, or while the own heartbeat is under way, silence is counted from the start."""
        sights = Sights().looked({1: 7.0}, 0.0).looked({1: 7.0}, 4.0 + LATE)
        self.assertEqual(sights.silent(4.0 + LATE), {})
        sights = Sights().looked({1: 7.0}, 0.0)
        for second in range(1, 9):
            sights = sights.looked({1: 7.0}, float(second), is_blind=second == 4)
        self.assertEqual(sights.silent(8.0), {})
        self.assertEqual(sights.looked({1: 7.0}, 9.0).silent(9.0), {1: 7.0})

    def test_in_time(self) -> None:
        """A death is noticed within three heartbeats, however its last heartbeat and the looks fall."""
        self.assertLessEqual(LOOK + SILENCE + (LOOK - SILENCE % LOOK) % LOOK, 3 * BEAT)

    def test_leader(self) -> None:
        """The one that came first and does not end; another program on the same state directory does not count."""
        self.assertEqual(leader(row(3), [row(2), row(5)], []), 2)
        self.assertEqual(leader(row(3), [row(2), row(5)], [2]), 3)
        self.assertEqual(leader(row(3, "a"), [row(2, "a")], []), 3)
        self.assertEqual(leader(row(3), [], []), 3)

    def test_left_behind(self) -> None:
        """Owners of deliveries that have no row any more are gone."""
        self.assertEqual(left_behind({1, 2, 3}, [2]), {1, 3})


@define(eq=False)
class Simulated:
    """
    A server: its process, which crashes or is stopped, and its view of the others.

    :ivar skew: of its wall clock. ``held``: deliveries in its memory, each with the number under which it has them.
    """

    home: str
    skew: float
    number: int
    sights: Sights = field(factory=Sights)
    beat_at: float = -1e9
    runs: bool = True
    runs_since: float = 0.0
    crashed: bool = False
    held: dict[int, int] = field(factory=dict)
    leads: bool = False


class ServersMachine(RuleBasedStateMachine):
    """Servers on one database, as statements there see them: rows with heartbeats, and owners of deliveries."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.next_number = 1
        self.next_delivery = 1
        self.rows: dict[int, ServerRow] = {}
        self.owners: dict[int, int] = {}  # of unfinished deliveries
        self.done: Counter[int] = Counter()
        self.servers: list[Simulated] = []
        self.death: dict[int, float] = {}

    def register(self, home: str, skew: float) -> int:
        """Write a row."""
        number, self.next_number = self.next_number, self.next_number + 1
        self.rows[number] = row(number, home, self.now + skew)
        return number

    @rule(skew=st.sampled_from((0.0, -3600.0, 86400.0)))
    def start(self, skew: float) -> None:
        """Start a server, with a clock of its own."""
        if len(self.servers) < 4:
            home = f"home{len(self.servers)}"
            self.servers.append(Simulated(home, skew, self.register(home, skew), runs_since=self.now))

    @precondition(lambda self: self.servers)
    @rule(data=st.data(), how=st.sampled_from(("crash", "stop", "go on", "accept", "settle")))
    def act(self, data: st.DataObject, how: str) -> None:
        """Make something happen to one server."""
        server = data.draw(st.sampled_from(self.servers))
        if how == "crash" and not server.crashed:
            server.crashed, server.runs = True, False
            self.death[server.number] = self.now
            server.held.clear()
        elif how == "stop":
            server.runs = False
        elif how == "go on" and not server.runs and not server.crashed:
            server.runs, server.runs_since = True, self.now
        elif how == "accept" and server.runs and self.writes(server):
            self.owners[self.next_delivery] = server.number
            server.held[self.next_delivery] = server.number
            self.next_delivery += 1
        elif how == "settle" and server.runs and server.held and self.writes(server):
            delivery, _ = server.held.popitem()
            if self.owners.get(delivery) == server.number:  # in the same statement
                del self.owners[delivery]
                self.done[delivery] += 1

    def writes(self, server: Simulated) -> bool:
        """Begin a transaction: a server that was fenced writes nothing, and continues under a new number."""
        if server.number in self.rows:
            return True
        server.number = self.register(server.home, server.skew)
        server.held.clear()
        server.sights = Sights()
        server.leads = False
        return False

    @rule(seconds=st.integers(1, 12))
    def time_passes(self, seconds: int) -> None:
        """Run a turn of each server that runs, each second."""
        for _ in range(seconds):
            self.now += 1.0
            for server in self.servers:
                if server.runs:
                    self.turn(server)

    def turn(self, server: Simulated) -> None:
        """Run one turn: a heartbeat if it is due, a look, fencing, taking over."""
        if self.now - server.beat_at >= BEAT - LOOK / 2.0:
            server.beat_at = self.now
            if self.writes(server):
                self.rows[server.number] = replace(self.rows[server.number], seen_at=self.now + server.skew)
        own = self.rows.get(server.number)
        others = [each for number, each in self.rows.items() if number != server.number]
        server.sights = server.sights.looked({each.incarnation: each.seen_at for each in others}, self.now)
        server.leads = own is not None and leader(own, others, []) == server.number
        for number, beat in server.sights.silent(self.now).items() if own is not None else ():
            if self.rows[number].seen_at == beat:
                del self.rows[number]
        if own is not None:
            for gone in left_behind(set(self.owners.values()), self.rows):
                for delivery, owner in self.owners.items():
                    if owner == gone:
                        self.owners[delivery] = server.number
                        server.held[delivery] = server.number

    @invariant()
    def settled_once(self) -> None:
        """Check that no delivery is settled twice, and none is lost: each is done, or has an owner."""
        assert all(count == 1 for count in self.done.values())
        assert set(range(1, self.next_delivery)) == set(self.done) | set(self.owners)

    @invariant()
    def taken_over_in_time(self) -> None:
        """Check that a dead server owns nothing three heartbeats later, if one was running all that time."""
        since = min((each.runs_since for each in self.servers if each.runs), default=self.now)
        for number, died_at in self.death.items():
            if since <= died_at and self.now - died_at >= 3 * BEAT:
                assert number not in self.owners.values()

    @invariant()
    def one_leads(self) -> None:
        """Check that of the servers that may write, at most one leads."""
        assert sum(each.leads and each.number in self.rows for each in self.servers if each.runs) <= 1


ServersMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


class MachineTests(SynchronousTestCase):
    def test_servers(self) -> None:
        """Any history of starts, crashes, stops and clocks that are wrong keeps the promises."""
        ServersMachine.TestCase().runTest()
