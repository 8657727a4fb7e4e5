"""
Runs of the reload pipeline, one at a time. A run has its request, the content that it read, its stages and its result.
Each stage has a deadline and is timed, and its failures name it.

Plain requests that arrive while a reload runs share one following reload, so that every caller gets the report of a
reload that began after its request. Each reload runs as a task of its own: a caller that stops waiting does not end it,
and only the server's end cancels it.
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

    :ivar following: the batch that waits for the current reload to end; None if no batch waits.
    :ivar closed: True once no reload may begin any more.
    """

    def __init__(self) -> None:
        self._lock = DeferredLock()
        self._tasks: set[Deferred[Any]] = set()
        self.following: Batch | None = None
        self.closed = False

    def check_open(self) -> None:
        """
        Check that reloads may still begin.

        :raises ShuttingDown: the queue is closed.
        """
        if self.closed:
            raise ShuttingDown("the server is shutting down; it accepts no reload", retry_after=5)

    def spawn(self, work: Coroutine[Deferred[Any], Any, ReloadReport]) -> Deferred[ReloadReport]:
        """Run a task; return a Deferred of its report. Cancelling the Deferred does not end the task."""
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
        """Cancel the tasks that run; return a Deferred that fires when they have ended."""
        self.closed = True
        for task in list(self._tasks):
            task.cancel()
        return self._lock.run(lambda: None)

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """
        Wait for earlier reloads to end, and let no later one begin before the body of the ``async with`` has ended.

        :raises ShuttingDown: the server ends: the queue is closed, or the wait or the body was cancelled.
        """
        try:
            await self._lock.acquire()
            try:
                if self.closed:  # the next server handles the request
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
    The state of other servers that a generation continues.

    A server's first generation continues the state of an earlier server; any other, that of the servers on the store.

    :ivar last: the generation that served last.
    :ivar ramps: the ramps that were under way or aborted, by trigger id.
    :ivar joins: True if other servers serve ``last``, and this server is to serve it, too, under the same number.
    :ivar decision: the decision about a generation that another server proposes; None at a start.
    """

    last: LastGeneration = field(factory=LastGeneration)
    ramps: Mapping[str, ContinuedRamp] = field(factory=dict)
    joins: bool = False
    decision: IDecision | None = None


class IWork(Interface):
    """The work of stages; provided by `harn.reload.build.Builder`."""

    def doing() -> str:
        """Return the file or module that a stage waits for; empty if it waits for neither."""

    def importing() -> PendingImport | None:
        """Return the import that a stage waits for; None if it waits for no import."""


class Stages:
    """
    Runs the stages of one reload.

    :ivar timeout: seconds that each stage may take.
    :ivar durations: the seconds that each stage took, by stage.
    :ivar current: the stage that runs, or the one that ran last.
    """

    def __init__(self, clock: IReactorTime, timeout: float, work: IWork | None = None) -> None:
        """
        Begin with the first stage.

        :param work: the work of the stages, for the message of a time-out.
        """
        self._clock = clock
        self._work = work
        self.timeout = timeout
        self.durations: dict[str, float] = {}
        self.current = "parse"

    async def run(self, stage: str, work: Coroutine[Deferred[Any], Any, T]) -> T:
        """
        Run one stage, or a further part of it; all parts share the time of the stage.

        :raises ManifestInvalid: the manifest's author must correct problems; as the stage raised it.
        :raises StageTimedOut: the stage took too long, and its work was cancelled; or a file hangs.
        :raises StageFailed: the stage failed in any other way.
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
            # A plugin may raise any exception, even SystemExit: the reload fails, and the server continues.
            raise StageFailed(stage, f"{type(error).__name__}: {error}") from error
        finally:
            if timer.active():
                timer.cancel()
            self.durations[stage] = spent + self._clock.seconds() - started

    def _timed_out(self, stage: str) -> StageTimedOut:
        """Return the failure of a stage that runs too long, with the line of the import that it waits for, if any."""
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

    :ivar stack: the exit stack that holds everything that the stages acquire.
    :ivar live: the live generation; None at a start.
    :ivar versions: gives the numbers of new binding versions.
    :ivar started_with: the settings of the server's first generation; None before that.
    :ivar last: at a start, the generation that served last; a candidate with the same digest keeps its number.
    :ivar ramps: at a start, the ramps that an earlier server left, by trigger id.
    :ivar joins: at a start, True if other servers serve the recalled content; the candidate then keeps its number.
    :ivar decision: the decision whether the candidate is adopted, if several servers use the store; else None.
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
        """Whether the content is adopted even if this server serves it already; see `IDecision`."""
        return self.decision is not None and self.decision.reunites

    @property
    def follows(self) -> int | None:
        """The number of the generation that another server proposes, whose content is in the store; else None."""
        return None if self.decision is None else self.decision.follows

    @property
    def split_from(self) -> int | None:
        """See `Generation.split_from`."""
        is_split = self.decision is not None and self.decision.splits
        return self.live.shared_number if is_split and self.live is not None else None

    @property
    def may_remove_most(self) -> bool:
        """Whether the run may remove most triggers: a caller requested it, it is a dry run, or it is the first."""
        return self.live is None or self.request.dry_run or self.request.source != UNASKED


class ContentRead(Struct, frozen=True, kw_only=True):
    """
    The content that a run has read.

    :ivar recalled: the earlier generation whose content it is; None if it was read from files.
    :ivar pin: for recalled content, the pin on the files that it replaces; else None.
    """

    source: ManifestSource
    inputs: Inputs
    recalled: int | None = None
    pin: Pin | None = None

    @property
    def drifted(self) -> tuple[str, ...]:
        """The files that differ from the recalled content."""
        files, now = self.inputs.files, {} if self.pin is None else self.pin.files
        return tuple(sorted(path for path in files if now.get(path, files[path]) != files[path]))

    def changed_while_reading(self, request: ReloadRequest) -> tuple[str, ...]:
        """Return the files that have changed since the watcher, which made the request, saw them stop changing."""
        files, expected = self.inputs.files, request.expected
        plain = self.inputs.plain_files
        return tuple(sorted(path for path in plain if expected.get(path, files[path]) != files[path]))


class RunResult(Struct, frozen=True, kw_only=True):
    """
    The result of a run.

    :ivar plan: the changes of triggers.
    :ivar candidate: the candidate that is ready to be adopted; None if nothing is adopted, and after the adopt, since
        the replaced versions are freed in slices.
    :ivar is_adopted: True once the candidate was adopted.
    :ivar held: True if nothing is adopted because most triggers would be removed and no caller requested the reload.
    :ivar changed_while_reading: the files that changed meanwhile; if there are any, nothing is adopted.
    :ivar details: the plan of a dry run; else None.
    :ivar renewed: the secrets, and the files that hold secrets, that differ from the live ones.
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
        """Return the result as it is after the adopt of its candidate."""
        return replace(self, candidate=None, is_adopted=True)

    def ends_pin(self, request: ReloadRequest) -> bool:
        """Return whether the pin ends, because a caller requested a reload of the files and they are live already."""
        unchanged = not self.is_adopted and not self.held and not self.changed_while_reading
        return unchanged and request.source != UNASKED and request.recall is None
