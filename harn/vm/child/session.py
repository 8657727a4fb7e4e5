"""
The state of an interpreter: its functions, its calls, and their frames to and from the server.

One session serves one bundle, on one asyncio loop. Its owner transports the frames.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop, Task, _get_running_loop
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, Protocol

import msgspec

from harn.handlers import SecretMissing
from harn.vm.child.calls import FirstSteps, RunningCall
from harn.vm.child.forks import is_copy, write_raw
from harn.vm.child.functions import START, Functions, ModuleHooks, Unusable
from harn.vm.child.output import set_level
from harn.vm.child.threads import Threads
from harn.vm.child.tracebacks import plain_text
from harn.vm.frames import (
    RAISED,
    Begin,
    Cancel,
    Done,
    Failed,
    Flaw,
    FromChild,
    HooksRan,
    Importing,
    Load,
    LogLevel,
    Printed,
    Queued,
    Resolve,
    Resolved,
    RunHooks,
    SecretAnswer,
    SecretRequested,
    Started,
    ToChild,
)
from harn.vm.imports import Scope

LOG_LIMIT = 64 * 1024
"""Characters that one call may log."""

LONGEST_RECORD = 8192
LATE = 30.0
"""Seconds that the start hooks of a module have that was first imported for a call."""

_encode_fields = msgspec.json.Encoder(enc_hook=repr).encode


class SessionOwner(Protocol):
    """The transport between one session and the server."""

    def send(self, frame: FromChild) -> None:
        """Send a frame to the server; on the loop's thread."""

    def send_now(self, frame: FromChild) -> None:
        """Send a frame, and return only when it has left this process."""

    def end_programs(self, programs: dict[int, int]) -> None:
        """Kill the programs that a call has started, if they can be told apart; see `RunningCall.programs`."""


class ChildSession:
    """
    The calls of one interpreter. Everything except `ask_secret` and `log` belongs to the loop's thread.

    :ivar threads: threads for plain functions; None: run them on the loop.
    :ivar first_steps: makes tasks for the others.
    :ivar calls: the running calls, by number.
    :ivar paths: files of the bundle.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        owner: SessionOwner,
        *,
        threads: Threads | None,
        prefix: str = "",
    ) -> None:
        """
        Make an empty session.

        :param prefix: the name of a package for the modules; see `harn.vm.imports.Scope`.
        """
        self.loop = loop
        self.threads = threads
        self.first_steps = FirstSteps(loop)
        self.calls: dict[int, RunningCall] = {}
        self.paths: frozenset[str] = frozenset()
        self.scope: Scope | None = None
        self._owner = owner
        self._prefix = prefix
        self._functions: Functions | None = None
        self._hooks: ModuleHooks | None = None
        self._tasks: set[Task[None]] = set()
        self._secrets: dict[int, Future[str]] = {}
        self._asked = 0

    def handle(self, frame: ToChild) -> None:
        """Handle a frame from the server."""
        if type(frame) is Begin:
            self._begin(frame)
        elif type(frame) is Cancel:
            call = self.calls.get(frame.number)
            if call is not None:
                call.cancel()
        elif type(frame) is SecretAnswer:
            self._answer(frame)
        elif type(frame) is Resolve:
            self._resolve(frame)
        elif type(frame) is RunHooks:
            self._spawn(self._run_hooks(frame.number, frame.kind, frame.limit))
        elif type(frame) is Load:
            self._load(frame)
        elif type(frame) is LogLevel:
            set_level(frame.level)

    def _load(self, frame: Load) -> None:
        self.scope = Scope(frame.sources, self._prefix, frame.root)
        self.scope.install()
        self.paths = self.scope.paths
        self._functions = Functions(self.scope, self)
        self._hooks = ModuleHooks(self.loop, self.threads, self.scope)

    def import_begins(self, module: str) -> None:
        """Report that the import of a module begins, immediately: it may end this process."""
        self._owner.send_now(Importing(module))

    def _resolve(self, frame: Resolve) -> None:
        flaws: list[Flaw] = []
        for reference in frame.references:
            try:
                self._loaded().get(reference)
            except Unusable as error:
                flaws.append(error.flaw(reference))
        self._owner.send(Resolved(frame.number, flaws, self._hooks is not None and self._hooks.exist()))

    async def _run_hooks(self, number: int, kind: str, limit: float) -> None:
        failures = [] if self._hooks is None else await self._hooks.run(kind, limit)
        self._owner.send(HooksRan(number, kind, failures))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)  # a loop holds its tasks weakly
        task.add_done_callback(self._tasks.discard)

    def _loaded(self) -> Functions:
        if self._functions is None:
            raise RuntimeError("no bundle was loaded")
        return self._functions

    # Calls

    def _begin(self, begin: Begin) -> None:
        functions = self._loaded()
        before = functions.imports
        try:
            handler = None if begin.handler is None else functions.get(begin.handler)
            predicate = None if begin.predicate is None else functions.get(begin.predicate)
        except Unusable as error:
            self._owner.send(Failed(begin.number, RAISED, plain_text(error.message, 4096)))
            return
        call = self.calls[begin.number] = RunningCall(begin, handler, predicate, self)
        if functions.imports != before and self._hooks is not None and self._hooks.late():
            self._spawn(self._begin_late(call))
        else:
            call.start()

    async def _begin_late(self, call: RunningCall) -> None:
        """Start a call of a module that was imported for it, after the start: its hooks run first."""
        await self._run_hooks(0, START, LATE)
        self.loop.call_soon(self._start_late, call)

    def _start_late(self, call: RunningCall) -> None:
        if call.number in self.calls:
            call.start()

    def finish(self, call: RunningCall, answer: Done | Failed) -> None:
        """Send a call's answer; only the first counts."""
        if self.calls.pop(call.number, None) is None:
            return
        if call.partial:
            for stream, text in call.partial.items():
                if text:
                    self.printed(call, "info" if stream == "stdout" else "warn", stream, text)
            call.partial = {}
        if call.is_cancelled and call.programs:
            self.end_programs(call)
        call.ended()
        self._owner.send(answer)

    def end_programs(self, call: RunningCall) -> None:
        """Kill the programs that a call has started."""
        self._owner.end_programs(call.programs)

    def queued(self, call: RunningCall) -> None:
        """Report that a call waits for a thread."""
        self._owner.send(Queued(call.number))

    def started(self, call: RunningCall) -> None:
        """Report that a waiting call runs now."""
        self._owner.send(Started(call.number))

    # For any thread

    def log(self, call: RunningCall | None, level: str, message: str, fields: Mapping[str, Any]) -> None:
        """Log for a call; fields without a JSON form are shown by their ``repr``."""
        try:
            encoded = _encode_fields(fields) if fields else b""
        except (TypeError, ValueError, RecursionError) as error:
            encoded = _encode_fields({"fields_lost": str(error)})
        if len(encoded) > LONGEST_RECORD:
            encoded = _encode_fields({"fields_lost": f"{len(encoded)} bytes"})
        self.printed(call, level, "log", message, encoded)

    def printed(self, call: RunningCall | None, level: str, stream: str, text: str, fields: bytes = b"") -> None:
        """Send a record, unless its call has exceeded its limit already; report that once."""
        number = 0
        if call is not None:
            number = call.number
            before = call.logged
            call.logged = before + len(text) + len(fields)
            if before > LOG_LIMIT:
                return
            if call.logged > LOG_LIMIT:
                level, stream, fields = "warn", "log", b""
                text = f"output truncated: this call printed or logged more than {LOG_LIMIT} characters"
        if is_copy():
            write_raw(
                2, f"{text}{' ' if fields else ''}{fields.decode('utf-8', 'replace')}\n".encode("utf-8", "replace")
            )
            return
        record = Printed(number, level, stream, plain_text(text, LONGEST_RECORD), fields)
        if _get_running_loop() is self.loop:
            self._owner.send(record)  # immediately, so that it precedes the call's answer
        else:
            self.loop.call_soon_threadsafe(self._owner.send, record)

    def ask_secret(self, call: RunningCall, reference: str) -> Future[str]:
        """Request a secret from the server."""
        answered: Future[str] = Future()
        if is_copy():
            answered.set_exception(SecretMissing("a forked process cannot fetch a secret; fetch it before the fork"))
            return answered
        self.loop.call_soon_threadsafe(self._ask, call, str(reference), answered)
        return answered

    def _ask(self, call: RunningCall, reference: str, answered: Future[str]) -> None:
        self._asked += 1
        self._secrets[self._asked] = answered
        self._owner.send(SecretRequested(self._asked, call.number, plain_text(reference, 1000)))

    def _answer(self, answer: SecretAnswer) -> None:
        asked = self._secrets.pop(answer.number, None)
        if asked is None or not asked.set_running_or_notify_cancel():
            return
        if answer.value is None:
            asked.set_exception(SecretMissing(answer.error))
            return
        try:
            asked.set_result(answer.value.decode("utf-8"))
        except UnicodeDecodeError:
            asked.set_exception(SecretMissing("the secret is not text in UTF-8"))
