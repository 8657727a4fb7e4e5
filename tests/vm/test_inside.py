"""The parts of an interpreter's inside that need no process to be seen at work."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar, copy_context
from email.utils import formatdate
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from harn.handlers import LONGEST_WAIT, Context, Log, RetryAfter
from harn.testing.calls import make_call
from harn.vm.calls import begin_frame
from harn.vm.child.calls import CURRENT, FirstSteps, RunningCall
from harn.vm.child.functions import UserFunction
from harn.vm.child.output import BURST, RATE, OutputAllowance
from harn.vm.child.threads import Threads
from harn.vm.child.tracebacks import LONGEST_LINE, LONGEST_TRACEBACK, one_line, user_traceback
from harn.vm.frames import BLOCKED_BY_NO_CALL, Printed, Source
from harn.vm.handler_output import Printing
from harn.vm.imports import Scope
from harn.vm.program import find_culprit


class KeptRecords:
    """Keeps what an attempt logs."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, Mapping[str, Any]]] = []

    def log_record(self, level: str, message: str, fields: Mapping[str, Any]) -> None:
        self.records.append((level, message, fields))


class HandlersTests(SynchronousTestCase):
    """`harn.handlers`."""

    def test_retry_after(self) -> None:
        """The wait is checked where the handler can see it, and bounded."""
        self.assertEqual(RetryAfter(1.5).seconds, 1.5)
        self.assertEqual(RetryAfter(1e12).seconds, LONGEST_WAIT)
        for wrong in (-1, float("nan"), float("inf")):
            self.assertRaises(ValueError, RetryAfter, wrong)

    def test_retry_after_of_a_header(self) -> None:
        """The text of a header is seconds or a date (RFC 9110, 10.2.3), of which one that has passed means now."""
        for text, seconds in (("120", 120.0), (" 0 ", 0.0), ("1.5", 1.5), ("9" * 500, LONGEST_WAIT)):
            self.assertEqual(RetryAfter(text).seconds, seconds, text)
        for date in ("Wed, 21 Oct 2015 07:28:00 GMT", "Wednesday, 21-Oct-15 07:28:00 GMT", "Wed Oct 21 07:28:00 2015"):
            self.assertEqual(RetryAfter(date).seconds, 0.0, date)
        wait = RetryAfter(formatdate(time.time() + 600, usegmt=True)).seconds
        assert wait is not None
        self.assertTrue(595 < wait <= 600, wait)
        self.assertEqual(RetryAfter("Fri, 21 Oct 2101 07:28:00 GMT").seconds, LONGEST_WAIT)

    def test_retry_after_without_a_time(self) -> None:
        """Without a header, or with one that says nothing, the trigger's own schedule holds; the text says so."""
        self.assertEqual((RetryAfter(None).seconds, str(RetryAfter(None))), (None, "asked to be retried"))
        for text in ("", "soon", "5m", "-1", "12:00", "Wed, 99 Oct 2015 07:28:00 GMT", "\u0661", "1e3"):
            asked = RetryAfter(text, "busy")
            self.assertIsNone(asked.seconds, text)
            self.assertEqual(str(asked), f"busy; Retry-After must be seconds or a date, got {text!r}")

    def test_blocking_for_a_secret(self) -> None:
        """``secret_sync`` refuses to block a loop."""
        context = Context(
            binding="gh@v1",
            trigger_id="gh",
            attempt=1,
            deadline=0.0,
            replay_of=None,
            services=cast("Any", None),
        )

        async def wrong() -> None:
            context.secret_sync("github/token")

        self.assertRaisesRegex(RuntimeError, "await context.secret", asyncio.run, wrong())

    def test_log(self) -> None:
        """Each method logs at its level, with its fields."""
        kept = KeptRecords()
        log = Log(cast("Any", kept))
        log.debug("a")
        log.info(1)
        log.warning("c", number=2)
        log.error("d")
        self.assertEqual(
            kept.records, [("debug", "a", {}), ("info", "1", {}), ("warn", "c", {"number": 2}), ("error", "d", {})]
        )


class AllowanceTests(SynchronousTestCase):
    """How much may be printed."""

    def test_burst_and_refill(self) -> None:
        """A burst passes, the rest is counted, and time brings more."""
        allowance = OutputAllowance(0.0)
        self.assertEqual(allowance.take(BURST, 0.0), 0)
        self.assertEqual([allowance.take(10, 0.0), allowance.take(5, 0.0)], [-1, -1])
        self.assertEqual(allowance.take(10, 10 / RATE), 15)
        self.assertEqual(allowance.take(1, 10 / RATE), -1)


class PrintingTests(SynchronousTestCase):
    """Records of the server's log."""

    def setUp(self) -> None:
        self.events = self.enterContext(capturedLogs())
        self.clock = Clock()
        self.printing = Printing(self.clock)

    def test_ids_and_fields(self) -> None:
        """A record has its call's ids; one outside a call has none; braces are not formats."""
        self.printing.printed(Printed(1, "error", "log", "a {b}", b'{"n":1}'), make_call("f"))
        self.printing.printed(Printed(0, "nonsense", "stdout", "c"), None)
        first, second = self.events
        self.assertEqual((first["text"], first["fields"], first["log_level"].name), ("a {b}", {"n": 1}, "error"))
        self.assertEqual((first["binding"], first["event_id"]), ("gh@v2", "trigger_evt_1"))
        self.assertEqual(second["log_level"].name, "info")
        self.assertNotIn("binding", second)

    def test_bounded(self) -> None:
        """A flood is cut off; when it has ended, the log says how much is missing."""
        for _ in range(100):
            self.printing.raw(b"x" * 100_000)
        self.assertLess(len(self.events), 15)
        self.clock.advance(60)
        before = len(self.events)
        self.printing.raw(b"again\n")
        self.assertRegex(self.events[before]["log_format"], "dropped")
        self.assertEqual(self.events[before + 1]["text"], "again")


class TracebackTests(SynchronousTestCase):
    """What is shown of exceptions."""

    def test_bounded(self) -> None:
        """Messages and tracebacks are cut, and always text that can be encoded."""
        try:
            exec(compile("def f(n):\n    raise ValueError('\\ud800' * n)\nf(10**6)", "user.py", "exec"))
        except ValueError as error:
            self.assertLess(len(one_line(error)), 7 * LONGEST_LINE)
            one_line(error).encode("utf-8")
            text = user_traceback(error, {"user.py"})
            self.assertLess(len(text), 7 * LONGEST_TRACEBACK)
            text.encode("utf-8")


class CulpritTests(SynchronousTestCase):
    """Who blocks a loop."""

    def test_by_the_handle_that_runs(self) -> None:
        """The call is found by the context of the handle; without one, none is found."""

        class Call:
            number = 7

        found: list[Any] = []

        async def look() -> None:
            CURRENT.set(cast("Any", Call()))
            asyncio.get_running_loop().call_soon(lambda: found.append(find_culprit(sys._getframe(), {__file__})))
            found.append(find_culprit(sys._getframe(), ()))
            await asyncio.sleep(0)

        copy_context().run(asyncio.run, look())
        self.assertEqual([culprit for culprit, _ in found], [7, 7])
        self.assertRegex(found[1][1], r"test_inside\.py:\d+$")
        self.assertEqual(find_culprit(sys._getframe(), ())[0], BLOCKED_BY_NO_CALL)
        self.assertEqual(find_culprit(None, ()), (BLOCKED_BY_NO_CALL, ""))

    def test_by_the_call_that_starts(self) -> None:
        """In the first step of a call no handle is its own: it is found by its start."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        found: list[Any] = []

        async def on_event(event: object) -> None:
            found.append(find_culprit(sys._getframe(), {__file__}))

        session: Any = SimpleNamespace(
            loop=loop, threads=Threads(1), first_steps=FirstSteps(loop), calls={}, paths=(), finish=lambda *_: None
        )
        function = UserFunction(on_event, wants_context=False, is_async=True)
        begin = begin_frame(7, make_call("on_event"))
        loop.call_soon(RunningCall(begin, function, None, session).start)
        loop.call_soon(loop.stop)
        loop.run_forever()
        self.assertEqual([culprit for culprit, _ in found], [7])
        self.assertRegex(found[0][1], r"test_inside\.py:\d+$")


class FirstStepTests(SynchronousTestCase):
    """`FirstSteps`."""

    def setUp(self) -> None:
        """Make a loop."""
        self.loop = asyncio.new_event_loop()
        self.addCleanup(self.loop.close)
        self.steps = FirstSteps(self.loop)
        self.seen: list[Any] = []

    def run_all(self, *works: Any) -> None:
        """Begin each of these coroutines in one turn of the loop, and run it until none is left."""

        def begin() -> None:
            for work in works:
                self.seen.append(self.steps.run(work))

        self.loop.call_soon(begin)

        async def ended() -> None:
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0)

        self.loop.run_until_complete(ended())

    def test_it_runs_at_once(self) -> None:
        """What needs no waiting has ended when its task is returned, each within a task of its own."""
        tasks: list[Any] = []

        async def work(number: int) -> None:
            tasks.append(asyncio.current_task())
            self.seen.append(number)

        self.run_all(work(1), work(2))
        self.assertEqual(self.seen, [1, tasks[0], 2, tasks[1]])
        self.assertTrue(all(task.done() for task in tasks))

    def test_it_waits_as_any_task(self) -> None:
        """What waits continues in the same task, with its own context, its time-outs and its cancellation."""
        number: ContextVar[int] = ContextVar("number")
        tasks: list[Any] = []

        async def work(each: int) -> None:
            number.set(each)
            tasks.append(asyncio.current_task())
            async with asyncio.timeout(60.0 if each == 1 else 0.0):
                await asyncio.sleep(0.001)
            self.seen.append((number.get(), asyncio.current_task() is tasks[each - 1]))

        self.run_all(work(1), work(2))
        self.assertEqual(self.seen, [*tasks, (1, True)])
        self.assertIsInstance(tasks[1].exception(), TimeoutError)

    def test_other_calls(self) -> None:
        """A call of a finalizer that runs while a task is made is the loop's, and a task factory has its way."""

        async def work() -> None:
            self.seen.append("ran")

        taken = partial(self.steps.take_step, [])
        self.loop.call_soon(lambda: taken(self.seen.append, "late"))
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        self.loop.call_soon(self.loop.stop)
        self.loop.run_forever()
        self.assertEqual(self.seen, ["late"])
        self.loop.set_task_factory(lambda loop, work, **more: asyncio.Task(work, loop=loop, **more))
        self.run_all(work())
        self.assertEqual((self.seen[0], self.seen[2]), ("late", "ran"))

    def test_a_call_soon_of_the_users_code(self) -> None:
        """It stays, and gets the first steps of tasks like any other call."""
        before: Any = self.loop.call_soon
        counted: list[Any] = []

        def counting(*arguments: Any, **more: Any) -> Any:
            counted.append(arguments)
            return before(*arguments, **more)

        async def work() -> None:
            self.seen.append("ran")

        self.loop.call_soon = cast("Any", counting)
        self.run_all(work())
        self.assertIs(self.loop.call_soon, counting)
        self.assertEqual(self.seen[1:], ["ran"])
        self.assertGreaterEqual(len(counted), 2)


class ScopeTests(SynchronousTestCase):
    """The finder, under the modules' own names."""

    def install(self, *sources: Any) -> Any:
        scope = Scope([Source(name, path, text.encode(), package) for name, path, text, package in sources])
        scope.install()
        self.addCleanup(self.forget, {source[0].partition(".")[0] for source in sources})
        self.addCleanup(scope.remove)
        return scope

    def forget(self, tops: Any) -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
            del sys.modules[name]

    def test_module(self) -> None:
        """A module has its file, its source, and tracebacks that show what really ran."""
        scope = self.install(("scoped_one", "/nowhere/scoped_one.py", "def f():\n    raise ValueError\n", False))
        module = scope.import_module("scoped_one")
        self.assertEqual(module.__file__, "/nowhere/scoped_one.py")
        self.assertIn("raise ValueError", module.__loader__.get_source("scoped_one"))
        try:
            module.f()
        except ValueError as error:
            self.assertIn("    raise ValueError", user_traceback(error, scope.paths))

    def test_packages_hold_what_was_read_and_no_more(self) -> None:
        """A module that a local package does not hold is not looked for on disk; the message says what to do."""
        scope = self.install(
            ("scoped_pack", "/nowhere/scoped_pack/__init__.py", "", True),
            ("scoped_space.deep.mod", "/nowhere/scoped_space/deep/mod.py", "x = 1\n", False),
        )
        self.assertEqual(scope.import_module("scoped_space.deep.mod").x, 1)
        self.assertEqual(list(scope.import_module("scoped_pack").__path__), ["/nowhere/scoped_pack"])
        self.assertRaisesRegex(ModuleNotFoundError, r"\[orchestrator.vm\]", scope.import_module, "scoped_pack.absent")
        self.assertRaises(ModuleNotFoundError, scope.import_module, "scoped_space.absent")

    def test_directories(self) -> None:
        """Where the modules would be found on disk is known, to be kept off the path."""
        scope = Scope(
            [
                Source("a.b", "/r/a/b.py", b"", False),
                Source("p", "/s/p/__init__.py", b"", True),
                Source("h", "/r/src/h.py", b"", False),
            ]
        )
        self.assertEqual(scope.directories(), {"/r", "/s", "/r/src"})
