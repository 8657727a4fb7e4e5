"""
Calls of an interpreter on the server's side: one that runs, or waits to, until it has ended, once.

The attempt that a call makes is passed back when the call has ended. For those who await one call there is
`run_call`, which gives a Deferred.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from attrs import define
from twisted.internet.defer import CancelledError, Deferred

from harn.errors import AttemptFailed
from harn.model.exchange import Ending, Endings, Returned, Running
from harn.vm.interfaces import Call

KEPT_LINES = 50
"""Lines that a handler printed or logged last, which are kept until its call ends."""
KEPT_CHARACTERS = 8192
"""Characters of those."""


class Runner(Protocol):
    """An interpreter, or a part of one, that runs calls."""

    def abandon(self, number: int) -> None:
        """End a call as if its time had run out: its maker has cancelled it, and gets no answer any more."""


@define(eq=False)
class ActiveCall:
    """
    A call that has not ended.

    :ivar attempt: the attempt that it makes; ``endings`` gets that back.
    :ivar due_at: reactor's seconds of its next check; infinite while it waits for a thread.
    :ivar cancelled: its end was requested. ``has_ended``: its maker has got its outcome.
    """

    number: int
    call: Call
    attempt: Any
    endings: Endings
    runner: Runner
    due_at: float = math.inf
    cancelled: bool = False
    has_ended: bool = False
    _lines: deque[str] | None = None

    def printed(self, text: str) -> None:
        """Keep what the handler printed or logged, for a failure; the last `KEPT_LINES` of it."""
        if self._lines is None:
            self._lines = deque(maxlen=KEPT_LINES)
        self._lines.append(text[-KEPT_CHARACTERS:])

    def ending(self, outcome: Returned | Exception) -> list[Ending]:
        """Return how it has ended, a failure with the handler's last lines; nothing if it has ended already."""
        if self.has_ended:
            return []
        self.has_ended = True
        if self._lines is not None and isinstance(outcome, AttemptFailed):
            outcome.output = "\n".join(self._lines)[-KEPT_CHARACTERS:]
        return [(self.attempt, outcome)]

    def end(self, outcome: Returned | Exception) -> None:
        """End it, unless it has ended."""
        ending = self.ending(outcome)
        if ending:
            self.endings.ended(ending)

    def cancel(self) -> None:
        """See `Running.cancel`."""
        if not self.has_ended:
            self.runner.abandon(self.number)
            self.end(CancelledError())


class Interpreter(Protocol):
    """An interpreter, or a part of one, that begins calls; see `IInterpreter.begin`."""

    def begin(self, call: Call, attempt: Any, endings: Endings, *, alone: bool = False) -> Running:
        """Begin one call."""


class _Fired:
    """The endings of calls whose attempts are Deferreds."""

    def ended(self, endings: Sequence[Ending]) -> None:
        for answer, outcome in endings:
            if isinstance(outcome, Returned):
                answer.callback(outcome)
            else:
                answer.errback(outcome)


_FIRED = _Fired()


def run_call(interpreter: Interpreter, call: Call, *, alone: bool = False) -> Deferred[Returned]:
    """
    Run one call, and fire with what it returned, or fail with its error; see `IInterpreter.begin`.

    Cancelling the Deferred cancels the call.
    """
    begun: list[Running] = []
    answer: Deferred[Returned] = Deferred(lambda _: begun[0].cancel())
    begun.append(interpreter.begin(call, answer, _FIRED, alone=alone))
    return answer


def pass_on(answer: Deferred[Returned], attempt: Any, endings: Endings) -> Deferred[None]:
    """Pass on what a Deferred fires with as the ending of an attempt; cancelling the result cancels it."""
    return answer.addCallbacks(
        lambda returned: endings.ended([(attempt, returned)]),
        lambda failure: endings.ended([(attempt, failure.value)]),
    )
