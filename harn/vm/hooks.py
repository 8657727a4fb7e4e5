"""
Start and stop hooks of one interpreter, on the server's side: when they run, for how long, and their failures.

They run in an interpreter that serves, after it was adopted and before it ends; calls wait until the start hooks have
ended. A hook that fails is logged and is a warning of the reload; handlers run all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from harn.vm.frames import HookFailure, HooksRan, RunHooks

log = Logger(namespace="harn.vm")

START_LIMIT = 30.0
"""Seconds that all start hooks may take together,"""
STOP_LIMIT = 5.0
"""and all stop hooks."""
MARGIN = 1.0
"""Seconds after a limit until an interpreter that does not answer at all is given up."""


class Neighbour(Protocol):
    """Another interpreter of the server, as far as hooks are concerned."""

    @property
    def is_closing(self) -> bool:
        """Whether it is closing."""

    def close(self) -> Deferred[None]:
        """Close it; each call returns a Deferred that fires when it is gone."""

    def try_hooks_again(self) -> None:
        """Run the start hooks that failed again."""


class OpenInterpreters:
    """The interpreters of one server that are not gone; one that is closing may hold what a start hook needs."""

    def __init__(self) -> None:
        self._open: set[Neighbour] = set()

    def __iter__(self) -> Iterator[Neighbour]:
        return iter(tuple(self._open))

    def add(self, interpreter: Neighbour) -> None:
        """Add an interpreter that is being made."""
        self._open.add(interpreter)

    def discard(self, interpreter: Neighbour) -> None:
        """Remove an interpreter that could not be made."""
        self._open.discard(interpreter)

    def gone(self, interpreter: Neighbour) -> None:
        """Remove an interpreter that is gone; start hooks of the others that failed run again."""
        self._open.discard(interpreter)
        self.try_hooks_again()

    def when_closed(self) -> Deferred[Any]:
        """Return a Deferred that fires when those that are closing now are gone."""
        return gatherResults([each.close() for each in self if each.is_closing])

    def try_hooks_again(self) -> None:
        """Run start hooks that failed again, except in those that are closing."""
        for each in self:
            if not each.is_closing:
                each.try_hooks_again()


class HooksOwner(Protocol):
    """The interpreter of some hooks."""

    def send_hooks(self, frame: RunHooks) -> None:
        """Send a frame to the process or thread, if there is one."""

    def begin_waiting(self) -> None:
        """Called when calls need not wait for the start hooks any more."""


class StartStop:
    """
    The hooks of one interpreter, in each of its processes in turn.

    :ivar wanted: the interpreter serves: its start hooks ran, or will run.
    :ivar failures: descriptions of the start hooks that have not succeeded so far.
    """

    def __init__(self, clock: IReactorTime, owner: HooksOwner) -> None:
        self.failures: tuple[str, ...] = ()
        self._clock = clock
        self._owner: HooksOwner | None = owner
        self._exist = False
        self.wanted = False
        self._up = False
        self._is_asked_again = False
        self._number = 0
        self._timer: Any = None
        self._before: Deferred[Any] | None = None
        self._waiters: list[Deferred[Sequence[str]]] = []
        self._stopped: Deferred[None] | None = None

    @property
    def holds(self) -> bool:
        """Whether calls wait for the start hooks."""
        return self._timer is not None or self._before is not None

    def resolved(self, *, exist: bool) -> None:
        """Record whether there are any hooks; the process can run them now."""
        self._exist = self._exist or exist
        self._up = True

    def begin(self, neighbours: OpenInterpreters | None = None) -> Deferred[Sequence[str]]:
        """
        Run the start hooks, once; fires when they have ended, with descriptions of those that failed.

        :param neighbours: wait first until those of them that are closing are gone.
        """
        was_wanted, self.wanted = self.wanted, True
        if self._exist and self._up and not was_wanted:
            self._before = succeed(None) if neighbours is None else neighbours.when_closed()
            self._before.addBoth(self._go_on)
        if not self.holds:
            return succeed(self.failures)
        waiter: Deferred[Sequence[str]] = Deferred()
        self._waiters.append(waiter)
        return waiter

    def _go_on(self, _: object) -> None:
        self._before = None
        if self._up and self._stopped is None:
            self._run()
        else:
            self._over()

    def restarted(self) -> None:
        """Run them in a process that replaces another, if they ran in that one."""
        if self.wanted and self._exist and self._before is None:
            self._run()

    def again(self) -> None:
        """Run those that failed again, after those that run now: a resource that they need may be free now."""
        if self.holds:
            self._is_asked_again = True
        elif self.failures and self._up and self._stopped is None:
            self._run()

    def stop(self) -> Deferred[None]:
        """Run the stop hooks, if the start hooks ran; fires when they have ended, or their time has run out."""
        self._stop_timer()
        if not (self.wanted and self._exist and self._up) or self._before is not None:
            self._up = False  # start hooks that have not begun will never run
            self._over()
            return succeed(None)
        stopped = self._stopped = Deferred()
        self._answer()
        self._ask("on_stop", STOP_LIMIT)
        return stopped

    def ran(self, frame: HooksRan) -> None:
        """Handle the answer; a late one is ignored."""
        failures = tuple(_in_words(frame.kind, failure) for failure in frame.failures)
        for failure, words in zip(frame.failures, failures, strict=True):
            log.error("{words}\n{user_traceback}", words=words, user_traceback=failure.traceback)
        if frame.number == 0:
            self.failures += failures
        if frame.number != self._number or self._timer is None:
            return
        self._stop_timer()
        if self._stopped is None:
            if self.failures and not failures:
                log.info("the on_start functions that had failed have run now")
            self.failures = failures
            if failures and self._is_asked_again:
                self._run()
                return
        self._over()

    def gone(self) -> None:
        """Called when the process is gone: stop waiting for it."""
        self._up = False
        self._stop_timer()
        if self._stopped is not None:
            self._over()

    def close(self) -> None:
        """Stop calling the owner, and drop the reference to it, which references this object."""
        self._stop_timer()
        self._owner = None

    def _run(self) -> None:
        self._ask("on_start", START_LIMIT)

    def _ask(self, kind: str, limit: float) -> None:
        self._stop_timer()
        self._is_asked_again = False
        self._number += 1
        self._timer = self._clock.callLater(limit + MARGIN, self._too_long, kind, limit)
        if self._owner is not None:
            self._owner.send_hooks(RunHooks(self._number, kind, limit))

    def _too_long(self, kind: str, limit: float) -> None:
        self._timer = None
        words = f"{kind} functions did not end within {limit:g} s, and the interpreter does not answer"
        log.error("{words}", words=words)
        if self._stopped is None:
            self.failures = (words,)
        self._over()

    def _over(self) -> None:
        """Fire the waiters: for the start hooks, or for the stop hooks if these were begun."""
        if self._stopped is None:
            self._answer()
            if self._owner is not None:
                self._owner.begin_waiting()
        elif not self._stopped.called:
            self._stopped.callback(None)

    def _answer(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(self.failures)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


def _in_words(kind: str, failure: HookFailure) -> str:
    after = "handlers run without it" if kind == "on_start" else "its resources are released when the process ends"
    return f"{kind} {failure.hook} failed: {failure.message} ({failure.where}); {after}"
