"""Jobs of operators: their items, and the slices in which they replay and discard."""

# The assertions of trial have no annotations, and mypy's exception for Twisted does not reach inherited methods.
# mypy: allow-untyped-calls

from __future__ import annotations

from typing import Any

from harn.model.delivery import DEAD, DISCARDED, DONE, READY, REPLAYED
from harn.model.event import decode_envelope
from harn.store.event_log import DEAD_LETTERS
from harn.store.jobs import REPLAY, ItemOutcome, Job, JobFilter, JobState, NewJob, ReplayOrder, Replays
from harn.testing.stores.kit import DAY, KEEP, NOW, StoreTestCase, dead_letter, dedupe, new_delivery

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
