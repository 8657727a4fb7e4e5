"""
One call inside an interpreter: predicate, handler, result as JSON, and the kind of each failure.

Async functions run as a task of the interpreter's loop; plain ones on its threads, or, if it has none, on the loop.
"""

from __future__ import annotations

import math
import time
from asyncio import AbstractEventLoop, Task
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextvars import ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from harn.handlers import LONGEST_WAIT, Context, Reject, RetryAfter, TriggerEvent
from harn.model.event import decode_envelope
from harn.model.response import Response
from harn.model.trace import handler_trace
from harn.vm.child.forks import end_copy
from harn.vm.child.functions import UserFunction
from harn.vm.child.threads import Job, interrupt, withdraw_interrupt
from harn.vm.child.tracebacks import message_of, one_line, plain_text, user_traceback
from harn.vm.frames import (
    BY_SCHEDULE,
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
)

if TYPE_CHECKING:
    from harn.vm.child.session import ChildSession

SAID_YES = b"true"
"""The result of a call that runs only the predicate."""

CURRENT: ContextVar[RunningCall | None] = ContextVar("harn_call", default=None)
"""The call that the running code belongs to; tasks and threads that it starts inherit it."""

_encode = msgspec.json.Encoder().encode


class _ResultFailed(Exception):
    def __init__(self, kind: int, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class FirstSteps:
    """
    Makes tasks whose first step runs immediately, and not in the loop's next turn: most handlers end in it.

    They are tasks like any other, also within that step. It is taken from ``call_soon`` of the loop, to which asyncio
    passes it. Source: Python 3.12, "Eager Task Factory", which 3.11 lacks.
    """

    __slots__ = ("_loop",)

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop: Any = loop

    def run(self, work: Coroutine[Any, Any, None]) -> Task[None]:
        """Return a task that has had its first step; not to be called within another task."""
        loop = self._loop
        if loop.get_task_factory() is not None or "call_soon" in loop.__dict__:  # the user's code has its reasons
            other: Task[None] = loop.create_task(work)
            return other
        taken: list[Any] = []
        loop.call_soon = partial(self.take_step, taken)
        try:
            task = Task(work, loop=loop)
        finally:
            del loop.call_soon
        if taken:
            context, step = taken
            context.run(step)
        return task

    def take_step(self, taken: list[Any], callback: Callable[..., object], *arguments: Any, context: Any = None) -> Any:
        """Put into ``taken`` the step of the task that is made; what a finalizer passes meanwhile goes to the loop."""
        if not taken and not arguments and context is not None:
            taken += context, callback
            return None
        return type(self._loop).call_soon(self._loop, callback, *arguments, context=context)


class RunningCall:
    """
    A call from its `Begin` to its one answer.

    :ivar session: has this call and others.
    :ivar logged: number of characters this one has logged.
    :ivar partial: by stream, the line that it has not ended yet.
    :ivar programs: by number, the programs that it has started, and when; see `harn.vm.child.programs`.
    """

    __slots__ = (
        "_begin",
        "_cancelled",
        "_functions",
        "_in_predicate",
        "_thread",
        "_touched",
        "context",
        "logged",
        "number",
        "partial",
        "programs",
        "session",
        "task",
    )

    def __init__(
        self, begin: Begin, handler: UserFunction | None, predicate: UserFunction | None, session: ChildSession
    ) -> None:
        self.number = begin.number
        self.context: Context | None = None
        self.logged = 0
        self.partial: dict[str, str] = {}
        self.programs: dict[int, int] = {}
        self.task: Task[None] | None = None
        self._begin = begin
        self._functions = handler, predicate
        self.session = session
        self._thread: int | None = None
        self._touched = False
        self._cancelled = False
        self._in_predicate = False

    def start(self) -> None:
        """Start to run, on the loop or on a thread; not to be called within a task."""
        handler, predicate = self._functions
        session = self.session
        is_async = (handler is not None and handler.is_async) or (predicate is not None and predicate.is_async)
        if session.threads is None or is_async:
            task = session.first_steps.run(self._run_on_loop())
            end_copy()  # a copy that the handler has forked, and that waits for something, begins no further call
            if self.number in session.calls:
                self.task = task
        elif not session.threads.submit(self._thread_job(self._run_in_thread)):
            session.queued(self)

    def cancel(self) -> None:
        """End it, as far as Python can, since its time has run out."""
        self._cancelled = True
        thread = self._thread
        if thread is not None:
            interrupt(thread)
            if self._thread != thread:  # it has left this call meanwhile
                withdraw_interrupt(thread)
            self.session.end_programs(self)  # it may wait for one, which delays the interrupt
        if self.task is not None:
            self.task.cancel()
        if not self._touched:  # a call that has not begun never will, and cannot answer itself
            self.session.finish(self, self._timed_out())

    def ended(self) -> None:
        """Hold nothing that holds this call: so it is freed now, and not by the collector."""
        self.context = self.task = None

    @property
    def is_cancelled(self) -> bool:
        """Whether its time had run out."""
        return self._cancelled

    # The three ways to run

    async def _run_on_loop(self) -> None:
        if self._cancelled:
            return
        self._touched = True
        CURRENT.set(self)
        try:
            handler, predicate = self._functions
            event = self._event()
            wanted = True
            if predicate is not None:
                self._in_predicate = True
                wanted = self._verdict(await self._apply(predicate, event))
                self._in_predicate = False
            result: bytes | None = None
            if wanted and handler is None:
                result = SAID_YES
            elif wanted and handler is not None:
                result = encode_result(await self._apply(handler, event))
            answer: Done | Failed = Done(self.number, result)
        except BaseException as error:  # SystemExit too: it would end the loop
            end_copy(error)
            answer = self._failure(error)
        end_copy()
        self.session.finish(self, answer)

    async def _apply(self, function: UserFunction, event: TriggerEvent) -> Any:
        if not function.is_async and self.session.threads is not None:
            return await self._apply_in_thread(function, event)
        result = function.call(event, self._make_context(event)) if function.wants_context else function.call(event)
        return await result if hasattr(result, "__await__") else result

    async def _apply_in_thread(self, function: UserFunction, event: TriggerEvent) -> Any:
        from asyncio import wrap_future

        done: Future[Any] = Future()

        def job() -> None:
            try:
                result = self._call_in_thread(function, event)
                end_copy()
                done.set_result(result)
            except BaseException as error:
                end_copy(error)
                # StopIteration cannot pass through a future.
                done.set_exception(RuntimeError(one_line(error)) if isinstance(error, StopIteration) else error)

        if self.session.threads is not None and not self.session.threads.submit(self._thread_job(job)):
            self.session.queued(self)
        result = await wrap_future(done)
        return await result if hasattr(result, "__await__") else result

    def _run_in_thread(self) -> None:
        try:
            handler, predicate = self._functions
            event = self._event()
            wanted = True
            if predicate is not None:
                self._in_predicate = True
                wanted = self._verdict(self._call_in_thread(predicate, event))
                self._in_predicate = False
            encoded: bytes | None = None
            if wanted and handler is None:
                encoded = SAID_YES
            elif wanted and handler is not None:
                result = self._call_in_thread(handler, event)
                end_copy()
                if hasattr(result, "__await__"):  # a plain function that returned a coroutine
                    self.session.loop.call_soon_threadsafe(self._go_on, result)
                    return
                encoded = encode_result(result)
            answer: Done | Failed = Done(self.number, encoded)
        except BaseException as error:
            end_copy(error)
            answer = self._failure(error)
        end_copy()
        self.session.loop.call_soon_threadsafe(self.session.finish, self, answer)

    def _go_on(self, awaitable: Any) -> None:
        async def go_on() -> None:
            CURRENT.set(self)
            try:
                answer: Done | Failed = Done(self.number, encode_result(await awaitable))
            except BaseException as error:
                end_copy(error)
                answer = self._failure(error)
            end_copy()
            self.session.finish(self, answer)

        self.task = self.session.loop.create_task(go_on())
        if self._cancelled:
            self.task.cancel()

    def _thread_job(self, run: Callable[[], None]) -> Job:
        context = copy_context()

        def job(was_queued: bool) -> None:
            if self._cancelled:
                return
            self._touched = True
            if was_queued:
                self.session.loop.call_soon_threadsafe(self.session.started, self)
            context.run(run)

        return job

    def _call_in_thread(self, function: UserFunction, event: TriggerEvent) -> Any:
        from threading import get_ident

        CURRENT.set(self)
        self._thread = get_ident()
        try:
            return function.call(event, self._make_context(event)) if function.wants_context else function.call(event)
        finally:
            self._thread = None

    def _event(self) -> Any:
        """Return the argument: the event; of a call without one the JSON value that stands instead of its body."""
        if not self._begin.envelope:
            return msgspec.json.decode(self._begin.body)
        return TriggerEvent(decode_envelope(self._begin.envelope), self._begin.body)

    def _make_context(self, event: Any) -> Context:
        if self.context is None:
            begin = self._begin
            self.context = Context(
                binding=begin.binding,
                trigger_id=begin.trigger_id,
                attempt=begin.attempt,
                deadline=time.time() + begin.timeout,
                replay_of=begin.replay_of,
                services=self,
            )
            if begin.envelope:
                self.context.trace = handler_trace(begin.trace, event)
        return self.context

    def log_record(self, level: str, message: str, fields: Mapping[str, Any]) -> None:
        """See `harn.handlers.AttemptServices`."""
        self.session.log(self, level, message, fields)

    def fetch_secret(self, reference: str) -> Future[str]:
        """See `harn.handlers.AttemptServices`."""
        return self.session.ask_secret(self, reference)

    def _verdict(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise _ResultFailed(
                PREDICATE_RAISED,
                f"the predicate {self._begin.predicate} must return True or False, got {type(value).__name__}",
            )
        return value

    def _timed_out(self) -> Failed:
        return Failed(self.number, TIMED_OUT, f"ran longer than {self._begin.timeout:g} s")

    def _failure(self, error: BaseException) -> Failed:
        if self._cancelled:
            return self._timed_out()
        number = self.number
        if isinstance(error, _ResultFailed):
            return Failed(number, error.kind, str(error))
        trace = user_traceback(error, self.session.paths)
        if self._in_predicate:
            return Failed(number, PREDICATE_RAISED, one_line(error), trace)
        if isinstance(error, Reject):
            return Failed(number, REJECTED, message_of(error))
        if isinstance(error, RetryAfter) and (seconds := wait_of(error)) is not None:
            return Failed(number, RETRY_AFTER, message_of(error), "", seconds)
        return Failed(number, RAISED, one_line(error), trace)


def wait_of(error: RetryAfter) -> float | None:
    """
    Return the seconds that an exception asks for, or `BY_SCHEDULE`; None if a derived class has no valid ``seconds``.
    """
    seconds = getattr(error, "seconds", math.nan)
    if seconds is None:
        return BY_SCHEDULE
    return min(float(seconds), LONGEST_WAIT) if isinstance(seconds, int | float) and seconds >= 0 else None


def encode_result(value: Any) -> bytes:
    """
    Encode a handler's result. The server checks it once more: an object may have brought an encoding of its own.

    :raises _ResultFailed: it has no form in JSON, or one larger than `LARGEST_RESULT`.
    """
    if isinstance(value, Response):
        value = value.to_result()
    try:
        data = _encode(value)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:  # UnicodeEncodeError is a ValueError
        raise _ResultFailed(RESULT_INVALID, f"the result is not JSON: {plain_text(str(error), 1000)}") from None
    if len(data) > LARGEST_RESULT:
        raise _ResultFailed(
            RESULT_TOO_LARGE,
            f"the result must have at most {LARGEST_RESULT} bytes of JSON, got {len(data)}; store it elsewhere",
        )
    if b"null" in data and _holds_nonfinite(value):  # msgspec writes NaN and the infinities as null
        raise _ResultFailed(RESULT_INVALID, "the result is not JSON: it holds NaN or an infinity")
    return data


def _holds_nonfinite(value: Any) -> bool:
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, float):
            if not math.isfinite(each):
                return True
        elif isinstance(each, Mapping):
            todo.extend(each.values())
        elif isinstance(each, list | tuple | set | frozenset):
            todo.extend(each)
        else:
            names: Any = getattr(each, "__dataclass_fields__", None) or getattr(each, "__struct_fields__", ())
            todo.extend(getattr(each, name, None) for name in names)
    return False
