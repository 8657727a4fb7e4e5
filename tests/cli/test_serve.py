"""Running the reactor for a command."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from harn.cli import serve
from harn.cli.serve import print_problems, run_service, run_until
from harn.model.problem import Problem


class StubReactor:
    """
    Runs the calls that were scheduled when it runs, then stops.

    :ivar meanwhile: what happens while it runs.
    """

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.begun: list[Callable[[], None]] = []
        self.ending: list[Callable[[], Any]] = []
        self.last: list[Callable[[], Any]] = []
        self.meanwhile = meanwhile
        self.stops = 0

    def callWhenRunning(self, function: Callable[[], None]) -> None:
        """Keep it until `run`."""
        self.begun.append(function)

    def addSystemEventTrigger(self, phase: str, event: str, function: Callable[[], Any]) -> None:
        """Keep it until the end."""
        assert event == "shutdown"
        if phase == "before":
            self.ending.append(function)
        else:
            assert phase == "during"
            self.last.append(function)

    def run(self) -> None:
        """Begin, wait, end."""
        for function in self.begun:
            function()
        self.meanwhile()
        for function in (*self.ending, *self.last):
            function()

    def stop(self) -> None:
        """Count it."""
        self.stops += 1


class ProblemsTests(SynchronousTestCase):
    """The problems of a start."""

    def test_source(self) -> None:
        """Each is an error with the line that it is about, from manifest or code, once for those alike."""
        manifest, code = Path(self.mktemp()).absolute(), Path(self.mktemp()).absolute()
        manifest.write_text('handlr = "a:b"\nhandlr = "c:d"\n')
        code.write_text("lock.acquire()\n")
        wrong = [
            Problem(file=str(manifest), line=1, where="triggers[0] (gh): handlr", message="unknown key"),
            Problem(file=str(manifest), line=2, where="triggers[1] (gl): handlr", message="unknown key"),
            Problem(file=str(code), line=1, message="module 'a' is still being imported", code=f"{code}:1"),
        ]
        with redirect_stderr(StringIO()) as said:
            print_problems(wrong, str(manifest))
        self.assertEqual(
            said.getvalue().splitlines(),
            [
                f"error: {manifest}:1: triggers[0] (gh): handlr: unknown key",
                '    1 | handlr = "a:b"',
                "      | ^^^^^^",
                f"error: {manifest}:2: triggers[1] (gl): handlr: unknown key",
                f"error: {code}:1: module 'a' is still being imported",
                "    1 | lock.acquire()",
                "      | ^^^^^^^^^^^^^^",
            ],
        )


class StubService:
    """Records its calls."""

    exit_code = 3

    def __init__(self) -> None:
        self.calls: list[str] = []

    def startService(self) -> None:
        """Record the call."""
        self.calls.append("start")

    def stopService(self) -> None:
        """Record the call."""
        self.calls.append("stop")


class RunServiceTests(SynchronousTestCase):
    """A service for as long as the reactor runs."""

    def test_starts_and_stops_with_the_reactor(self) -> None:
        """The service starts when the reactor runs, stops before it ends, and names the exit status."""
        service = StubService()
        reactor = StubReactor(lambda: service.calls.append("running"))
        self.assertEqual(run_service(service, reactor), 3)
        self.assertEqual(service.calls, ["start", "running", "stop"])

    def test_a_thread_that_hangs(self) -> None:
        """What keeps the reactor's threads from ending does not keep the process, once the service has ended."""
        self.patch(serve, "LINGER", 0.01)
        ended = SimpleQueue[int]()
        self.patch(os, "_exit", ended.put)
        reactor = StubReactor(lambda: reactor.last.append(lambda: self.assertEqual(ended.get(timeout=10), 3)))
        self.assertEqual(run_service(StubService(), reactor), 3)

    def test_threads_that_end(self) -> None:
        """Else nothing is cut off, and no timer stays."""
        run_service(StubService(), StubReactor())
        for timer in [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]:
            timer.join(10)
            self.assertFalse(timer.is_alive())


async def awaited(waiting: Deferred[Any]) -> Any:
    """Return the result of a Deferred."""
    return await waiting


class RunUntilTests(SynchronousTestCase):
    """The reactor until some work has ended."""

    def test_result(self) -> None:
        """Its result is returned; the reactor is stopped once."""
        reactor = StubReactor()
        self.assertEqual(run_until(reactor, awaited(succeed(5))), 5)
        self.assertEqual(reactor.stops, 1)

    def test_failure(self) -> None:
        """Its error is raised."""
        self.assertRaises(ValueError, run_until, StubReactor(), awaited(fail(ValueError("no"))))

    def test_interrupted(self) -> None:
        """A reactor that was stopped before is an interrupt."""
        waiting: Deferred[None] = Deferred()
        self.assertRaises(KeyboardInterrupt, run_until, StubReactor(), awaited(waiting))
