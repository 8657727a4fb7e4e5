"""
The jobs of a server: changes of many deliveries, run in slices so that nothing else is delayed.

The whole state of a job is in the store, so that after any end of this server the next one continues the job.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from attrs import define, field
from msgspec import to_builtins
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from harn.clocks import WallTime
from harn.deliveries.changing import Changer
from harn.deliveries.selection import PAST, DeliveryReader, Selection, read_states, unknown_job
from harn.errors import EventLogUnavailable, WrongState
from harn.model.quantities import parse_duration
from harn.operations.registry import DONE, TOPIC, AuditRecord, new_record_id
from harn.server import RecordWriter
from harn.store.jobs import IJobs, Job, JobState, NewJob

log = Logger(namespace="harn.deliveries")

SLICE = 100
"""Deliveries of one slice, which takes some 10 ms of the store's time."""
FOUND = 500
"""Deliveries that one slice of a selection finds; ``LOOKED`` is how long it may look for them (seconds)."""
LOOKED = 0.2
TICK = 0.2
"""Seconds between two slices of a job with a rate; more if the rate is lower than one delivery in this time."""
AGAIN = 1.0
"""Seconds until a job tries again while the event log is unavailable."""


@define(eq=False)
class Run:
    """
    A job that is running.

    :ivar stops: whether it ends after the current slice.
    :ivar outlives: whether it continues after the response to its request, so that its end is recorded.
    :ivar due_at: when its rate allows the next slice (seconds of the clock).
    :ivar sleeping: the Deferred that it awaits between two slices.
    :ivar waiters: Deferreds that fire when it has ended.
    :ivar selected: Deferreds that fire when it has selected its items, or ended.
    """

    job: Job
    stops: bool = False
    outlives: bool = False
    due_at: float = 0.0
    sleeping: Deferred[None] | None = None
    waiters: list[Deferred[None]] = field(factory=list)
    selected: list[Deferred[None]] = field(factory=list)

    def stop(self) -> None:
        """End the job after the current slice."""
        self.stops = True
        if self.sleeping is not None:
            self.sleeping.cancel()


class JobRunner(Service):
    """
    Runs jobs while the server serves; it starts with the unfinished ones of earlier servers.

    :param clock: the clock for pauses and rates.
    :param wall: the time of day, for timestamps.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wall: WallTime,
        store: IJobs,
        reader: DeliveryReader,
        changer: Changer,
        records: RecordWriter,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._store = store
        self._reader = reader
        self._changer = changer
        self._records = records
        self._runs: dict[int, Run] = {}
        self._starting: Deferred[None] | None = None

    # Start and stop

    def startService(self) -> None:
        """Continue the jobs of earlier servers."""
        Service.startService(self)
        self._starting = Deferred.fromCoroutine(self._continue())

    def take_over(self) -> None:
        """Continue the jobs of a server that has died; if another server does so too, each item is changed once."""
        if self.running:
            Deferred.fromCoroutine(self._continue())

    def start_without_earlier(self) -> None:
        """Start, and leave the jobs of earlier servers to the next one."""
        Service.startService(self)

    def stopService(self) -> Deferred[Any]:
        """End each job after its slice; the next server continues with it."""
        Service.stopService(self)
        ending = [self._ended(run) for run in self._runs.values()]
        for run in list(self._runs.values()):
            run.stop()
        if self._starting is not None:
            ending.append(self._starting)
        return gatherResults(ending)

    async def _continue(self) -> None:
        while self.running:
            try:
                for job in await self._store.unfinished():
                    if job.state is JobState.RUNNING:
                        log.info("job {job} ({operation}) continues", job=job.job_id, operation=job.operation)
                        self._begin(job, outlives=True)
                return
            except EventLogUnavailable as error:
                log.warn("jobs cannot be read, trying again: {error}", error=str(error))
            await deferLater(self._clock, AGAIN)

    # Called for operators

    async def create(self, new: NewJob, delivery_ids: Sequence[int] | None = None) -> Job:
        """Store a new job, and begin it."""
        job: Job = await self._store.create(new, delivery_ids)
        self._begin(job)
        return job

    async def wait(self, job_id: int, *, seconds: float, selected: bool = False) -> None:
        """
        Wait until a job has ended or is paused.

        :param seconds: the longest time to wait.
        :param selected: whether to wait only until it has selected its items.
        """
        run = self._runs.get(job_id)
        if run is None or (selected and run.job.is_selected):
            return
        waiting: Deferred[None] = Deferred()
        (run.selected if selected else run.waiters).append(waiting)
        try:
            await waiting.addTimeout(seconds, self._clock)
        except TimeoutError:
            run.outlives = True

    async def change(self, job_id: int, state: JobState) -> Job:
        """
        Pause, resume or cancel a job, and return it.

        :raises RouteUnknown: there is none.
        :raises WrongState: it has ended.
        """
        before = await self.job(job_id)
        if before.state.has_ended:
            raise WrongState(f"job {job_id} is {before.state}; only one that is running or paused can be changed")
        run = self._runs.get(job_id)
        job: Job | None = await self._store.change(job_id, state, self._wall.seconds())
        if job is None or job.state is not state:
            raise WrongState(f"job {job_id} is {'not kept any more' if job is None else job.state}")
        if state is not JobState.RUNNING:
            if run is not None:
                run.stop()
        elif run is not None and run is self._runs.get(job_id):
            run.stops = False
        else:
            self._begin(job, outlives=True)
        return job

    async def job(self, job_id: int) -> Job:
        """
        Return a job.

        :raises RouteUnknown: there is none.
        """
        job: Job | None = await self._store.get(job_id)
        if job is None:
            raise unknown_job(job_id)
        return job

    # Running

    def _begin(self, job: Job, *, outlives: bool = False) -> None:
        if not self.running or job.job_id in self._runs:
            return
        run = self._runs[job.job_id] = Run(job, due_at=self._clock.seconds(), outlives=outlives)
        Deferred.fromCoroutine(self._run(run)).addErrback(self._failed, run)

    def _ended(self, run: Run) -> Deferred[None]:
        ended: Deferred[None] = Deferred()
        run.waiters.append(ended)
        return ended

    def _failed(self, failure: Any, run: Run) -> None:
        """Called when a job failed unexpectedly: its state is kept, and the next server or a resume continues it."""
        log.failure("job {job} failed; resume it with `jobs --resume {job}`", failure, job=run.job.job_id)
        self._over(run)

    def _over(self, run: Run) -> None:
        del self._runs[run.job.job_id]
        for waiter in (*run.selected, *run.waiters):
            if not waiter.called:
                waiter.callback(None)

    async def _run(self, run: Run) -> None:
        while not run.stops:
            try:
                pause = await self._slice(run)
            except EventLogUnavailable as error:
                log.warn("job {job} waits: {error}", job=run.job.job_id, error=str(error))
                pause = AGAIN
            if pause is None:
                break
            await self._sleep(run, pause)
        self._over(run)

    async def _slice(self, run: Run) -> float | None:
        """Run the next slice of a job; return the seconds until the one after it, None when there is none."""
        job = run.job = await self.job(run.job.job_id)
        if job.state is not JobState.RUNNING:
            return None
        if not job.is_selected:
            run.job = await self._select(job)
            if run.job.is_selected:
                for waiter in run.selected:
                    if not waiter.called:
                        waiter.callback(None)
            return 0.0
        most = SLICE if job.rate is None else max(1, min(SLICE, int(job.rate * TICK)))
        items = await self._store.pending(job.job_id, most)
        if not items:
            ended = await self._store.change(job.job_id, JobState.DONE, self._wall.seconds())
            run.job = ended or job
            if run.outlives and run.job.state is JobState.DONE:
                await self._records.note(TOPIC, job.operation, end_record(run.job, self._wall.seconds()))
            return None
        outcomes = await self._changer.change(job.operation, items, job.job_id)
        return 0.0 if job.rate is None else self._pause(run, len(outcomes) / job.rate)

    def _pause(self, run: Run, seconds: float) -> float:
        """
        Return the pause after a slice (seconds). A delay of earlier slices shortens it, by `TICK` at most.

        :param seconds: the time that the slice may take by the job's rate.
        """
        now = self._clock.seconds()
        run.due_at = max(run.due_at, now - TICK) + seconds
        return max(0.0, run.due_at - now)

    async def _select(self, job: Job) -> Job:
        selection = selection_of(job)
        scan = await self._reader.scan(selection, FOUND, job.cursor, LOOKED)
        before = scan.before
        is_last = scan.is_at_end or before is None
        found = [each.delivery_id for each in scan.found]
        added: Awaitable[Job] = self._store.select(job.job_id, found, 0 if before is None else before, is_last=is_last)
        return await added

    async def _sleep(self, run: Run, seconds: float) -> None:
        """Wait, at least for a turn of the reactor, unless the run stops."""
        if run.stops:
            return
        run.sleeping = deferLater(self._clock, seconds)
        try:
            await run.sleeping
        except CancelledError:
            pass
        finally:
            run.sleeping = None


def end_record(job: Job, now: float) -> AuditRecord:
    """Return the audit record of the end of a job that outlived the request for it."""
    return AuditRecord(
        id=new_record_id(now),
        actor=job.actor,
        operation=job.operation,
        filter=to_builtins(job.filter),
        outcome=DONE,
        counts={"matched": job.matched, PAST[job.operation]: job.changed, "skipped": job.skipped, "job": job.job_id},
    )


def selection_of(job: Job) -> Selection:
    """Return the selection of a job; ages count from its beginning."""
    chosen = job.filter
    return Selection.of(
        job.created_at,
        states=read_states(chosen.state or ""),
        trigger=chosen.trigger,
        kind=chosen.kind,
        since=None if chosen.since is None else parse_duration(chosen.since),
        where=chosen.where,
    )
