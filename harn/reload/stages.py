"""The stages of one reload: each within its deadline, each timed, each failure named for its stage."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime

from harn.errors import (
    GenerationUnknown,
    ManifestInvalid,
    PreconditionFailed,
    ShuttingDown,
    StageFailed,
    StageTimedOut,
)
from harn.model.durations import format_duration

T = TypeVar("T")


class Stages:
    """
    Runs the stages of one reload.

    :ivar timeout: seconds that each stage may take.
    :ivar durations: by stage, seconds that it took.
    :ivar current: the stage that runs, or ran last.
    """

    def __init__(self, clock: IReactorTime, timeout: float) -> None:
        self._clock = clock
        self.timeout = timeout
        self.durations: dict[str, float] = {}
        self.current = "parse"

    async def run(self, stage: str, work: Coroutine[Deferred[Any], Any, T]) -> T:
        """
        Run one stage, or a further part of it: all parts share its time.

        :raises ManifestInvalid: what the author can mend; as the stage raised it.
        :raises StageTimedOut: it took longer than it may; its work was cancelled.
        :raises StageFailed: anything else went wrong in it.
        :raises GenerationUnknown, PreconditionFailed, ShuttingDown: as the stage raised it.
        """
        self.current = stage
        spent = self.durations.get(stage, 0.0)
        started = self._clock.seconds()
        running = Deferred.fromCoroutine(work).addTimeout(max(0.0, self.timeout - spent), self._clock)
        try:
            return await running
        except (ManifestInvalid, StageFailed, GenerationUnknown, PreconditionFailed, ShuttingDown, CancelledError):
            raise
        except GeneratorExit as error:
            if not running.called:
                raise  # nobody runs us any more
            raise StageFailed(stage, "GeneratorExit") from error
        except TimeoutError:
            allowed = format_duration(self.timeout)
            raise StageTimedOut(
                stage, f"stage {stage} did not end within {allowed} ([orchestrator.reload] timeout)"
            ) from None
        except BaseException as error:
            # A plugin may raise anything, SystemExit too: that is a problem of the reload, not the server's end.
            raise StageFailed(stage, f"{type(error).__name__}: {error}") from error
        finally:
            self.durations[stage] = spent + self._clock.seconds() - started
