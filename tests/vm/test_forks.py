"""Handlers that fork, in real child processes: the copy never touches the interpreter's channel, and it ends."""

import os
import signal

from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from harn.testing.calls import make_call
from harn.testing.interpreters import InterpreterCase
from harn.vm.calls import run_call
from harn.vm.inline import InlineInterpreters
from harn.vm.process import ChildInterpreters

FORKS = """
    import asyncio, atexit, os, signal, sys, threading, time

    async def fine(event):
        await asyncio.sleep(0)
        return os.getpid()
    def plain_fine(event): return os.getpid()

    def outcome(pid):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def returns(event):
        pid = os.fork()
        return outcome(pid) if pid else "the copy's"
    async def async_returns(event):
        pid = os.fork()
        return outcome(pid) if pid else "the copy's"
    async def async_waits(event):
        pid = os.fork()
        if not pid:
            await asyncio.sleep(0)
            os._exit(9)
        return outcome(pid)
    async def in_a_task(event):
        async def inner():
            pid = os.fork()
            return outcome(pid) if pid else "the copy's"
        return await asyncio.create_task(inner())
    async def in_an_executor(event):
        return await asyncio.to_thread(returns, event)
    def in_a_thread(event):
        found = []
        thread = threading.Thread(target=lambda: found.append(returns(event)))
        thread.start()
        thread.join()
        return found
    def raises(event):
        pid = os.fork()
        if not pid: raise ValueError("the copy's")
        return outcome(pid)
    def exits(event):
        pid = os.fork()
        if not pid: sys.exit(7)
        return outcome(pid)
    async def async_exits(event):
        pid = os.fork()
        if not pid: sys.exit(7)
        return outcome(pid)
    def executes(event):
        pid = os.fork()
        if not pid: os.execv("/bin/sh", ["sh", "-c", "exit $(ls -l /proc/self/fd | grep -c -e socket -e event)"])
        return outcome(pid)
    def exit_functions(event):
        reading, writing = os.pipe()
        atexit.register(os.write, writing, b"interpreter's")
        pid = os.fork()
        if not pid:
            atexit.register(os.write, writing, b"own")
            return
        os.close(writing)
        outcome(pid)
        said = os.read(reading, 100).decode()
        atexit.unregister(os.write)
        return said
    def descriptors(event):
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            kinds = [os.readlink(f"/proc/self/fd/{each}").partition(":")[0] for each in os.listdir("/proc/self/fd")
                     if int(each) > 2 and os.path.lexists(f"/proc/self/fd/{each}")]
            os.write(writing, " ".join(kinds).encode())
            return
        outcome(pid)
        return os.read(reading, 1000).decode().split()
    def secret_in_a_copy(event, context):
        pid = os.fork()
        if not pid:
            try: context.secret_sync("github/token")
            except LookupError: os._exit(3)
        return outcome(pid)
    def prints(event, context):
        pid = os.fork()
        if not pid:
            print("printed by the copy")
            context.log.info("logged by the copy", n=1)
            return
        return outcome(pid)
    def signalled(event):
        ended = []
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
            pid = os.fork()
            if not pid:
                time.sleep(60)
            os.kill(pid, number)
            ended.append(outcome(pid))
        return ended
    def leaves_a_copy(event):
        pid = os.fork()
        if not pid:
            time.sleep(60)
        return pid
"""


class ForkTests(InterpreterCase):
    """Forks in a child process."""

    timeout = 180
    factory = staticmethod(lambda secrets: ChildInterpreters(reactor, secrets))

    async def test_the_copy_ends_where_the_handler_is_left(self) -> None:
        """However a copy leaves the handler, it ends as a process does, and the original alone answers."""
        interpreter = await self.make(FORKS, "fine")
        pid = await self.result(interpreter, "fine")
        for handler, expected in (
            ("returns", 0),
            ("async_returns", 0),
            ("async_waits", 0),
            ("in_a_task", 0),
            ("in_an_executor", 0),
            ("in_a_thread", [0]),
            ("raises", 1),
            ("exits", 7),
            ("async_exits", 7),
            ("executes", 0),
            ("secret_in_a_copy", 3),
            ("prints", 0),
        ):
            self.assertEqual((handler, await self.result(interpreter, handler)), (handler, expected))
        self.assertEqual(await self.result(interpreter, "fine"), pid)
        self.assertEqual(await self.result(interpreter, "plain_fine"), pid)

    async def test_others_are_not_disturbed(self) -> None:
        """Deliveries beside a copy that lives on all get the interpreter's own answer."""
        interpreter = await self.make(FORKS, "fine")
        pid = await self.result(interpreter, "fine")
        for _ in range(3):
            await self.result(interpreter, "leaves_a_copy")
        names = ("fine", "plain_fine", "async_waits")
        calls = [run_call(interpreter, make_call(each)) for each in names for _ in range(30)]
        answers = [int(each.result or 0) for each in await gatherResults(calls)]
        self.assertEqual(answers, [pid] * 60 + [0] * 30)

    async def test_exit_functions(self) -> None:
        """A copy runs the exit functions that it registered itself, never the interpreter's."""
        interpreter = await self.make(FORKS, "fine")
        self.assertEqual(await self.result(interpreter, "exit_functions"), "own")

    async def test_descriptors(self) -> None:
        """A copy has no socket and no loop of the interpreter; the handler's own pipe it has."""
        interpreter = await self.make(FORKS, "fine")
        kinds = await self.result(interpreter, "descriptors")
        self.assertEqual(sorted(each for each in kinds if not each.startswith("/proc")), ["pipe", "pipe"])

    async def test_signals(self) -> None:
        """Signals that an interpreter does not react to end a copy."""
        interpreter = await self.make(FORKS, "fine")
        expected = [-signal.SIGTERM, -signal.SIGHUP, -signal.SIGUSR1, -signal.SIGUSR2, -signal.SIGINT]
        self.assertEqual(await self.result(interpreter, "signalled"), expected)

    async def test_import(self) -> None:
        """A module that forks while it is imported is imported once."""
        source = "import os\npid = os.fork()\nif pid: os.waitpid(pid, 0)\ndef f(event): return 1\n"
        interpreter = await self.make(source, "f")
        self.assertEqual(await self.result(interpreter, "f"), 1)


class InlineForkTests(InterpreterCase):
    """Forks in the server's process."""

    timeout = 180
    factory = staticmethod(lambda secrets: InlineInterpreters(reactor, secrets))

    async def test_the_copy_ends(self) -> None:
        """A copy of the server ends where the handler is left; the original answers."""
        interpreter = await self.make(FORKS, "fine")
        for handler, expected in (("returns", 0), ("async_waits", 0), ("exits", 7)):
            self.assertEqual((handler, await self.result(interpreter, handler)), (handler, expected))
        self.assertEqual(await self.result(interpreter, "fine"), os.getpid())

    async def test_after_a_reload(self) -> None:
        """So it does where the thread has the number of an earlier interpreter's, which has ended."""
        old = await self.make(FORKS, "fine")
        await old.close()
        interpreter = await self.make(FORKS, "fine")
        old._thread._ident = interpreter._thread.ident  # type: ignore[attr-defined]
        self.assertEqual(await self.result(interpreter, "async_waits"), 0)
