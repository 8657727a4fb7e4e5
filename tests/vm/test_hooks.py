"""Start and stop hooks: when they run, what a failure costs, and what waits for whom."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import InterpreterDied
from harn.handlers import on_start, on_stop
from harn.testing.calls import HOOKS, make_call, refer
from harn.testing.interpreters import InterpreterCase
from harn.vm.calls import run_call
from harn.vm.frames import HookFailure, HooksRan, RunHooks
from harn.vm.hooks import MARGIN, START_LIMIT, STOP_LIMIT, OpenInterpreters, StartStop
from harn.vm.inline import InlineInterpreters
from harn.vm.process import ChildInterpreters

PORT = """
import asyncio, os, socket
from harn.handlers import on_start, on_stop

taken = []

@on_start
def take():
    listening = socket.socket()
    listening.bind(("127.0.0.1", {port}))
    taken.append(listening)

@on_stop
def give_back():
    taken.pop().close()

async def call(event):
    return len(taken)

async def slow(event):
    await asyncio.sleep(60)

def dies(event):
    os._exit(3)
"""


class DecoratorTests(SynchronousTestCase):
    """`on_start` and `on_stop` themselves."""

    def test_marks(self) -> None:
        """They give the function back as it was; one may be both."""

        def begin(option: Any = 1, *more: Any, **others: Any) -> Any:
            return 7

        self.assertIs(on_stop(on_start(begin)), begin)
        self.assertEqual(begin(), 7)

    def test_wrong(self) -> None:
        """An object that is not a function, or needs arguments, is refused where it is marked."""

        def begin(context: Any) -> None:
            """Do nothing with an argument."""

        self.assertIn(
            "begin() must take no arguments, got 'context'", str(self.assertRaises(TypeError, on_start, begin))
        )
        self.assertRaises(TypeError, on_stop, print)


class Closing:
    """An interpreter that is closing until ``gone`` fires."""

    is_closing = True

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()
        self.asked = 0

    def close(self) -> Deferred[None]:
        self.asked += 1
        return self.gone

    def try_hooks_again(self) -> None:
        raise AssertionError("it is closing")


class StartStopTests(SynchronousTestCase):
    """The server's side, without a process."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sent: list[RunHooks] = []
        self.released = 0
        self.hooks = StartStop(self.clock, self)
        self.hooks.resolved(exist=True)

    def send_hooks(self, frame: RunHooks) -> None:
        self.sent.append(frame)

    def begin_waiting(self) -> None:
        self.released += 1

    def answer(self, *failed: Any, number: Any = None) -> None:
        asked = self.sent[-1]
        failures = [HookFailure(f"handlers:{each}", "OSError: in use", "handlers.py:3", "") for each in failed]
        self.hooks.ran(HooksRan(asked.number if number is None else number, asked.kind, failures))

    def test_none(self) -> None:
        """Where there are no hooks nothing is sent, and nothing is waited for."""
        hooks = StartStop(self.clock, self)
        hooks.resolved(exist=False)
        self.assertEqual(self.successResultOf(hooks.begin()), ())
        self.assertFalse(hooks.holds)
        self.successResultOf(hooks.stop())
        self.assertEqual(self.sent, [])

    def test_once(self) -> None:
        """They run once, however often the interpreter is adopted; calls wait until they have ended."""
        first, second = self.hooks.begin(), self.hooks.begin()
        self.assertTrue(self.hooks.holds)
        self.answer()
        self.assertEqual((self.successResultOf(first), self.successResultOf(second)), ((), ()))
        self.assertEqual((self.hooks.holds, self.released), (False, 1))
        self.successResultOf(self.hooks.begin())
        self.assertEqual([(each.kind, each.limit) for each in self.sent], [("on_start", START_LIMIT)])

    def test_earlier_interpreters_first(self) -> None:
        """They wait for what is about to end, and calls wait with them."""
        neighbours, ending = OpenInterpreters(), Closing()
        neighbours.add(ending)
        begun = self.hooks.begin(neighbours)
        self.assertEqual((self.sent, self.hooks.holds), ([], True))
        ending.gone.callback(None)
        self.answer()
        self.successResultOf(begun)

    def test_failures(self) -> None:
        """A failure is reported, and tried again when there is hope; until then it stands."""
        begun = self.hooks.begin()
        self.answer("take")
        said = "on_start handlers:take failed: OSError: in use (handlers.py:3); handlers run without it"
        self.assertEqual(self.successResultOf(begun), (said,))
        self.hooks.again()
        self.assertTrue(self.hooks.holds)
        self.answer()
        self.assertEqual(self.hooks.failures, ())
        self.hooks.again()
        self.assertEqual(len(self.sent), 2)

    def test_hope_while_they_run(self) -> None:
        """What becomes free while they run is not missed: those that failed run once more, and calls wait for that."""
        begun = self.hooks.begin()
        self.hooks.again()
        self.assertEqual(len(self.sent), 1)
        self.answer("take")
        self.assertNoResult(begun)
        self.assertEqual((len(self.sent), self.released), (2, 0))
        self.answer()
        self.assertEqual((self.successResultOf(begun), self.hooks.failures, self.released), ((), (), 1))

    def test_no_hope_needed(self) -> None:
        """Where none failed they are not run again for that."""
        self.hooks.begin()
        self.hooks.again()
        self.answer()
        self.assertEqual((len(self.sent), self.hooks.holds), (1, False))

    def test_too_long(self) -> None:
        """An interpreter that does not answer holds calls no longer than the hooks may take; its answer is too late."""
        begun = self.hooks.begin()
        self.clock.advance(START_LIMIT + MARGIN)
        self.assertIn("did not end within 30 s", self.successResultOf(begun)[0])
        self.assertFalse(self.hooks.holds)
        self.answer()
        self.assertEqual(len(self.hooks.failures), 1)

    def test_imported_later(self) -> None:
        """The failures of hooks of a module that was imported for a call are reported as well."""
        self.successResultOf_begun()
        self.answer("late", number=0)
        self.assertEqual(len(self.hooks.failures), 1)

    def successResultOf_begun(self) -> Any:
        begun = self.hooks.begin()
        self.answer()
        return self.successResultOf(begun)

    def test_replaced(self) -> None:
        """After a death they run in the process that takes its place, if they ran before."""
        self.hooks.gone()
        self.hooks.resolved(exist=True)
        self.hooks.restarted()
        self.assertEqual(self.sent, [])
        self.successResultOf_begun()
        self.hooks.gone()
        self.hooks.resolved(exist=True)
        self.hooks.restarted()
        self.assertTrue(self.hooks.holds)
        self.answer()
        self.assertEqual([each.kind for each in self.sent], ["on_start"] * 2)

    def test_begun_while_it_is_replaced(self) -> None:
        """An interpreter that is adopted while its process is replaced runs them when that is there."""
        self.hooks.gone()
        self.successResultOf(self.hooks.begin())
        self.hooks.resolved(exist=True)
        self.hooks.restarted()
        self.assertEqual(len(self.sent), 1)
        self.answer()

    def test_stop(self) -> None:
        """Stop hooks run after start hooks alone, and have their time; a process that goes meanwhile ends the wait."""
        self.successResultOf(self.hooks.stop())
        self.assertEqual(self.sent, [])
        for end in (self.answer, lambda: self.hooks.gone(), lambda: self.clock.advance(STOP_LIMIT + MARGIN)):
            self.hooks = StartStop(self.clock, self)
            self.hooks.resolved(exist=True)
            self.successResultOf_begun()
            stopping = self.hooks.stop()
            self.assertNoResult(stopping)
            self.assertEqual((self.sent[-1].kind, self.sent[-1].limit), ("on_stop", STOP_LIMIT))
            end()
            self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_before_they_began(self) -> None:
        """Of an interpreter that ends while its start hooks still wait for an earlier one, no hook runs."""
        neighbours, ending = OpenInterpreters(), Closing()
        neighbours.add(ending)
        begun = self.hooks.begin(neighbours)
        self.successResultOf(self.hooks.stop())
        self.successResultOf(begun)
        ending.gone.callback(None)
        self.assertEqual((self.sent, self.clock.getDelayedCalls()), ([], []))

    def test_stop_before_the_start_ended(self) -> None:
        """Who waits for the start hooks is answered when the interpreter ends."""
        begun = self.hooks.begin(OpenInterpreters())
        stopping = self.hooks.stop()
        self.successResultOf(begun)
        self.answer()
        self.successResultOf(stopping)


class PortCase(InterpreterCase):
    """Interpreters whose modules want a port."""

    def free_port(self) -> Any:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return free.getsockname()[1]

    async def first_call_waits(self) -> None:
        """See that a call which is there before `serve` was called waits for the end of earlier interpreters, too."""
        path, ending = self.path(), Closing()
        self.interpreters.open.add(ending)
        interpreter = await self.make(HOOKS.format(path=path), "call")
        calling = run_call(interpreter, make_call("call"))
        self.assertEqual(ending.asked, 1)
        serving = interpreter.serve()
        self.assertNoResult(serving)
        ending.gone.callback(None)
        await calling
        self.assertEqual((await serving, self.words(path)), ((), ["plain", "async", "call"]))


class InlineHookTests(PortCase):
    """Interpreters in this process."""

    factory = staticmethod(lambda secrets: InlineInterpreters(reactor, secrets))

    async def test_first_call_waits(self) -> None:
        """A call that comes first waits for interpreters that are about to end."""
        await self.first_call_waits()

    async def test_port_over_a_reload(self) -> None:
        """The next interpreter takes a port when the previous one has given it back."""
        source = PORT.format(port=self.free_port())
        old = await self.make(source, "call")
        self.assertEqual(await old.serve(), ())
        new = await self.make(source + "\n", "call")
        self.assertEqual(len(await new.serve()), 1)
        await old.close()
        while new.hook_failures:
            await deferLater(reactor, 0.01)
        newest = await self.make(source + "\n\n", "call")
        new.close()
        self.assertEqual(await newest.serve(), ())


class ChildHookTests(PortCase):
    """Interpreters in processes of their own."""

    factory = staticmethod(lambda secrets: ChildInterpreters(reactor, secrets))

    async def test_first_call_waits(self) -> None:
        """A call that comes first waits for interpreters that are about to end."""
        await self.first_call_waits()

    async def test_port_over_a_reload(self) -> None:
        """The next interpreter takes a port when the previous one has returned it, at once or when that has drained."""
        source = PORT.format(port=self.free_port())
        old = await self.make(source, "call", "slow")
        self.assertEqual(await old.serve(), ())
        new = await self.make(source + "\n", "call", "slow")
        closing, serving = old.close(), new.serve()
        self.assertEqual(await serving, ())
        await closing
        self.assertEqual(await self.result(new, "call"), 1)

        newest = await self.make(source + "\n\n", "call")
        failures = await newest.serve()
        self.assertRegex(failures[0], "on_start handlers:take failed: OSError.*handlers.py:10")
        self.assertEqual(await self.result(newest, "call"), 0)
        await new.close()
        while newest.hook_failures:
            await deferLater(reactor, 0.01)
        self.assertEqual(await self.result(newest, "call"), 1)

    async def test_death(self) -> None:
        """In the process that replaces one that died they run again, before its first call."""
        interpreter = await self.make(PORT.format(port=self.free_port()), "call", "dies")
        await interpreter.serve()
        await self.failure(run_call(interpreter, make_call("dies")), InterpreterDied)
        self.assertEqual(await self.result(interpreter, "call"), 1)

    async def test_imported_for_a_call(self) -> None:
        """The hooks of a module that no earlier call needed run before the call that needs it."""
        path = self.path()
        bundle = self.bundle(
            {"handlers.py": HOOKS.format(path=path), "more.py": HOOKS.format(path=path + "-2")}, ("call",), ("more.py",)
        )
        interpreter = await self.interpreters.create(bundle)
        await interpreter.resolve({refer("call")})
        await interpreter.serve()
        await run_call(interpreter, make_call("more:call"))
        self.assertEqual(self.words(path + "-2"), ["plain", "async", "call"])

    async def test_taken_at_import(self) -> None:
        """A port that a module takes at import keeps the next one from being imported: that is said, with the line."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            where = ("127.0.0.1", taken.getsockname()[1])
            source = f"import socket\ns = socket.socket()\ns.bind({where})\ndef f(event): pass\n"
            interpreter = await self.interpreters.create(self.bundle({"handlers.py": source}, ("f",)))
            (problem,) = await interpreter.resolve({refer("f")})
        self.assertEqual((os.path.basename(problem.file), problem.line), ("handlers.py", 3))
        self.assertRegex(problem.message, r"OSError: .*in use, in: s\.bind\(")
        self.assertIn("@harn.handlers.on_start", problem.hint)

    async def test_waits_at_import(self) -> None:
        """A module that waits at import is named with the line, while it does."""
        source = "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()\ndef f(event): pass\n"
        interpreter = await self.interpreters.create(self.bundle({"handlers.py": source}, ("f",)))
        resolving = interpreter.resolve({refer("f")})
        while "handlers.py" not in str(interpreter.importing()):
            await deferLater(reactor, 0.05)
        self.assertRegex(
            str(interpreter.importing()), r"^module 'handlers' is still being imported, at .*handlers.py:4$"
        )
        resolving.cancel()
        await resolving.addErrback(lambda _: None)
