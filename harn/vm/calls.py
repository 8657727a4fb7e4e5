"""
Calls of an interpreter on the server's side, from begin to their one end; their frames, and the values and exceptions
made of them.

The attempt that a call makes is passed back when the call has ended. For those who await one call there is `run_call`,
which gives a Deferred.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import CancelledError, Deferred

from harn.errors import (
    AttemptFailed,
    HandlerRaised,
    HandlerRejected,
    HandlerRetryAfter,
    HandlerTimedOut,
    PredicateRaised,
    ResultInvalid,
    ResultTooLarge,
)
from harn.model.exchange import Ending, Endings, Returned, Running
from harn.model.references import FunctionReference
from harn.vm.bundle import Bundle
from harn.vm.frames import (
    LARGEST_RESULT,
    PREDICATE_RAISED,
    RAISED,
    REJECTED,
    RESULT_INVALID,
    RESULT_TOO_LARGE,
    RETRY_AFTER,
    TIMED_OUT,
    Begin,
    Done,
    Failed,
    Flaw,
    Load,
    Source,
)
from harn.vm.interfaces import Call
from harn.vm.sources import BundleProblem

KEPT_LINES = 50
"""Lines that a handler printed or logged last, which are kept until its call ends."""
KEPT_CHARACTERS = 8192
"""Characters of those."""


class Runner(Protocol):
    """An interpreter, or a part of one, that runs calls."""

    def abandon(self, number: int) -> None:
        """End a call as if its time had run out: its maker has cancelled it, and gets no answer any more."""


class ActiveCall(msgspec.Struct, eq=False):
    """
    A call that has not ended.

    :ivar attempt: the attempt that it makes; ``endings`` gets that back.
    :ivar due_at: reactor's seconds of its next check; infinite while it waits for a thread.
    :ivar cancelled: its end was requested.
    :ivar has_ended: its maker has got its outcome.
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
        """Keep the last `KEPT_LINES` lines that the handler printed or logged, for a failure."""
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


_skim = msgspec.json.Decoder(msgspec.Raw).decode
"""Parses all of a JSON text without building a value: 3 ms for the largest result."""

_CLASSES: dict[int, type[AttemptFailed]] = {
    RAISED: HandlerRaised,
    REJECTED: HandlerRejected,
    TIMED_OUT: HandlerTimedOut,
    RESULT_INVALID: ResultInvalid,
    RESULT_TOO_LARGE: ResultTooLarge,
    PREDICATE_RAISED: PredicateRaised,
}


def error_of(failed: Failed) -> AttemptFailed:
    """Return the exception of a failed call."""
    if failed.kind == RETRY_AFTER:
        return HandlerRetryAfter(failed.message, failed.seconds if failed.seconds >= 0 else None)
    error = _CLASSES.get(failed.kind, HandlerRaised)(failed.message)
    error.traceback = failed.traceback
    return error


def outcome_of(done: Done) -> Returned | AttemptFailed:
    """
    Return a call's result, or that it is over the limit or not JSON: code of handlers shares the process that made it.
    """
    result = done.result
    if result is None:
        return Returned(None)
    if len(result) > LARGEST_RESULT:
        return ResultTooLarge(f"the result must have at most {LARGEST_RESULT} bytes, got {len(result)}")
    try:
        _skim(result)
        if not result.isascii():
            str(result, "utf-8")
    except (ValueError, RecursionError) as error:
        return ResultInvalid(f"the result is not JSON: {error}")
    return Returned(result)


def timed_out(call: Call) -> HandlerTimedOut:
    """Return the exception of a call whose time has run out."""
    return HandlerTimedOut(f"ran longer than {call.timeout:g} s")


def begin_frame(number: int, call: Call) -> Begin:
    """Return the frame that begins a call."""
    return Begin(
        number,
        call.handler,
        call.predicate,
        call.binding,
        call.trigger_id,
        call.attempt,
        call.timeout,
        call.replay_of,
        "" if call.trace is None else call.trace.text,
        call.envelope,
        call.body,
    )


def load_frame(bundle: Bundle) -> Load:
    """Return the frame that makes a bundle's modules importable."""
    sources = [Source(each.name, each.path, each.source, each.is_package) for each in bundle.modules.values()]
    return Load(sources, bundle.root)


def problem_of_flaw(flaw: Flaw) -> BundleProblem:
    """Return the problem for a flaw."""
    module, _, function = flaw.reference.partition(":")
    return BundleProblem(
        file=flaw.file or module,
        line=flaw.line,
        where=flaw.reference,
        message=flaw.message,
        hint=flaw.hint,
        reference=FunctionReference(module, function),
    )
