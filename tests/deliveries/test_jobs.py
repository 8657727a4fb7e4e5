"""Jobs: their pace, pause, resume and cancel, and what the next server does with them."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from harn.deliveries.change_operations import discard_many, replay_many, replay_one
from harn.deliveries.job_operations import (
    ChangeJob,
    ListJobs,
    ShowJob,
    cancel_job,
    list_jobs,
    pause_job,
    resume_job,
    show_job,
)
from harn.errors import HarnError, RouteUnknown, WrongState
from harn.model.delivery import REPLAYED
from harn.operations.registry import TOPIC
from harn.store.jobs import JobState
from tests.deliveries.jobs_world import JobsWorld
from tests.dispatch.world import one_trigger
from tests.operations.asking import asked


class JobTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = JobsWorld()
        self.server.begin()
        self.addCleanup(lambda: self.server.runner.stopService())

    def change(self, operation: Any, job: int = 1) -> Deferred[Any]:
        """Request a change of a job."""
        return asked(operation, self.server.bulk, ChangeJob(job=job))


class PaceTests(JobTestCase):
    def test_rate(self) -> None:
        """With a rate the answer comes at once, and the job continues at its pace."""
        self.server.bad_deploy(60)
        answering = self.server.many(replay_many, "10/s", state="dead")
        self.server.turns()
        self.assertEqual(len(self.server.replays()), 2)
        self.server.clock.pump([0.1] * 11)
        answer = self.successResultOf(answering)
        self.assertEqual((answer.matched, answer.state), (60, "running"))
        self.assertLessEqual(answer.replayed, 14)
        self.server.clock.pump([0.1] * 10)
        self.assertIn(len(self.server.replays()), range(20, 25))
        self.server.clock.pump([0.1] * 50)
        (job,) = self.server.jobs()
        self.assertEqual((len(self.server.replays()), job.state, job.changed), (60, JobState.DONE, 60))

    def test_slow_rate(self) -> None:
        """A rate of less than one in a slice is kept, too."""
        self.server.bad_deploy(3)
        self.server.many(replay_many, "30/m", state="dead")
        counts = []
        for _ in range(4):
            self.server.turns()
            counts.append(len(self.server.replays()))
            self.server.clock.pump([0.5] * 4)
        self.assertEqual(counts, [1, 2, 3, 3])

    def test_others_have_their_turn(self) -> None:
        """A job without a rate lets the reactor turn between two slices, and deliveries run meanwhile."""
        self.server.bad_deploy(1000)
        self.server.many(replay_many, state="dead")
        counts = []
        for _ in range(12):
            self.server.turns(1)
            counts.append(len(self.server.replays()))
        self.assertLessEqual(max(after - before for before, after in pairwise(counts)), 100)

    def test_patience(self) -> None:
        """A request for a job that takes long is answered after a while with its progress."""
        self.server.bad_deploy(3)
        self.server.store.writer.held = True
        answering = self.server.many(replay_many, state="dead")
        self.server.store.writer.run()
        self.server.store.writer.deliver()
        self.server.clock.pump([1.0] * 21)
        answer = self.successResultOf(answering)
        self.assertEqual((answer.state, answer.replayed), ("running", 0))
        self.server.store.writer.release()
        self.server.turns()
        self.assertEqual(len(self.server.replays()), 3)
        (record,) = self.successResultOf(self.server.store.event_log.read(TOPIC, 0, 10))
        self.assertEqual(record.payload["counts"], {"matched": 3, "replayed": 3, "skipped": 0, "job": 1})
        self.assertEqual((record.payload["filter"], record.payload["actor"]), ({"state": "dead"}, "me"))


class ControlTests(JobTestCase):
    def test_pause_and_resume(self) -> None:
        """A paused job does nothing until it is resumed, over a restart too; then it continues where it was."""
        dead = self.server.bad_deploy(10)
        self.server.many(replay_many, "5/s", state="dead")
        self.server.clock.pump([0.2] * 4)
        self.assertEqual(self.successResultOf(self.change(pause_job)).state, "paused")
        count = len(self.server.replays())
        self.server.clock.pump([0.5] * 10)
        self.server = self.server.next_server()
        self.server.clock.pump([0.5] * 10)
        self.assertEqual(len(self.server.replays()), count)
        self.assertEqual(self.successResultOf(self.change(resume_job)).state, "running")
        self.server.clock.pump([0.2] * 20)
        self.assertEqual(self.server.replays(), dead)

    def test_resume_at_once(self) -> None:
        """A job that is paused and resumed in one turn continues, and does nothing twice."""
        dead = self.server.bad_deploy(10)
        self.server.many(replay_many, "5/s", state="dead")
        self.server.turns()
        for operation in (pause_job, resume_job, pause_job, resume_job):
            self.successResultOf(self.change(operation))
        self.server.clock.pump([0.2] * 20)
        self.assertEqual(self.server.replays(), dead)

    def test_cancel(self) -> None:
        """A cancelled job ends; its changes stay, and it cannot be resumed."""
        self.server.bad_deploy(10)
        answering = self.server.many(discard_many, "5/s", state="dead")
        self.server.turns()
        self.assertEqual(self.successResultOf(self.change(cancel_job)).state, "cancelled")
        self.server.clock.pump([0.5] * 10)
        self.assertEqual(self.successResultOf(answering).state, "cancelled")
        self.assertEqual(Counter(self.server.states().values()), {"discarded": 1, "dead": 9})
        error = self.failureResultOf(self.change(resume_job), WrongState).value
        self.assertIn("job 1 is cancelled", str(error))

    def test_unknown(self) -> None:
        """A job that there is not is said to be unknown."""
        for operation in (pause_job, resume_job, cancel_job):
            self.failureResultOf(self.change(operation, 7), RouteUnknown)
        self.failureResultOf(asked(show_job, self.server.bulk, ShowJob(job=7)), RouteUnknown)

    def test_what_a_job_has_done(self) -> None:
        """Jobs are listed, and one is shown with its items, page by page, whenever it is asked for."""
        dead = self.server.bad_deploy(3)
        self.server.many(replay_many, event_ids=tuple(dead))
        self.server.turns()
        (listed,) = self.successResultOf(asked(list_jobs, self.server.bulk, ListJobs())).jobs
        self.assertEqual((listed.job, listed.operation, listed.done, listed.state), (1, "replay", 3, "done"))
        found, after = [], 0
        while after is not None:
            page = self.successResultOf(asked(show_job, self.server.bulk, ShowJob(job=1, after=after, limit=2)))
            found += [item.event_id for item in page.items]
            after = page.after
        self.assertEqual(found, dead)


class NextServerTests(JobTestCase):
    def test_goes_on(self) -> None:
        """The next server continues with a job by itself, and records its end."""
        dead = self.server.bad_deploy(10)
        self.server.many(replay_many, "5/s", state="dead")
        self.server.clock.pump([0.2] * 4)
        self.successResultOf(self.server.runner.stopService())
        count = len(self.server.replays())
        self.server.clock.pump([0.2] * 10)
        self.assertEqual(len(self.server.replays()), count)
        self.server = self.server.next_server()
        self.server.clock.pump([0.2] * 20)
        self.assertEqual(self.server.replays(), dead)
        (record,) = self.successResultOf(self.server.store.event_log.read(TOPIC, 0, 10))
        self.assertEqual((record.kind, record.payload["counts"]["replayed"]), ("replay", 10))

    def test_event_log_away(self) -> None:
        """A job waits while the event log is unavailable, and continues."""
        dead = self.server.bad_deploy(10)
        self.server.many(replay_many, "5/s", state="dead")
        self.server.clock.pump([0.2] * 2)
        self.server.store.fail_writes = True
        self.server.clock.pump([0.5] * 10)
        self.server.store.fail_writes = False
        self.server.clock.pump([0.5] * 20)
        self.assertEqual(self.server.replays(), dead)


class Jobs(RuleBasedStateMachine):
    """Jobs under way while servers crash, take over from each other and reload, and operators act."""

    def __init__(self) -> None:
        super().__init__()
        self.server = JobsWorld()
        self.code = 1

    @initialize(dead=st.integers(1, 30), done=st.integers(0, 5))
    def begin(self, dead: int, done: int) -> None:
        self.server.begin(dedupe_key="event.dedupe_key")
        self.server.bad_deploy(dead)
        self.run(done)

    def run(self, count: int) -> None:
        for _ in range(count):
            self.server.world.take(body=b"{}")
        self.end_calls()

    def end_calls(self) -> None:
        for running in list(self.server.world.calls):
            running.returns()

    @rule(
        operation=st.sampled_from([replay_many, replay_many, discard_many]),
        rate=st.sampled_from([None, "2/s", "20/s"]),
        state=st.sampled_from(["dead", "done,dead", "done"]),
    )
    def ask(self, operation: Any, rate: str | None, state: str) -> None:
        if len(self.server.jobs()) < 4:
            self.server.many(operation, rate, state=state).addErrback(lambda failure: failure.trap(HarnError))

    @rule(seconds=st.sampled_from([0.0, 0.1, 0.5, 2.0]))
    def wait(self, seconds: float) -> None:
        self.server.clock.pump([0.0, seconds, 0.0])

    @rule(operation=st.sampled_from([pause_job, resume_job, resume_job, cancel_job]), job=st.integers(1, 4))
    def control(self, operation: Any, job: int) -> None:
        asked(operation, self.server.bulk, ChangeJob(job=job)).addErrback(lambda failure: failure.trap(HarnError))

    @rule(place=st.integers(0, 40))
    def act_on_one(self, place: int) -> None:
        rows = self.server.world.rows()
        replaying = self.server.one(replay_one, rows[place % len(rows)].event_id)
        replaying.addErrback(lambda failure: failure.trap(HarnError))

    @rule()
    def end(self) -> None:
        self.end_calls()

    @precondition(lambda self: "gh" in self.server.world.registry.active)
    @rule()
    def bad_deploy(self) -> None:
        self.server.bad_deploy(2)

    @rule(is_gone=st.booleans())
    def reload(self, is_gone: bool) -> None:
        self.code += 1
        triggers = {} if is_gone else one_trigger(dedupe_key="event.dedupe_key")
        self.server.world.adopt(triggers, {"gh": f"code-{self.code}"})

    @rule(is_held=st.booleans())
    def hold(self, is_held: bool) -> None:
        """Hold writes back, or run those that wait."""
        if is_held:
            self.server.store.writer.held = True
        else:
            self.server.store.writer.release()

    @rule(is_away=st.booleans())
    def disk(self, is_away: bool) -> None:
        self.server.store.fail_writes = is_away

    @rule(is_written=st.booleans())
    def crash(self, is_written: bool) -> None:
        """Kill the server: what waits to be written is on disk, but its answer never came; or it is not."""
        killed = self.server
        killed.store.writer.held = killed.store.reader.held = True
        if is_written:
            killed.store.writer.run()
        killed.store.fail_writes = False
        self.server = killed.next_server()

    @rule()
    def restart(self) -> None:
        """Stop this server's jobs, end it, and start the next server."""
        old = self.server
        stopping = old.runner.stopService()
        old.store.fail_writes = False
        old.store.writer.release()
        old.turns(3)
        assert stopping.called
        # It no longer writes: the two stores have one connection, and would give the same numbers.
        old.store.writer.held = old.store.reader.held = True
        self.server = old.next_server()

    @invariant()
    def nothing_twice(self) -> None:
        rows = self.server.world.rows()
        states = {row.event_id: row.state for row in rows}
        replays = Counter(row.replay_of for row in rows if row.replay_of is not None)
        for event_id, count in replays.items():
            if states[event_id] is REPLAYED:
                assert count == 1, (event_id, count)
        of_jobs = Counter(
            event_id
            for (event_id,) in self.server.store.query("SELECT replayed_as FROM job_items WHERE replayed_as NOT NULL")
        )
        assert all(count == 1 and event_id in states for event_id, count in of_jobs.items()), of_jobs

    @invariant()
    def counts_are_right(self) -> None:
        for job_id, matched, changed, skipped in self.server.store.query(
            "SELECT id, matched, changed, skipped FROM jobs"
        ):
            found = self.server.store.query(
                "SELECT count(*), count(*) FILTER (WHERE outcome = 1), count(*) FILTER (WHERE outcome = 2)"
                " FROM job_items WHERE job_id = ?",
                job_id,
            )
            assert found == [(matched, changed, skipped)], (job_id, found, matched, changed, skipped)

    def teardown(self) -> None:
        """Check that in the end every job that is resumed ends, and has come to all of its items."""
        self.server.store.writer.release()
        self.server.store.fail_writes = False
        self.server.world.adopt(one_trigger(dedupe_key="event.dedupe_key"), {"gh": "last"})
        self.server.clock.pump([0.5] * 60)
        for job in self.server.jobs():
            if job.state is JobState.PAUSED:
                asked(resume_job, self.server.bulk, ChangeJob(job=job.job_id))
        self.server.clock.pump([0.5] * 60)
        for job in self.server.jobs():
            assert job.state is JobState.CANCELLED or (job.state is JobState.DONE and not job.pending), job
        self.end_calls()
        assert all(row.state != "ready" or not self.is_ours(row.delivery_id) for row in self.server.world.rows())
        assert self.server.world.version().in_flight == 0
        self.nothing_twice()
        self.server.runner.stopService()

    def is_ours(self, delivery_id: int) -> bool:
        """Return whether a delivery is this server's, not one that a killed server left for recovery."""
        found = self.server.store.query("SELECT owner FROM deliveries WHERE id = ?", delivery_id)
        return found == [(self.server.store.incarnation,)]


class MachineTests(SynchronousTestCase):
    def test_machine(self) -> None:
        """Whatever happens to servers and jobs, nothing is replayed twice, and no job leaves anything out."""
        run_state_machine_as_test(
            Jobs,
            settings=settings(
                max_examples=40,
                stateful_step_count=20,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
            ),
        )
