"""
Runs of the reload pipeline: one at a time, the others wait. Each has its request, the content that is read, its stages
within their deadlines, each timed, each failure named for its stage, and its result.

Plain requests that come while a reload runs share one following reload, so that every caller gets the report of a
reload that began after it asked. Each runs as a task of its own: a caller that stops waiting does not end it, and only
the server's end cuts it off.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from attrs import define, field, frozen
from msgspec import Struct
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from zope.interface import Interface

from harn.errors import (
    FilesHang,
    GenerationUnknown,
    ManifestInvalid,
    PreconditionFailed,
    ShuttingDown,
    StageFailed,
    StageTimedOut,
)
from harn.manifest.settings import OrchestratorSettings
from harn.manifest.source import ManifestSource
from harn.model.problem import Problem
from harn.model.quantities import format_duration
from harn.reload.candidate import ContinuedRamp
from harn.reload.generation import Candidate, Generation, LastGeneration, Pin, VersionNumbers
from harn.reload.inputs import Inputs
from harn.reload.interfaces import IDecision
from harn.reload.report import UNASKED, ReloadReport, ReloadRequest
from harn.reload.results import ReloadPlan
from harn.reload.targets import WAITS
from harn.triggers.reconcile import Plan
from harn.vm.interfaces import PendingImport


@define(eq=False)
class Batch:
    """Plain requests that one reload answers."""

    requests: list[ReloadRequest] = field(factory=list)
    answers: list[Deferred[ReloadReport]] = field(factory=list)

    def add(self, request: ReloadRequest) -> Deferred[ReloadReport]:
        """Add a request; return a Deferred of its report."""
        self.requests.append(request)
        self.answers.append(Deferred())
        return self.answers[-1]

    def succeed(self, report: ReloadReport) -> None:
        """Answer each request with the report of the reload, with the request's own source and actor."""
        for request, answer in zip(self.requests, self.answers, strict=True):
            answer.callback(replace(report, source=request.source, actor=request.actor))

    def fail(self, error: BaseException) -> None:
        """Fail each request with the error."""
        for answer in self.answers:
            answer.errback(error)


class ReloadQueue:
    """
    Serialises reloads.

    :ivar following: the batch that waits for the reload before it, if there is one.
    :ivar closed: nothing more runs.
    """

    def __init__(self) -> None:
        self._lock = DeferredLock()
        self._tasks: set[Deferred[Any]] = set()
        self.following: Batch | None = None
        self.closed = False

    def check_open(self) -> None:
        """
        Check that reloads still run.

        :raises ShuttingDown: they do not.
        """
        if self.closed:
            raise ShuttingDown("the server is shutting down; it accepts no reload", retry_after=5)

    def spawn(self, work: Coroutine[Deferred[Any], Any, ReloadReport]) -> Deferred[ReloadReport]:
        """Run a task; return a Deferred of its report. Cancelling that does not end the task."""
        answer: Deferred[ReloadReport] = Deferred()
        task = Deferred.fromCoroutine(work)
        self._tasks.add(task)

        def ended(result: Any) -> Any:
            self._tasks.discard(task)
            return result

        task.addBoth(ended).addCallbacks(answer.callback, answer.errback)
        return answer

    def spawn_batch(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """Run a task that answers its callers itself."""
        task = Deferred.fromCoroutine(work)
        self._tasks.add(task)
        task.addBoth(lambda _: self._tasks.discard(task))

    def close(self) -> Deferred[None]:
        """Cancel the tasks that run; fire when they have ended."""
        self.closed = True
        for task in list(self._tasks):
            task.cancel()
        return self._lock.run(lambda: None)

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """
        Wait for the reloads before, and keep out those behind.

        :raises ShuttingDown: the server ends: no reload begins any more, or the wait or the body was cancelled.
        """
        try:
            await self._lock.acquire()
            try:
                if self.closed:  # the next server decides what was asked of this one
                    raise ShuttingDown("the server is shutting down; ask again", retry_after=5)
                yield
            finally:
                self._lock.release()
        except CancelledError:
            raise ShuttingDown("the server is shutting down; the reload was cut off", retry_after=5) from None


T = TypeVar("T")


@frozen(kw_only=True)
class Start:
    """
    State of other servers that a generation continues: of an earlier one the first, of those that serve any other.

    :ivar last: the generation that served last.
    :ivar ramps: by trigger id, the ramps that were under way or aborted.
    :ivar joins: other servers serve that generation, and this one is to serve it, too, under its number.
    :ivar decision: not at a start: about a generation that another server proposes.
    """

    last: LastGeneration = field(factory=LastGeneration)
    ramps: Mapping[str, ContinuedRamp] = field(factory=dict)
    joins: bool = False
    decision: IDecision | None = None


class IWork(Interface):
    """The work of stages; provided by `harn.reload.build.Builder`."""

    def doing() -> str:
        """Return the file or module that a stage waits for; empty when it waits for neither."""

    def importing() -> PendingImport | None:
        """Return the import that a stage waits for; None where it waits for none."""


class Stages:
    """
    Runs the stages of one reload.

    :ivar timeout: seconds that each stage may take.
    :ivar durations: by stage, seconds that it took.
    :ivar current: the stage that runs, or ran last.
    """

    def __init__(self, clock: IReactorTime, timeout: float, work: IWork | None = None) -> None:
        """
        Begin with the first.

        :param work: what the stages do, for the message of a time-out.
        """
        self._clock = clock
        self._work = work
        self.timeout = timeout
        self.durations: dict[str, float] = {}
        self.current = "parse"

    async def run(self, stage: str, work: Coroutine[Deferred[Any], Any, T]) -> T:
        """
        Run one stage, or a further part of it: all parts share its time.

        :raises ManifestInvalid: the author can correct it; as the stage raised it.
        :raises StageTimedOut: it took longer than it may, and its work was cancelled; or a file hangs.
        :raises StageFailed: anything else went wrong in it.
        :raises GenerationUnknown, PreconditionFailed, ShuttingDown: as the stage raised it.
        """
        self.current = stage
        spent = self.durations.get(stage, 0.0)
        started = self._clock.seconds()
        running = Deferred.fromCoroutine(work)
        expired: list[StageTimedOut] = []

        def expire() -> None:
            expired.append(self._timed_out(stage))  # before it is cancelled
            running.cancel()

        timer = self._clock.callLater(max(0.0, self.timeout - spent), expire)
        try:
            return await running
        except CancelledError:
            if not expired:
                raise
            raise expired[0] from None
        except FilesHang as error:
            raise StageTimedOut(stage, str(error)) from None
        except (ManifestInvalid, StageFailed, GenerationUnknown, PreconditionFailed, ShuttingDown):
            raise
        except GeneratorExit as error:
            if not running.called:
                raise  # this coroutine is being closed
            raise StageFailed(stage, "GeneratorExit") from error
        except BaseException as error:
            # A plugin may raise anything, SystemExit too: that is a problem of the reload, not the server's end.
            raise StageFailed(stage, f"{type(error).__name__}: {error}") from error
        finally:
            if timer.active():
                timer.cancel()
            self.durations[stage] = spent + self._clock.seconds() - started

    def _timed_out(self, stage: str) -> StageTimedOut:
        """Return the failure of a stage that runs, with the line of the import for which it waits, if it does."""
        said = f"stage {stage} did not end within {format_duration(self.timeout)} ([orchestrator.reload] timeout)"
        doing = "" if self._work is None else self._work.doing()
        importing = None if self._work is None else self._work.importing()
        error = f"{said}: {doing}" if doing else said
        if importing is None or not importing.place:
            return StageTimedOut(stage, error)
        file, _, line = importing.place.rpartition(":")
        problem = Problem(
            file=file, line=int(line), message=f"{said}: {importing.what}", hint=WAITS, code=importing.place
        )
        return StageTimedOut(stage, error, [problem])


@frozen(kw_only=True)
class PipelineRun:
    """
    One run of the pipeline.

    :ivar live: the live generation.
    :ivar started_with: the settings of the server's first generation, once there was one.
    :ivar last: at a start: the generation that served last; a candidate with the same digest keeps its number.
    :ivar ramps: at a start: by trigger id, the ramps of an earlier server.
    :ivar joins: at a start: other servers serve the content that is recalled, under the number that it keeps.
    :ivar decision: whether it is adopted, where several servers may use the store.
    :ivar versions: gives the numbers of versions.
    """

    request: ReloadRequest
    stages: Stages
    stack: AsyncExitStack = field(repr=False)
    live: Generation | None
    versions: VersionNumbers
    started_with: OrchestratorSettings | None = None
    last: LastGeneration = field(factory=LastGeneration)
    ramps: Mapping[str, ContinuedRamp] = field(factory=dict)
    joins: bool = False
    decision: IDecision | None = None

    @property
    def reunites(self) -> bool:
        """Whether it is adopted even if it is what this server serves; see `IDecision`."""
        return self.decision is not None and self.decision.reunites

    @property
    def follows(self) -> int | None:
        """The number of a generation that another server proposes, with its content in the store."""
        return None if self.decision is None else self.decision.follows

    @property
    def split_from(self) -> int | None:
        """See `Generation.split_from`."""
        is_split = self.decision is not None and self.decision.splits
        return self.live.shared_number if is_split and self.live is not None else None

    @property
    def may_remove_most(self) -> bool:
        """Whether it may remove most triggers: it was asked for, changes nothing, or is the first."""
        return self.live is None or self.request.dry_run or self.request.source != UNASKED


class ContentRead(Struct, frozen=True, kw_only=True):
    """
    The content that a run has read.

    :ivar recalled: the earlier generation whose content it is; None when it was read from files.
    :ivar pin: of a recalled one: the files that it replaces.
    """

    source: ManifestSource
    inputs: Inputs
    recalled: int | None = None
    pin: Pin | None = None

    @property
    def drifted(self) -> tuple[str, ...]:
        """Files that differ from the content that was recalled."""
        files, now = self.inputs.files, {} if self.pin is None else self.pin.files
        return tuple(sorted(path for path in files if now.get(path, files[path]) != files[path]))

    def changed_while_reading(self, request: ReloadRequest) -> tuple[str, ...]:
        """Return the files that have changed since the requester, the watcher, saw them stop changing."""
        files, expected = self.inputs.files, request.expected
        plain = self.inputs.plain_files
        return tuple(sorted(path for path in plain if expected.get(path, files[path]) != files[path]))


class RunResult(Struct, frozen=True, kw_only=True):
    """
    The result of a run.

    :ivar candidate: ready to be adopted; None where nothing is adopted, and once that is done: what it replaces is
        freed in slices.
    :ivar is_adopted: that was done.
    :ivar held: nothing is adopted, since it would remove most triggers and no caller asked for the reload.
    :ivar changed_while_reading: files that were written meanwhile; nothing is adopted.
    :ivar details: of a dry run.
    :ivar renewed: the secrets, and files of secrets, that differ from the live ones.
    """

    plan: Plan
    read: ContentRead
    candidate: Candidate | None = None
    is_adopted: bool = False
    held: bool = False
    changed_while_reading: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    details: ReloadPlan | None = None
    renewed: tuple[str, ...] = ()

    def adopted(self) -> RunResult:
        """Return the result once its candidate was adopted."""
        return replace(self, candidate=None, is_adopted=True)

    def ends_pin(self, request: ReloadRequest) -> bool:
        """Return whether the pin ends: a caller asked for the files to be adopted, and they are what is live."""
        unchanged = not self.is_adopted and not self.held and not self.changed_while_reading
        return unchanged and request.source != UNASKED and request.recall is None
