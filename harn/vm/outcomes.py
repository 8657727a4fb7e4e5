"""Conversion between an interpreter's frames and the values and exceptions of its interface."""

from __future__ import annotations

import msgspec

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
from harn.model.exchange import Returned
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
