"""The stages of one reload: each within its deadline, each timed, each failure named for its stage."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime

from harn.errors import (
    FilesHang,
    GenerationUnknown,
    ManifestInvalid,
    PreconditionFailed,
    ShuttingDown,
    StageFailed,
    StageTimedOut,
)
from harn.model.quantities import format_duration

T = TypeVar("T")


class Stages:
    """
    Runs the stages of one reload.

    :ivar timeout: seconds that each stage may take.
    :ivar durations: by stage, seconds that it took.
    :ivar current: the stage that runs, or ran last.
    """

    def __init__(self, clock: IReactorTime, timeout: float, doing: Callable[[], str] = lambda: "") -> None:
        """
        Begin with the first.

        :param doing: returns what a stage waits for, for the message of a time-out; may be empty.
        """
        self._clock = clock
        self._doing = doing
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
        expired: list[str] = []

        def expire() -> None:
            expired.append(self._doing())  # asked before the work is cancelled
            running.cancel()

        timer = self._clock.callLater(max(0.0, self.timeout - spent), expire)
        try:
            return await running
        except CancelledError:
            if not expired:
                raise
            allowed, doing = format_duration(self.timeout), f": {expired[0]}" if expired[0] else ""
            raise StageTimedOut(
                stage, f"stage {stage} did not end within {allowed} ([orchestrator.reload] timeout){doing}"
            ) from None
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
