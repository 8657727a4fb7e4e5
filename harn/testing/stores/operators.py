"""
Requests of operators: lists of deliveries by filters, one delivery in full, dead letters in groups; jobs.

Jobs have items, and replay and discard in slices.
"""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

from harn.model.delivery import (
    CANCELLED,
    DEAD,
    DISCARDED,
    DONE,
    PREDICATE,
    READY,
    REJECTED,
    REPLAYED,
    RETRY_EXHAUSTED,
    RUNNING,
    SKIPPED,
    WAITING,
    DeadLetter,
    State,
)
from harn.model.event import decode_envelope
from harn.model.event_trace import replayed_envelope
from harn.store.deliveries import DeliveryFilter, ListedDelivery, WholeDelivery
from harn.store.event_log import DEAD_LETTERS
from harn.store.jobs import REPLAY, ItemOutcome, Job, JobFilter, JobState, NewJob, ReplayOrder, Replays
from harn.testing.stores.kit import DAY, KEEP, NOW, StoreTestCase, attempt_of, dead_letter, dedupe, new_delivery

LETTER = DeadLetter(reason=REJECTED, error_class="rejected", error="no")


class ListTests(StoreTestCase):
    """Lists of deliveries."""

    def fill(self) -> None:
        """Store one delivery or two of each state a store can be brought to, of two triggers and two kinds."""
        self.accept_one("ready", kind="push")
        self.settle(self.accept_one("waiting", version=2), WAITING, version=2, due_at=NOW + 5)
        self.settle(self.accept_one("done"), result=b"1", attempt=attempt_of())
        self.settle(self.accept_one("other", trigger_id="b", kind="push"), result=b"1", attempt=attempt_of())
        self.settle(self.accept_one("refused"), SKIPPED, skip_reason=PREDICATE, attempt=attempt_of(1, "skipped"))
        self.settle(self.accept_one("cut", trigger_id="b"), SKIPPED, skip_reason=CANCELLED)
        self.settle(self.accept_one("dead", kind="push"), DEAD, dead=LETTER)
        self.settle(self.accept_one("late", trigger_id="b", received_at=NOW + 100), DEAD, dead=LETTER)

    def listed(self, **chosen: Any) -> list[ListedDelivery]:
        """Return a list; ``chosen`` are fields of `DeliveryFilter`."""
        part = self.result_of(self.store.lists.part(DeliveryFilter(**chosen), None, 100, 100, False))
        return list(part.deliveries)

    def names(self, *states: State, **chosen: Any) -> list[str]:
        """Return the event ids of a list."""
        return [each.event_id for each in self.listed(states=frozenset(states), **chosen)]

    def test_all_of_them(self) -> None:
        """Without a filter each delivery is listed, the newest first."""
        self.fill()
        everything = ["late", "dead", "cut", "refused", "other", "done", "waiting", "ready"]
        self.assertEqual(self.names(), everything)
        states = [each.state for each in self.listed()]
        self.assertEqual(states, [DEAD, DEAD, SKIPPED, SKIPPED, DONE, DONE, WAITING, READY])

    def test_by_state(self) -> None:
        """A list of some states has those, whether or not they are finished."""
        self.fill()
        self.assertEqual(self.names(READY), ["ready"])
        self.assertEqual(self.names(WAITING), ["waiting"])
        self.assertEqual(self.names(DONE), ["other", "done"])
        self.assertEqual(self.names(SKIPPED), ["cut", "refused"])
        self.assertEqual(self.names(DEAD), ["late", "dead"])
        self.assertEqual(self.names(RUNNING), [])
        self.assertEqual(self.names(READY, WAITING, DEAD), ["late", "dead", "waiting", "ready"])

    def test_by_trigger_and_kind(self) -> None:
        """A list of a trigger has all of its versions; of a kind, all triggers; of both, what has both."""
        self.fill()
        self.assertEqual(self.names(trigger="gh"), ["dead", "refused", "done", "waiting", "ready"])
        self.assertEqual(self.names(trigger="b"), ["late", "cut", "other"])
        self.assertEqual(self.names(trigger="c"), [])
        self.assertEqual(self.names(kind="push"), ["dead", "other", "ready"])
        self.assertEqual(self.names(trigger="gh", kind="push"), ["dead", "ready"])
        self.assertEqual(self.names(DEAD, kind="push"), ["dead"])
        self.assertEqual(self.names(DEAD, DONE, trigger="b"), ["late", "other"])
        self.assertEqual(self.names(WAITING, trigger="gh"), ["waiting"])
        self.assertEqual(self.names(READY, trigger="b"), [])

    def test_by_time(self) -> None:
        """What was received before the time is left out."""
        self.fill()
        self.assertEqual(self.names(since=NOW + 50), ["late"])
        self.assertEqual(self.names(DEAD, since=NOW), ["late", "dead"])
        self.assertEqual(self.names(since=NOW + 101), [])

    def test_running(self) -> None:
        """What its server has noted to run is running, and neither ready nor waiting, until it ends."""
        self.fill()
        (ready,) = self.listed(states=frozenset((READY,)))
        (waiting,) = self.listed(states=frozenset((WAITING,)))
        for each in (ready, waiting):
            self.result_of(self.store.deliveries.begins(each.delivery_id))
        self.assertEqual(self.names(RUNNING), ["waiting", "ready"])
        self.assertEqual(self.names(READY, WAITING), [])
        self.assertEqual(self.names(RUNNING, trigger="b"), [])
        self.settle(ready.delivery_id, result=b"1")
        self.assertEqual((self.names(RUNNING), self.names(DONE)), (["waiting"], ["other", "done", "ready"]))

    def test_in_slices(self) -> None:
        """Slice after slice gives each delivery once, whatever the limits."""
        self.fill()
        for states, trigger in ((frozenset[State](), None), (frozenset((DEAD, READY, SKIPPED)), None), ((), "gh")):
            chosen = DeliveryFilter(states=frozenset(states), trigger=trigger)
            whole = [each.event_id for each in self.listed(states=chosen.states, trigger=trigger)]
            for rows in (1, 2, 3, 100):
                for limit in (1, 3):
                    found: list[str] = []
                    before: int | None = None
                    while True:
                        part = self.result_of(self.store.lists.part(chosen, before, rows, limit, False))
                        self.assertLessEqual(len(part.deliveries), limit)
                        found += (each.event_id for each in part.deliveries)
                        before = part.before
                        if before is None:
                            break
                    self.assertEqual(found, whole, (rows, limit))

    def test_with_events(self) -> None:
        """A list has the events' bytes only if they are asked for."""
        self.fill()
        part = self.result_of(self.store.lists.part(DeliveryFilter(states=frozenset((DONE,))), None, 9, 1, True))
        self.assertEqual([each.body for each in part.deliveries], [b'{"n": 1}'])
        self.assertEqual([each.body for each in self.listed(states=frozenset((DONE,)))], [b"", b""])

    def test_reasons(self) -> None:
        """The reason of each state, and the error of the last attempt, are in the list."""
        self.fill()
        reasons = {each.event_id: each.reason for each in self.listed()}
        self.assertEqual(
            reasons,
            {
                "ready": None,
                "waiting": "retry",
                "done": None,
                "other": None,
                "refused": PREDICATE,
                "cut": CANCELLED,
                "dead": REJECTED,
                "late": REJECTED,
            },
        )
        failed = attempt_of(1, "failed", error_class="handler_error", error="oh")
        self.settle(self.accept_one("tried"), WAITING, due_at=NOW + 9, attempt=failed)
        newest = self.listed()[0]
        self.assertEqual((newest.error_class, newest.error, newest.due_at), ("handler_error", "oh", NOW + 9))

    def whole(self, event_id: str) -> WholeDelivery:
        """Return one delivery."""
        (found,) = self.result_of(self.store.lists.whole(event_id))
        assert isinstance(found, WholeDelivery)
        return found

    def test_whole(self) -> None:
        """One delivery has its event, its attempts with what they raised and printed, and its result."""
        number = self.accept_one("tried")
        failed = attempt_of(1, "failed", error_class="handler_error", error="oh", traceback="File x", output="a\nb")
        self.settle(number, WAITING, due_at=NOW + 9, attempt=failed)
        self.settle(number, attempts=2, attempt=attempt_of(2), result=b"[1]")
        found = self.whole("tried")
        self.assertEqual(found.attempts, (failed, attempt_of(2)))
        self.assertEqual((found.result, found.delivery.body, found.delivery.state), (b"[1]", b'{"n": 1}', DONE))
        self.assertEqual(self.result_of(self.store.lists.whole("unknown")), [])
        self.assertEqual(self.result_of(self.store.lists.place("tried")), number)
        self.assertIsNone(self.result_of(self.store.lists.place("unknown")))

    def test_dead_in_groups(self) -> None:
        """Dead letters are counted by trigger, reason and class; what died last comes first."""
        spent = DeadLetter(reason=RETRY_EXHAUSTED, error_class="handler_error", error="oh")
        for number, (trigger, letter) in enumerate((("gh", LETTER), ("gh", spent), ("b", LETTER), ("gh", LETTER))):
            died = attempt_of(1, "failed", completed_at=NOW + number)
            self.settle(self.accept_one(f"e{number}", trigger_id=trigger), DEAD, dead=letter, attempt=died)
        self.settle(self.accept_one("done"), result=b"1")
        found = self.result_of(self.store.lists.dead_groups(None))
        self.assertEqual(
            [(each.trigger_id, each.reason, each.error_class, each.count, each.first, each.last) for each in found],
            [
                ("gh", REJECTED, "rejected", 2, NOW, NOW + 3),
                ("b", REJECTED, "rejected", 1, NOW + 2, NOW + 2),
                ("gh", RETRY_EXHAUSTED, "handler_error", 1, NOW + 1, NOW + 1),
            ],
        )
        self.assertEqual([each.example_id for each in found], ["e3", "e2", "e1"])
        self.assertEqual([each.example_id for each in self.result_of(self.store.lists.dead_groups("b"))], ["e2"])
        self.assertEqual(self.result_of(self.store.lists.dead_groups("c")), [])


ROOM = 1 << 20


class JobTests(StoreTestCase):
    """The promises for jobs, replays and discarded dead letters."""

    def dead(self, event_id: str, **changes: Any) -> int:
        """Accept one delivery that becomes a dead letter; give its id."""
        delivery_id = self.accept_one(event_id, **changes)
        self.settle(delivery_id, DEAD, dead=dead_letter("no"))
        return delivery_id

    def create(self, *delivery_ids: int) -> Job:
        """Create a job with these items."""
        new = NewJob(operation=REPLAY, actor="key:1", filter=JobFilter(state="dead"), rate=2.5, created_at=NOW)
        return self.result_of(self.store.jobs.create(new, list(delivery_ids)))

    def replay(self, *delivery_ids: int, job_id: int | None = None, max_bytes: int = ROOM) -> Replays:
        """Replay deliveries as ``r`` and their ids, for version 7."""
        orders = [ReplayOrder(delivery_id=each, event_id=f"r{each}", version=7) for each in delivery_ids]
        return self.result_of(self.store.jobs.replay(orders, NOW + 1, max_bytes, job_id))

    def job(self, job_id: int) -> Job:
        """Return a job."""
        found = self.result_of(self.store.jobs.get(job_id))
        assert found is not None
        return found

    def pending(self, job_id: int) -> list[int]:
        """Return the ids of the items that a job has not processed."""
        return [each.delivery_id for each in self.result_of(self.store.jobs.pending(job_id, 100))]

    # Replays

    def test_replay_of_a_dead_letter(self) -> None:
        """The event is a new delivery that names the old one, with its bytes, and the old one names it."""
        old = self.dead("e1", body=b"\x00\xff", version=3, provider="github")
        done = self.replay(old)
        (before,), (row,) = (self.result_of(self.store.deliveries.find(event)) for event in ("e1", f"r{old}"))
        self.assertEqual((done.deliveries, done.dead), ((row,), {old}))
        self.assertEqual(done.outcomes, (ItemOutcome(delivery_id=old, event_id="e1", replayed_as=f"r{old}"),))
        self.assertEqual((row.state, row.version, row.replay_of, row.received_at), (READY, 7, "e1", NOW + 1))
        self.assertEqual((row.provider, row.kind, row.body, row.attempts), ("github", before.kind, b"\x00\xff", 0))
        envelope = decode_envelope(row.envelope)
        self.assertEqual((envelope.id, before.state), (f"r{old}", REPLAYED))
        self.assertEqual(row.envelope, replayed_envelope(before.envelope, f"r{old}"))
        self.assertEqual(self.ready_ids(), [row.delivery_id])
        self.assertEqual(self.kinds(DEAD_LETTERS), ["dlq_moved"])

    def test_replayed_once(self) -> None:
        """What was replayed is not a second time; what is done may be, and stays done."""
        old, done = self.dead("e1"), self.accept_one("e2")
        self.settle(done)
        self.replay(old, done)
        again = self.replay(old, done)
        self.assertEqual([each.reason for each in again.outcomes], [f"it is replayed as r{old}", None])
        self.assertEqual(self.state_of("e2"), [DONE])
        self.assertEqual(len(self.state_of(f"r{done}")), 2)

    def test_unfinished_ones_are_left(self) -> None:
        """What is ready, was discarded or is not kept is skipped, and says why."""
        ready, discarded = self.accept_one("e1"), self.dead("e2")
        self.result_of(self.store.jobs.discard([discarded], NOW))
        outcomes = self.replay(ready, discarded, 1_000).outcomes
        self.assertEqual(
            [each.reason for each in outcomes], ["it is ready", "it is discarded", "it is not kept any more"]
        )

    def test_the_claim_goes_to_the_replay(self) -> None:
        """What the sender sends again after a replay is a duplicate, until that is a dead letter, too."""
        old = self.dead("e1", claim=dedupe("k"))
        self.replay(old)
        self.assertEqual(self.accept(new_delivery("e2", claim=dedupe("k"))), (None,))
        (replay,) = self.ready_ids()
        self.settle(replay, DEAD, dead=dead_letter("no"))
        kept = self.accept(new_delivery("e3", claim=dedupe("k")))
        self.assertEqual(list(kept.repeats.values()), [f"r{old}"])
        self.assertEqual((self.state_of("e1"), self.state_of(f"r{old}")), ([REPLAYED], [REPLAYED]))

    def test_a_claim_that_another_holds_stays_there(self) -> None:
        """A dead letter that its sender repeated is not replayed: it is replayed already."""
        old = self.dead("e1", claim=dedupe("k"))
        self.accept_one("e2", claim=dedupe("k"))
        self.assertEqual([each.reason for each in self.replay(old).outcomes], ["it is replayed as e2"])

    def test_a_slice_is_bounded(self) -> None:
        """A slice ends before its bodies are too many, and large ones are left out of it, and copied all the same."""
        bodies = [b"a" * 600_000, b"b" * 10, b"c" * 700_000]
        old = [self.dead(f"e{n}", body=body) for n, body in enumerate(bodies)]
        done = self.replay(*old)
        self.assertEqual([(each.left_out, each.body) for each in done.deliveries], [(600_000, b""), (0, b"b" * 10)])
        rest = self.replay(old[2], max_bytes=1)
        self.assertEqual([each.left_out for each in rest.deliveries], [700_000])
        (row,) = self.result_of(self.store.deliveries.find(f"r{old[2]}"))
        self.assertEqual(row.body, bodies[2])

    def test_discard(self) -> None:
        """A dead letter is discarded, once; its sender may send it again, and nothing else is discarded."""
        old, done = self.dead("e1", claim=dedupe("k")), self.accept_one("e2")
        self.settle(done)
        for reasons in ([None, "it is done"], ["it is discarded", "it is done"]):
            outcomes = self.result_of(self.store.jobs.discard([old, done], NOW))
            self.assertEqual([each.reason for each in outcomes], reasons)
        self.assertEqual(self.kinds(DEAD_LETTERS), ["dlq_moved"])
        kept = self.accept(new_delivery("e3", claim=dedupe("k")))
        self.assertEqual((list(kept.repeats.values()), self.state_of("e1")), (["e1"], [DISCARDED]))

    # Jobs

    def test_a_job_is_kept(self) -> None:
        """A job is found as it was created, after a restart too, until it has ended."""
        job = self.create(*(self.accept_one(f"e{n}") for n in range(2)))
        self.restart()
        self.assertEqual(self.job(job.job_id), job)
        told = (job.operation, job.actor, job.filter, job.rate, job.state, job.created_at, job.matched)
        self.assertEqual(told, (REPLAY, "key:1", JobFilter(state="dead"), 2.5, JobState.RUNNING, NOW, 2))
        self.assertEqual(self.result_of(self.store.jobs.unfinished()), (job,))
        self.result_of(self.store.jobs.change(job.job_id, JobState.CANCELLED, NOW + 1))
        self.assertEqual(self.result_of(self.store.jobs.unfinished()), ())
        (listed,) = self.result_of(self.store.jobs.list(10))
        self.assertEqual((listed.state, listed.ended_at), (JobState.CANCELLED, NOW + 1))
        self.assertIsNone(self.result_of(self.store.jobs.get(99)))
        self.assertIsNone(self.result_of(self.store.jobs.change(99, JobState.PAUSED, NOW)))

    def test_selecting(self) -> None:
        """Items come slice by slice, downwards; a slice that another server has written before adds nothing."""
        new = NewJob(operation=REPLAY, actor="a", filter=JobFilter(), rate=None, created_at=NOW)
        ids = [self.dead(f"e{n}") for n in range(4)]
        job = self.result_of(self.store.jobs.create(new))
        self.assertEqual((job.cursor, job.is_selected), (ids[-1] + 1, False))
        for _ in range(2):
            job = self.result_of(self.store.jobs.select(job.job_id, ids[2:], ids[2], is_last=False))
            self.assertEqual((job.cursor, job.matched, job.is_selected), (ids[2], 2, False))
        self.assertEqual(self.result_of(self.store.jobs.change(job.job_id, JobState.DONE, NOW)), job)
        job = self.result_of(self.store.jobs.select(job.job_id, ids[:1], 1, is_last=True))
        self.assertEqual((job.matched, job.is_selected, self.pending(job.job_id)), (3, True, [ids[0], *ids[2:]]))

    def test_a_slice_and_its_progress_are_one(self) -> None:
        """Each item is replayed once, whoever asks again; a job that is paused or over replays nothing."""
        ids = [self.dead(f"e{n}") for n in range(4)]
        job = self.create(*ids)
        for _ in range(2):
            self.replay(ids[0], ids[1], job_id=job.job_id)
        self.assertEqual((self.job(job.job_id).changed, self.pending(job.job_id)), (2, ids[2:]))
        self.result_of(self.store.jobs.change(job.job_id, JobState.PAUSED, NOW))
        self.assertEqual(self.replay(ids[2], job_id=job.job_id).outcomes, ())
        self.result_of(self.store.jobs.change(job.job_id, JobState.RUNNING, NOW))
        self.result_of(self.store.jobs.discard([ids[3]], NOW))
        self.replay(*ids, job_id=job.job_id)
        job = self.job(job.job_id)
        self.assertEqual((job.changed, job.skipped, job.pending), (3, 1, 0))
        ended = self.result_of(self.store.jobs.change(job.job_id, JobState.DONE, NOW + 2))
        assert ended is not None
        self.assertEqual((ended.state, ended.ended_at), (JobState.DONE, NOW + 2))
        self.assertEqual(self.ready_ids(), [ids[3] + n for n in (1, 2, 3)])
        told = self.result_of(self.store.jobs.items(job.job_id, ids[0], 10))
        self.assertEqual(
            [(each.event_id, each.replayed_as, each.reason) for each in told],
            [("e1", f"r{ids[1]}", None), ("e2", f"r{ids[2]}", None), ("e3", None, "it is discarded")],
        )

    def test_noted_items(self) -> None:
        """What was done elsewhere is noted, once."""
        job = self.create(*(self.accept_one(f"e{n}") for n in range(2)))
        for _ in range(2):
            outcomes = [ItemOutcome(delivery_id=1, event_id="e"), ItemOutcome(delivery_id=2, event_id="f", reason="no")]
            self.result_of(self.store.jobs.note(job.job_id, outcomes))
        job = self.job(job.job_id)
        self.assertEqual((job.changed, job.skipped), (1, 1))

    def test_old_jobs_are_trimmed(self) -> None:
        """Retention removes jobs that ended long ago with their items, and none that is not over."""
        accepted = self.accept(*(new_delivery(f"e{n}") for n in range(29)))
        over, running = (self.create(*(each or 0 for each in ids)) for ids in (accepted, accepted[:1]))
        self.result_of(self.store.jobs.change(over.job_id, JobState.CANCELLED, NOW))
        self.assertEqual(self.trim_all(KEEP, NOW + 8 * DAY), 30)
        self.assertEqual(self.result_of(self.store.jobs.list(9)), (running,))
        self.assertEqual(self.pending(over.job_id), [])
