"""The life of interpreters in child processes: traces that they leave behind, and their end without their parent."""

from __future__ import annotations

import gc
import os
import select
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

import harn
from harn.errors import CallInterrupted, InterpreterDied, StageFailed
from harn.lifecycle import InterpreterRestarted, Lifecycle
from harn.testing.calls import HANDLERS, make_call, refer
from harn.testing.interpreters import FixedSecrets, InterpreterCase
from harn.vm import childprocess
from harn.vm.calls import run_call
from harn.vm.child.guard import HELD
from harn.vm.handler_output import Printing
from harn.vm.process import ChildInterpreters
from harn.vm.spare import REFILL_DELAY, Spare


def descriptors() -> Any:
    """Count this process's open descriptors."""
    return len(os.listdir("/proc/self/fd"))


def children() -> Any:
    """Return the ids of this process's children, also of dead ones that were not waited for."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


def turn() -> Deferred[None]:
    """Fire in the reactor's next turn: what closes at the end of this one is closed then."""
    turned: Deferred[None] = Deferred()
    reactor.callLater(0, turned.callback, None)
    return turned


LATE = """
def f(event):
    from late import value
    return value
def leave(event):
    import os
    os._exit(1)
"""


class LifeTests(InterpreterCase):
    """Starting and closing."""

    def write(self, text: Any) -> Any:
        """Write a file of its own."""
        path = Path(self.mktemp())
        path.write_text(text)
        return path

    def edit_and_compile(self, path: Any, text: Any) -> None:
        """Change a module on disk, byte code and all."""
        path.write_text(text)
        subprocess.run([sys.executable, "-m", "compileall", "-q", str(path.parent)], check=True)

    timeout = 180
    factory = staticmethod(lambda secrets: ChildInterpreters(reactor, secrets))

    async def test_nothing_is_left_behind(self) -> None:
        """Thirty interpreters leave no descriptor, process, thread or timer."""
        bundle = self.bundle({"handlers.py": HANDLERS}, ["async_one"])
        await (await self.interpreters.create(bundle)).close()
        await self.interpreters.stopService()
        await turn()
        gc.collect()
        before = descriptors(), children(), threading.active_count(), len(reactor.getDelayedCalls())
        self.interpreters.startService()
        for number in range(30):
            interpreter = await self.interpreters.create(bundle)
            if number % 10 == 0:
                self.assertEqual(await interpreter.resolve({refer("async_one")}), [])
                self.assertEqual(await self.result(interpreter, "async_one"), "trigger_evt_1")
            await interpreter.close()
        await self.interpreters.stopService()
        await turn()
        after = descriptors(), children(), threading.active_count(), len(reactor.getDelayedCalls())
        self.assertEqual(after, before)

    async def test_an_interpreter_dies_by_reference_count(self) -> None:
        """A closed interpreter is in no cycle that only a collection could end."""
        interpreter = await self.make()
        await self.result(interpreter, "async_one")
        await self.failure(run_call(interpreter, make_call("sleeps", timeout=0.01)), Exception)
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        await interpreter.close()
        dead = weakref.ref(interpreter), weakref.ref(interpreter._worker)  # type: ignore[attr-defined]
        del interpreter
        await turn()  # so that nothing of the closing is on the stack any more
        self.assertEqual([each() for each in dead], [None, None])

    async def test_stop_closes_everything(self) -> None:
        """Stopping the service ends interpreters that are still open, and interrupts what runs in them."""
        before = children()
        self.interpreters.spare.take().addCallback(lambda process: process.close())
        one, two = await self.make(), await self.make()
        running = [run_call(one, make_call("sleeps")), run_call(two, make_call("sleeps"), alone=True)]
        await self.interpreters.stopService()
        for calling in running:
            self.assertFalse((await self.failure(calling, CallInterrupted)).suspect)
        self.assertLessEqual(children(), before)
        await self.failure(self.interpreters.create(self.bundle({"handlers.py": ""}, ["handlers:f"])), StageFailed)

    async def test_nobody_waits_any_more(self) -> None:
        """A process that is cut off while the spare starts ends it, and is notified of that once."""
        spare = Spare(reactor, Printing(reactor))
        spare.start()
        self.addCleanup(spare.stop)
        pid = spare.pid
        taking = spare.take()
        taking.cancel()
        await self.failure(taking, CancelledError)
        while str(pid) in children():
            await deferLater(reactor, 0.01)
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_signals_to_the_group_while_it_starts(self) -> None:
        """Ctrl-C reaches each process of the terminal's group: one that starts just then gets ready all the same."""
        spare = Spare(reactor, Printing(reactor))
        spare.start()
        self.addCleanup(spare.stop)
        for number in HELD:
            assert spare.pid is not None
            os.kill(spare.pid, number)
        process = await spare.take()
        self.assertIsNotNone(process.pid)
        self.assertFalse(signal.pthread_sigmask(signal.SIG_BLOCK, ()) & HELD, "the server itself still gets signals")
        await process.close()

    async def test_a_process_of_its_own(self) -> None:
        """One that leaves the spare alone starts one process and ends it: before and after, the same run."""
        while self.interpreters.spare.pid is None:
            await deferLater(reactor, 0.01)
        before = self.interpreters.spare.pid, children()
        bundle = self.bundle({"handlers.py": HANDLERS}, ["yes"])
        interpreter = await self.interpreters.create(bundle, spare=False)
        self.assertEqual((self.interpreters.spare.pid, len(children())), (before[0], len(before[1]) + 1))
        self.assertEqual(await interpreter.resolve({refer("yes")}), [])
        self.assertEqual(await self.result(interpreter, None, predicate="yes"), True)
        self.assertEqual(await self.result(interpreter, "async_one"), "trigger_evt_1")
        await interpreter.close()
        self.assertEqual((self.interpreters.spare.pid, children()), before)
        self.assertNotIn("Spare.", str(reactor.getDelayedCalls()))  # nothing that would start another later
        taken = await self.interpreters.spare.take()
        self.assertIn("Spare.", str(reactor.getDelayedCalls()))
        await taken.close()

    async def test_a_process_of_its_own_dies(self) -> None:
        """Its successors leave the spare alone too, lone calls do, and none of its deaths is counted."""
        restarts: list[InterpreterRestarted] = []
        lifecycle = Lifecycle()
        lifecycle.subscribe(InterpreterRestarted, restarts.append)
        interpreters = ChildInterpreters(reactor, FixedSecrets(), lifecycle)
        interpreters.startService()
        self.addCleanup(interpreters.stopService)
        before = interpreters.spare.pid, children()
        bundle = self.bundle({"handlers.py": LATE, "late.py": "value = 1\n"}, ["f", "leave"])
        interpreter = await interpreters.create(bundle, spare=False)
        self.assertEqual(await interpreter.resolve({refer("f"), refer("leave")}), [])
        await self.failure(run_call(interpreter, make_call("leave")), InterpreterDied)
        self.assertEqual(await self.result(interpreter, "f"), 1)
        self.assertEqual((await run_call(interpreter, make_call("f"), alone=True)).result, b"1")
        await interpreter.close()
        self.assertEqual((interpreters.spare.pid, children(), restarts), (*before, []))

    async def test_no_process_of_its_own(self) -> None:
        """Without processes it fails as any other, and the spare's turn comes none the sooner."""
        await self.interpreters.stopService()
        self.patch(childprocess, "PROGRAM", self.write("raise SystemExit('this Python is broken')"))
        bundle = self.bundle({"handlers.py": HANDLERS}, ["async_one"])
        error = await self.failure(self.interpreters.create(bundle, spare=False), StageFailed)
        self.assertRegex(str(error), "the server ends")
        spare = Spare(NoProcesses(), Printing(reactor))
        spare._running = True
        error = await self.failure(spare.beside(), StageFailed)
        self.assertRegex(str(error), "no process can be started: .*unavailable")
        self.interpreters.startService()
        error = await self.failure(self.interpreters.create(bundle, spare=False), StageFailed)
        self.assertRegex(str(error), "status 1 before it was ready: this Python is broken")

    async def test_no_process(self) -> None:
        """Without processes, a reload fails at its stage, with what the program said."""
        await self.interpreters.stopService()
        self.patch(childprocess, "PROGRAM", self.write("raise SystemExit('this Python is broken')"))
        self.interpreters.startService()
        bundle = self.bundle({"handlers.py": HANDLERS}, ["async_one"])
        error = await self.failure(self.interpreters.create(bundle), StageFailed)
        self.assertEqual(error.stage, "resolve")
        self.assertRegex(str(error), "status 1 before it was ready: this Python is broken")

    async def test_the_bundle_is_what_runs(self) -> None:
        """Neither an edit nor byte code on disk changes what an interpreter runs, before or after a restart."""
        bundle = self.bundle({"handlers.py": LATE, "late.py": "value = 1\n"}, ["f"])
        self.edit_and_compile(Path(bundle.modules["late"].path), "value = 2\n")
        interpreter = await self.interpreters.create(bundle)
        self.assertEqual(await interpreter.resolve({refer("f")}), [])
        self.assertEqual(await self.result(interpreter, "f"), 1)
        await self.failure(run_call(interpreter, make_call("leave")), Exception)
        self.assertEqual(await self.result(interpreter, "f"), 1)


PARENT = """
import sys
from twisted.internet import reactor
from harn.testing.calls import make_call, refer
from harn.vm.calls import run_call
from harn.vm.process import ChildInterpreters
from harn.vm.sources import read_bundle

async def main():
    interpreters = ChildInterpreters(reactor, None)
    interpreters.startService()
    bundle, _ = read_bundle(sys.argv[1], {}, {refer("blocks")})
    interpreter = await interpreters.create(bundle)
    await interpreter.resolve({refer("blocks")})
    started = await run_call(interpreter, make_call("starts"))
    for handler in sys.argv[2:]:
        run_call(interpreter, make_call(handler))
    if "holds" not in sys.argv:
        await run_call(interpreter, make_call("fine"))
    print(interpreter.pid, *eval(started.result), flush=True)

from twisted.internet.defer import Deferred
reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()).addErrback(lambda failure: reactor.stop()))
reactor.run()
"""

ORPHANS = """
import asyncio, os, re, subprocess, time
async def starts(event):
    shell = subprocess.Popen(["sh", "-c", "sleep 1000 & exec sleep 1000"])
    command = ["sh", "-c", "sleep 1000 >&- & echo $!"]
    detached = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)
    return [os.getpid(), shell.pid, int(detached.communicate()[0])]
def holds(event): re.match(r"(a+)+$", "a" * 60 + "b")
def fine(event): return 1
async def blocks(event): pass
async def blocks_later(event): asyncio.get_running_loop().call_later(0.3, time.sleep, 1000)
async def waits(event): await asyncio.sleep(1000)
def loops(event):
    while True: pass
"""


class OrphanTests(SynchronousTestCase):
    """A child whose parent was killed: it ends, and so do its guard and every program that it has started."""

    def orphan(self, *handlers: Any) -> Any:
        """Kill a parent whose child runs ``handlers``; return descriptors to wait for all its processes."""
        root = Path(self.mktemp())
        root.mkdir(parents=True)
        (root / "handlers.py").write_text(ORPHANS)
        environment = {**os.environ, "PYTHONPATH": str(Path(harn.__file__).parent.parent)}
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(root), *handlers], stdout=subprocess.PIPE, env=environment
        )
        with parent:
            assert parent.stdout is not None
            waiting = [os.pidfd_open(int(each)) for each in parent.stdout.readline().split()]
            for each in waiting:
                self.addCleanup(os.close, each)
            parent.kill()
        return waiting

    def assert_ends(self, waiting: Any) -> None:
        self.assertEqual(len(waiting), 4)
        for each in waiting:
            poll = select.poll()
            poll.register(each, select.POLLIN)
            self.assertTrue(poll.poll(10_000), "it lives on")

    def test_idle(self) -> None:
        """It ends when it has nothing to do."""
        self.assert_ends(self.orphan())

    def test_busy(self) -> None:
        """It ends under its calls."""
        self.assert_ends(self.orphan("waits", "loops"))

    def test_blocked(self) -> None:
        """It ends although a handler blocks its loop for ever."""
        self.assert_ends(self.orphan("blocks_later"))

    def test_held_by_c_code(self) -> None:
        """It ends although C code lets no thread of it run."""
        self.assert_ends(self.orphan("holds"))


class NoProcesses(Clock):
    """A reactor on which no process starts."""

    def spawnProcess(self, *args: Any, **kwargs: Any) -> None:
        raise OSError(11, "Resource temporarily unavailable")


class SpareTests(SynchronousTestCase):
    """The spare by a clock."""

    def test_backoff(self) -> None:
        """A spare that cannot be started is tried again, ever later; stopping ends that, and nothing leaks."""
        clock = NoProcesses()
        before = descriptors()
        spare = Spare(clock, Printing(clock))
        spare.start()
        self.assertIsInstance(self.failureResultOf(spare.take()).value, StageFailed)
        delays = []
        for _ in range(12):
            (call,) = clock.getDelayedCalls()
            delays.append(call.getTime() - clock.seconds())
            clock.advance(delays[-1])
        self.assertEqual(delays[1], REFILL_DELAY * 4)
        self.assertEqual(delays, sorted(delays))
        self.assertEqual(delays[-1], 30.0)
        self.successResultOf(spare.stop())
        self.assertEqual((clock.getDelayedCalls(), descriptors()), ([], before))
        self.flushLoggedErrors()
