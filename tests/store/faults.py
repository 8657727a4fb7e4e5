"""Each operation of a store's interface, on a world in which it has something to do; for tests of failures."""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import providedBy
from zope.interface.interface import Method

from harn.model.delivery import DEAD, DONE, REJECTED, RETRY_EXHAUSTED, WAITING, Acceptance, DeadLetter
from harn.store.deliveries import DeliveryFilter
from harn.store.inbox import KeepingEnded, Kept
from harn.store.interfaces import IStore
from harn.store.jobs import ItemOutcome, JobFilter, JobState, NewJob, ReplayOrder
from harn.store.retention import RetentionPolicy
from harn.store.statistics import IdRange, RefusedCount, TriggerTotal
from harn.testing.stores.kit import (
    DAY,
    NOW,
    accept_of,
    attempt_of,
    binding_of,
    dedupe,
    generation_of,
    new_delivery,
    settlement_of,
)
from harn.testing.stores.pumped import PumpedStore

LETTER = DeadLetter(reason=RETRY_EXHAUSTED, error_class="handler_error", error="no")
OTHER_LETTER = DeadLetter(reason=REJECTED, error_class="rejected", error="no")


class World:
    """
    A store whose server took the place of one that crashed, with something of everything in it.

    :ivar store: that of the server that runs.
    :ivar left, ran: deliveries that the previous server has left; the second ran when it crashed.
    :ivar ready, waiting, done, dead, rejected: this server's.
    :ivar job: a job with an item for `dead`; ``open_job`` has to select its items.
    """

    def __init__(self) -> None:
        clock = Clock()
        clock.rightNow = NOW
        before = PumpedStore(clock)
        before.open()
        self.store = before
        self.left, self.ran = (self.accept(f"left{n}") for n in range(2))
        before.deliveries.begins(self.ran)
        self.store = before.beside()
        self.store.open()
        names = ("ready", "waiting", "done", "dead", "rejected")
        self.ready, self.waiting, self.done, self.dead, self.rejected = (
            self.accept(name, claim=dedupe(name)) for name in names
        )
        failed = attempt_of(outcome="failed", error_class="handler_error", error="no")
        self.settle(self.waiting, WAITING, due_at=NOW - 1, attempt=failed)
        self.settle(self.done, DONE, attempt=attempt_of(), result=b"1")
        self.settle(self.dead, DEAD, dead=LETTER, attempt=failed)
        self.settle(self.rejected, DEAD, dead=OTHER_LETTER)
        generations = self.store.generations
        first = replace(binding_of(1, 1), spec=b'{"handler": "handlers:on_event"}')
        fired(generations.reserve(generation_of(1, first, manifest_digest="sha256:d1"), b"bundle", b"text"))
        fired(generations.adopted(1, NOW))
        fired(generations.reserve(generation_of(2, binding_of(2, 2)), b"bundle"))
        fired(self.store.event_log.append("audit.test", "kind", {"n": 1}))
        fired(self.store.checkpoints.put("kept", {"n": 1}))
        fired(self.store.totals.add([TriggerTotal(trigger_id="gh", accepted=2)], [], self.left))
        self.job = self.new_job([self.dead])
        self.open_job = self.new_job(None)
        fired(self.store.inbox.claim("admin", "expired", NOW - 1))

    def accept(self, name: str, **changes: Any) -> int:
        """Accept one delivery."""
        (delivery_id,) = fired(self.store.inbox.accept(accept_of(new_delivery(name, **changes))))
        return delivery_id

    def settle(self, delivery_id: int, state: Any, **changes: Any) -> None:
        """Settle one."""
        fired(self.store.deliveries.settle(settlement_of(delivery_id, state, **changes)))

    def new_job(self, delivery_ids: Any) -> int:
        """Make a job of replays."""
        new = NewJob(operation="replay", actor="key:1", filter=JobFilter(), rate=None, created_at=NOW)
        return fired(self.store.jobs.create(new, delivery_ids)).job_id

    def dump(self) -> dict[str, list[Any]]:
        """Return every row of every table."""
        tables = [name for (name,) in self.store.query("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: self.store.query(f"SELECT * FROM {name}") for name in tables}

    def fail_once(self, fault: Any) -> None:
        """Make a statement of the next operation fail."""
        self.store.database.connection.fail_once(fault)


def fired(deferred: Deferred[Any]) -> Any:
    """Return the result of a Deferred that has fired."""
    found: list[Any] = []
    deferred.addCallback(found.append)
    (result,) = found
    return result


POLICY = RetentionPolicy(events=DAY, dead=DAY)


class _Firing:
    """Fires the Deferreds that wait for an acceptance."""

    def keepings_ended(self, ended: Sequence[KeepingEnded]) -> None:
        """See `harn.store.inbox.Keepings`."""
        for waiting, result in ended:
            waiting.errback(result) if isinstance(result, Exception) else waiting.callback(result)


def keep(world: World, acceptance: Acceptance) -> Deferred[Kept]:
    """Keep an acceptance without a Deferred of the store's."""
    waiting: Deferred[Kept] = Deferred()
    world.store.inbox.keep(acceptance, waiting, _Firing())
    return waiting


WRITES: dict[str, Callable[[World], Any]] = {
    "inbox.keep": lambda w: keep(
        w, accept_of(new_delivery("new", claim=dedupe("new")), new_delivery("again", claim=dedupe("ready")))
    ),
    "inbox.accept": lambda w: w.store.inbox.accept(
        accept_of(
            new_delivery("new", claim=dedupe("new"), body=b"x" * 40_000),
            new_delivery("again", claim=dedupe("ready")),
            new_delivery("repeated", claim=dedupe("dead")),
            new_delivery("born dead", dead=OTHER_LETTER),
        )
    ),
    "inbox.claim": lambda w: w.store.inbox.claim("admin", "k", NOW + DAY),
    "deliveries.settle": lambda w: w.store.deliveries.settle(
        settlement_of(w.ready, DEAD, dead=LETTER, attempt=attempt_of(outcome="failed"))
    ),
    "deliveries.advance_due": lambda w: w.store.deliveries.advance_due(3600.0),
    "deliveries.due": lambda w: w.store.deliveries.due(NOW, 10),
    "deliveries.dead_letter": lambda w: w.store.deliveries.dead_letter("gh", 1, LETTER, (w.ready,)),
    "deliveries.skip": lambda w: w.store.deliveries.skip(w.waiting, "cancelled"),
    "deliveries.redrive": lambda w: w.store.deliveries.redrive("gh", 1, 2, NOW - DAY),
    "recovery.recover": lambda w: w.store.recovery.recover(NOW, 1),
    "recovery.keep_begun": lambda w: w.store.recovery.keep_begun("gh", 1, 2),
    "event_log.append": lambda w: w.store.event_log.append("audit.test", "kind", {"n": 2}),
    "generations.reserve": lambda w: w.store.generations.reserve(
        generation_of(3, binding_of(3, 3), bundle_id="sha256:b3", manifest_digest="sha256:d3"), b"bundle", b"text"
    ),
    "generations.adopted": lambda w: w.store.generations.adopted(2, NOW + 1, {"kept": None, "new": [1]}),
    "checkpoints.put": lambda w: w.store.checkpoints.put("kept", {"n": 2}),
    "checkpoints.amend": lambda w: w.store.checkpoints.amend("kept", {"m": 3, "n": None}),
    "checkpoints.replace": lambda w: w.store.checkpoints.replace("kept", {"n": 1}, {"n": 2}),
    "jobs.create": lambda w: w.store.jobs.create(
        NewJob(operation="discard", actor="key:1", filter=JobFilter(state="dead"), rate=2.0, created_at=NOW),
        [w.rejected],
    ),
    "jobs.select": lambda w: w.store.jobs.select(w.open_job, [w.dead, w.rejected], 1, is_last=True),
    "jobs.replay": lambda w: w.store.jobs.replay(
        [ReplayOrder(delivery_id=w.dead, event_id="replay", version=2)], NOW, 1 << 20, w.job
    ),
    "jobs.discard": lambda w: w.store.jobs.discard([w.dead, w.ready], NOW),
    "jobs.cancel": lambda w: w.store.jobs.cancel([w.ready, w.waiting, w.left, w.done], NOW),
    "jobs.note": lambda w: w.store.jobs.note(
        w.job, [ItemOutcome(delivery_id=w.dead, event_id="dead", reason="it is not kept")]
    ),
    "jobs.change": lambda w: w.store.jobs.change(w.job, JobState.CANCELLED, NOW),
    "totals.add": lambda w: w.store.totals.add(
        [TriggerTotal(trigger_id="gh", accepted=3, refused=1, last_success=NOW)],
        [RefusedCount(trigger_id="gh", minute=1, reason="signature", count=1)],
        w.done,
    ),
    "totals.count_on": lambda w: w.store.totals.count_on(w.rejected, 100),
    "heartbeat": lambda w: w.store.heartbeat(NOW + 5),
    "trim": lambda w: w.store.trim(POLICY, NOW + 2 * DAY, 200),
    "shrink": lambda w: w.store.shrink(128),
}
"""Operations that write, by name."""

READS: dict[str, Callable[[World], Any]] = {
    "deliveries.ready": lambda w: w.store.deliveries.ready("gh", 1, (), 10, 1 << 20),
    "deliveries.next_due": lambda w: w.store.deliveries.next_due(),
    "deliveries.find": lambda w: w.store.deliveries.find("ready"),
    "deliveries.backlog": lambda w: w.store.deliveries.backlog(),
    "deliveries.oldest": lambda w: w.store.deliveries.oldest([("gh", 1)]),
    "deliveries.recent": lambda w: w.store.deliveries.recent(["gh"], 5, 100),
    "deliveries.states": lambda w: w.store.deliveries.states([w.ready, w.done]),
    "deliveries.owners": lambda w: w.store.deliveries.owners([w.ready, w.done]),
    "lists.part": lambda w: w.store.lists.part(DeliveryFilter(), None, 100, 100, True),
    "lists.whole": lambda w: w.store.lists.whole("dead"),
    "lists.place": lambda w: w.store.lists.place("dead"),
    "lists.dead_groups": lambda w: w.store.lists.dead_groups(None),
    "recovery.unfinished": lambda w: w.store.recovery.unfinished(NOW + 1, 10),
    "recovery.count_unfinished": lambda w: w.store.recovery.count_unfinished(NOW + 1),
    "event_log.read": lambda w: w.store.event_log.read("trigger.dlq", 0, 10),
    "event_log.latest": lambda w: w.store.event_log.latest("audit.test"),
    "event_log.topics": lambda w: w.store.event_log.topics(),
    "generations.last": lambda w: w.store.generations.last(),
    "generations.latest_bindings": lambda w: w.store.generations.latest_bindings(),
    "generations.bindings_at": lambda w: w.store.generations.bindings_at(1),
    "generations.bindings": lambda w: w.store.generations.bindings([("gh", 1)]),
    "generations.generation": lambda w: w.store.generations.generation(1),
    "generations.manifest": lambda w: w.store.generations.manifest("sha256:d1"),
    "generations.history": lambda w: w.store.generations.history(5),
    "generations.bundle": lambda w: w.store.generations.bundle("sha256:b1"),
    "checkpoints.beginning": lambda w: w.store.checkpoints.beginning("ke"),
    "checkpoints.get": lambda w: w.store.checkpoints.get("kept"),
    "jobs.get": lambda w: w.store.jobs.get(w.job),
    "jobs.list": lambda w: w.store.jobs.list(5),
    "jobs.unfinished": lambda w: w.store.jobs.unfinished(),
    "jobs.pending": lambda w: w.store.jobs.pending(w.job, 5),
    "jobs.items": lambda w: w.store.jobs.items(w.job, 0, 5),
    "servers.look": lambda w: w.store.servers.look(),
    "statistics.attempts_since": lambda w: w.store.statistics.attempts_since(NOW - 1),
    "statistics.deliveries_since": lambda w: w.store.statistics.deliveries_since(NOW - 1),
    "statistics.attempts": lambda w: w.store.statistics.attempts(IdRange(1, 100), NOW - 1),
    "statistics.accepted": lambda w: w.store.statistics.accepted(IdRange(1, 100), NOW - 1),
    "statistics.died": lambda w: w.store.statistics.died(NOW - 1),
    "statistics.refused": lambda w: w.store.statistics.refused(0.0),
    "statistics.handlers": lambda w: w.store.statistics.handlers([("gh", 1)]),
    "totals.totals": lambda w: w.store.totals.totals(),
    "totals.highest": lambda w: w.store.totals.highest(),
    "totals.latest_attempts": lambda w: w.store.totals.latest_attempts(100),
    "totals.uncounted": lambda w: w.store.totals.uncounted(100),
    "totals.dead": lambda w: w.store.totals.dead(),
    "totals.unfinished": lambda w: w.store.totals.unfinished(),
    "totals.backlogs": lambda w: w.store.totals.backlogs(NOW, ()),
}
"""Operations that read, by name."""

APART = frozenset(
    (
        *("available", "open", "close", "abandon", "settle_log"),
        *("deliveries.begins", "deliveries.begins_at_once", "deliveries.note_now", "deliveries.ended"),
        *("follow", "notify", "rejoin", "servers.fence", "servers.note"),
        *("servers.take_turn", "servers.propose", "servers.vote", "servers.decide", "servers.proposal"),
        "servers.end_turn",
    )
)
"""
Operations that neither read nor write rows: `tests.store.test_trouble` and `tests.store.test_running` have them; and
those of several servers on one store, which SQLite never has: `tests.servers` has these.
"""


def operations_of(store: Any) -> set[str]:
    """Return the names of all operations of a store, from its interfaces."""
    found = set()
    for name, attribute in IStore.namesAndDescriptions(all=True):
        if isinstance(attribute, Method):
            found.add(name)
            continue
        for interface in providedBy(getattr(store, name)):
            names = interface.namesAndDescriptions(all=True)
            found.update(f"{name}.{each}" for each, method in names if isinstance(method, Method))
    return found


def shown(result: Any) -> str:
    """Return a result in a form that can be compared."""
    return repr(result)
