"""Handlers that do their worst, in real child processes, each beside others that must not pay for it."""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs

from harn.errors import CallInterrupted, HandlerRaised, HandlerTimedOut, InterpreterDied, ResultTooLarge
from harn.lifecycle import InterpreterRestarted, Lifecycle
from harn.testing.calls import make_call, refer
from harn.testing.interpreters import FixedSecrets, InterpreterCase
from harn.vm.calls import run_call
from harn.vm.childprocess import child_environment
from harn.vm.process import ChildInterpreters

HOSTILE = """
    import asyncio, ctypes, os, re, subprocess, sys, threading, time, signal

    async def fine(event): return "fine"
    def plain_fine(event): return "fine"
    async def waits(event):
        await asyncio.sleep(60)
    async def waits_a_little(event):
        await asyncio.sleep(0.8)
        return "waited"
    async def pid(event): return os.getpid()

    async def leaves(event): os._exit(3)
    def plain_leaves(event): os._exit(3)
    def segfault(event): ctypes.string_at(0)
    def aborts(event): os.abort()
    async def async_loops(event):
        while True: pass
    def loops(event):
        while True: pass
    async def blocks(event): time.sleep(60)
    async def blocks_a_little(event):
        time.sleep(0.8)
        return "blocked"
    def plain_sleeps(event): time.sleep(60)
    def swallows(event):
        while True:
            try:
                while True: time.sleep(0.01)
            except BaseException: pass
    async def async_swallows(event):
        while True:
            try: await asyncio.sleep(60)
            except asyncio.CancelledError: pass
    async def blocks_in_task(event):
        async def inner(): time.sleep(60)
        await asyncio.gather(inner())
    async def blocks_in_callback(event):
        asyncio.get_running_loop().call_soon(time.sleep, 60)
        await asyncio.sleep(60)
    async def leaves_blocker(event):
        asyncio.get_running_loop().call_later(0.01, time.sleep, 60)
    def holds_everything(event):
        return re.match(r"(a+)+$", "a" * 60 + "b") is None

    async def huge(event): return "x" * (50 << 20)
    def prints(event):
        line = "y" * 79
        for _ in range(50_000): print(line)
        return "printed"
    def prints_raw(event):
        for _ in range(100): os.write(1, b"z" * 65536 + b"\\n")
        return "printed"
    def prints_text(event):
        print("ünï", "cödé", end="")
        sys.stderr.write("half")
        sys.stdout.buffer.write(b"\\xff bytes\\n")
        return sys.stdout.fileno()
    def stops_loop(event): return "x"
    async def stops(event):
        asyncio.get_running_loop().stop()
        return "stopped"
    def closes(event):
        os.close(3)
    def writes_rubbish(event):
        os.write(3, b"\\xff" * 100)
        time.sleep(60)
    def starts_sleeper(event):
        return subprocess.Popen(["sleep", "1000"]).pid
    def starts_programs(event):
        plain = subprocess.Popen(["sleep", "1000"])
        command = "sleep 1000 >&- & echo $!"
        detached = subprocess.Popen(command, shell=True, start_new_session=True, stdout=subprocess.PIPE)
        return [os.getppid(), plain.pid, int(detached.communicate()[0])]
    started = []
    async def waits_for_program(event):
        program = await asyncio.create_subprocess_shell("sleep 1000 | sleep 1000")
        started.append(program.pid)
        await program.wait()
    def waits_for_plain_program(event):
        program = subprocess.Popen("sleep 1000; true", shell=True)
        started.append(program.pid)
        program.wait()
    def waits_for_detached(event):
        program = subprocess.Popen("sleep 1000 | sleep 1000", shell=True, start_new_session=True)
        started.append(program.pid)
        while True: time.sleep(0.01)
    def waits_for_fork(event):
        pid = os.fork()
        if pid: started.append(pid)
        time.sleep(1000 if not pid else 0)
        while True: time.sleep(0.01)
    async def has_started(event):
        def is_ours(pid):
            try: state, parent = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[:2]
            except OSError: return False
            return state != "Z" and int(pid) != os.getpid() and int(parent) in (os.getpid(), os.getppid())
        return len(started), sum(is_ours(each) for each in os.listdir("/proc") if each.isdigit())
    def terminates_child(event):
        child = subprocess.Popen(["sleep", "1000"])
        child.terminate()
        return child.wait()
    def environment(event):
        return sorted(name for name in os.environ if name.startswith("HARN_"))
    async def signals_itself(event):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2): os.kill(os.getpid(), number)
        return "alive"
    def leaks_thread(event):
        threading.Thread(target=time.sleep, args=(1000,)).start()
        return "ok"
    async def modules(event):
        return [name for name in sys.modules if name.partition(".")[0] in ("twisted", "attr", "zope", "sqlite3")]
    def path(event): return sys.path
"""


class HostileCase(InterpreterCase):
    """A service whose restarts are counted."""

    timeout = 180

    def setUp(self) -> None:
        self.restarts = 0

        def restarted(event: InterpreterRestarted) -> None:
            self.restarts += 1

        lifecycle = Lifecycle()
        lifecycle.subscribe(InterpreterRestarted, restarted)
        self.factory = lambda secrets: ChildInterpreters(reactor, secrets, lifecycle)
        super().setUp()

    async def make_hostile(self) -> Any:
        return await self.make(HOSTILE, "fine")

    async def assert_fine(self, interpreter: Any) -> None:
        """Assert that the interpreter works (again)."""
        self.assertEqual(await self.result(interpreter, "fine"), "fine")
        self.assertEqual(await self.result(interpreter, "plain_fine"), "fine")
        self.assertTrue(interpreter.is_up())

    def record_log(self) -> Any:
        """Return the list that log events are added to."""
        return self.enterContext(capturedLogs())


class DeathTests(HostileCase):
    """The process ends under its calls."""

    async def test_alone_it_is_its_own_fault(self) -> None:
        """A handler that ends the process while nothing else runs has died, however it does it."""
        interpreter = await self.make_hostile()
        for handler, why in (("leaves", "status 3"), ("segfault", "SIGSEGV"), ("aborts", "SIGABRT")):
            error = await self.failure(run_call(interpreter, make_call(handler)), InterpreterDied)
            self.assertIn(why, str(error))
            await self.assert_fine(interpreter)
        self.assertEqual(self.restarts, 3)

    async def test_bystanders_are_suspects(self) -> None:
        """When several ran, none used up an attempt, and all are suspects."""
        interpreter = await self.make_hostile()
        bystanders = [run_call(interpreter, make_call("waits")) for _ in range(3)]
        guilty = run_call(interpreter, make_call("leaves"))
        for calling in [*bystanders, guilty]:
            self.assertTrue((await self.failure(calling, CallInterrupted)).suspect)
        await self.assert_fine(interpreter)

    async def test_quarantine(self) -> None:
        """A call that must run alone does so in a process of its own, and dies there for itself."""
        interpreter = await self.make_hostile()
        beside = run_call(interpreter, make_call("waits_a_little"))
        one = run_call(interpreter, make_call("leaves"), alone=True)
        two = run_call(interpreter, make_call("pid"), alone=True)
        self.assertEqual(interpreter.running, 3)
        await self.failure(one, InterpreterDied)
        shared = (await run_call(interpreter, make_call("pid"))).result
        self.assertNotEqual((await two).result, shared)
        self.assertEqual((await beside).result, b'"waited"')
        self.assertNotEqual((await run_call(interpreter, make_call("pid"), alone=True)).result, shared)

    async def test_slow_innocent_keeps_nobody_waiting(self) -> None:
        """Lone calls have a process each, up to four; the fifth waits for the one that has the least to do."""
        interpreter = await self.make_hostile()
        slow = run_call(interpreter, make_call("waits_a_little"), alone=True)
        quick = [run_call(interpreter, make_call("pid"), alone=True) for _ in range(4)]
        self.assertEqual(interpreter.running, 5)
        pids = [(await calling).result for calling in quick]
        self.assertEqual(len(set(pids[:3])), 3)
        self.assertEqual((await slow).result, b'"waited"')

    async def test_calls_wait_for_the_replacement(self) -> None:
        """A call made while the process is replaced runs in the new one; meanwhile it is not up."""
        interpreter = await self.make_hostile()
        dying = run_call(interpreter, make_call("leaves"))
        waiting: Deferred[Any] = Deferred()

        def died(failure: Any) -> None:
            self.assertFalse(interpreter.is_up())
            run_call(interpreter, make_call("fine")).chainDeferred(waiting)

        dying.addErrback(died)
        self.assertEqual((await waiting).result, b'"fine"')

    async def test_spare_dies(self) -> None:
        """A spare that dies is replaced, and no caller waits for it longer than for a start."""
        interpreter = await self.make_hostile()
        while self.interpreters.spare.pid is None:
            await self.turn()
        os.kill(self.interpreters.spare.pid, signal.SIGKILL)
        await self.failure(run_call(interpreter, make_call("leaves")), InterpreterDied)
        await self.assert_fine(interpreter)

    def turn(self) -> Any:
        """Wait for one turn of the reactor."""
        turned: Deferred[None] = Deferred()
        reactor.callLater(0, turned.callback, None)
        return turned

    async def test_broken_channel(self) -> None:
        """A handler that closes or misuses our descriptors costs the process, and no more."""
        interpreter = await self.make_hostile()
        error = await self.failure(run_call(interpreter, make_call("writes_rubbish")), InterpreterDied)
        self.assertIn("protocol", str(error))
        await self.assert_fine(interpreter)
        error = await self.failure(run_call(interpreter, make_call("closes")), InterpreterDied)
        await self.assert_fine(interpreter)

    async def test_death_while_resolving(self) -> None:
        """A module that ends the process while it is imported is the problem, by name."""
        files = {"bad.py": "import os\nos._exit(7)\n", "good.py": "def f(event): pass\n"}
        interpreter = await self.interpreters.create(self.bundle(files, ["bad:f", "good:f"]))
        (problem,) = await interpreter.resolve({refer("bad:f"), refer("good:f")})
        self.assertEqual(problem.where, "bad:f")
        self.assertIn("status 7", problem.message)
        self.assertFalse(interpreter.is_up())
        await interpreter.close()

    async def test_hanging_import_is_cancelled(self) -> None:
        """Cancelling a resolve ends the process that hangs in it."""
        bundle = self.bundle({"hangs.py": "while True: pass\n"}, ["hangs:f"])
        interpreter = await self.interpreters.create(bundle)
        resolving = interpreter.resolve({refer("hangs:f")})
        reactor.callLater(0, resolving.cancel)
        await self.failure(resolving, CancelledError)
        await interpreter.close()

    async def test_grandchildren_go_too(self) -> None:
        """What a handler has started ends with its interpreter."""
        interpreter = await self.make_hostile()
        started = await self.result(interpreter, "starts_sleeper")
        os.kill(started, 0)
        await interpreter.close()
        while self.lives(started):
            await self.turn()

    async def test_programs_of_a_killed_interpreter(self) -> None:
        """When the guard is asked, or itself killed, nothing that handlers have started lives on."""
        interpreter = await self.make_hostile()
        for number in (0, signal.SIGKILL):
            guard, *programs = await self.result(interpreter, "starts_programs")
            calling = run_call(interpreter, make_call("holds_everything", timeout=0.1 if not number else 60))
            if number:
                os.kill(guard, number)
            await self.failure(calling, HandlerTimedOut, InterpreterDied)
            for each in programs[: 1 if number else 2]:
                while self.lives(each):
                    await self.turn()
            await self.assert_fine(interpreter)
            if number:
                os.kill(programs[1], signal.SIGKILL)  # detached: its rest is the system's

    def lives(self, pid: Any) -> Any:
        """Return whether a process runs; one that has ended and was not waited for does not."""
        try:
            with open(f"/proc/{pid}/stat") as file:
                return file.read().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    async def test_leaked_thread(self) -> None:
        """A thread that a handler left running does not keep the process from ending."""
        interpreter = await self.make_hostile()
        await self.result(interpreter, "leaks_thread")
        await interpreter.close()


class TimeTests(HostileCase):
    """Handlers that do not end."""

    async def assert_timed_out(self, handler: Any, *, bystander: Any = CallInterrupted, restarts: Any = 1) -> None:
        interpreter = await self.make_hostile()
        beside = run_call(interpreter, make_call("waits_a_little", timeout=20))
        calling = run_call(interpreter, make_call(handler, timeout=0.2))
        error = await self.failure(calling, HandlerTimedOut)
        self.assertEqual(str(error), "ran longer than 0.2 s")
        if bystander is None:
            self.assertEqual((await beside).result, b'"waited"')
        else:
            self.assertFalse((await self.failure(beside, bystander)).suspect)
        await self.assert_fine(interpreter)
        self.assertEqual(self.restarts, restarts)

    async def test_cancelled(self) -> None:
        """What Python can end is ended without a kill: a coroutine that waits, a thread that loops."""
        await self.assert_timed_out("waits", bystander=None, restarts=0)
        await self.assert_timed_out("loops", bystander=None, restarts=0)

    async def test_async_endless_loop(self) -> None:
        """A coroutine that loops for ever is killed; the one beside it does not become a suspect."""
        await self.assert_timed_out("async_loops")

    async def test_blocking_call(self) -> None:
        """A coroutine that blocks its loop is killed."""
        await self.assert_timed_out("blocks")

    async def test_blocking_task(self) -> None:
        """A task that a handler started is the handler's doing."""
        await self.assert_timed_out("blocks_in_task")

    async def test_blocking_callback(self) -> None:
        """A callback that a handler scheduled is the handler's doing."""
        await self.assert_timed_out("blocks_in_callback")

    async def test_sleeping_thread(self) -> None:
        """A thread in a system call cannot be interrupted: the process is killed, for its sake alone."""
        interpreter = await self.make_hostile()
        beside = run_call(interpreter, make_call("waits", timeout=20))
        await self.failure(run_call(interpreter, make_call("plain_sleeps", timeout=0.2)), HandlerTimedOut)
        self.assertFalse((await self.failure(beside, CallInterrupted)).suspect)

    async def test_programs_of_a_call(self) -> None:
        """What a call has started ends with it when its time is up, and the interpreter lives on."""
        interpreter = await self.make_hostile()
        for count, handler in enumerate(
            ("waits_for_program", "waits_for_plain_program", "waits_for_detached", "waits_for_fork"), start=1
        ):
            await self.failure(run_call(interpreter, make_call(handler, timeout=0.3)), HandlerTimedOut)
            while (found := await self.result(interpreter, "has_started"))[1]:
                pass
            self.assertEqual(found, [count, 0])
        self.assertEqual(self.restarts, 0)

    async def test_swallowed_cancellation(self) -> None:
        """A handler that continues after it was cancelled is killed."""
        interpreter = await self.make_hostile()
        for handler in ("swallows", "async_swallows"):
            await self.failure(run_call(interpreter, make_call(handler, timeout=0.1)), HandlerTimedOut)
        await self.assert_fine(interpreter)
        self.assertEqual(self.restarts, 2)

    async def test_what_was_left_behind(self) -> None:
        """A task that a finished handler left on the loop may block it for ever: no present call fails for it."""
        interpreter = await self.make_hostile()
        await self.result(interpreter, "leaves_blocker")
        calling = run_call(interpreter, make_call("waits", timeout=0.5))
        self.assertFalse((await self.failure(calling, CallInterrupted)).suspect)
        await self.assert_fine(interpreter)

    async def test_held_interpreter_lock(self) -> None:
        """C code that lets no thread run is found out when it is alone; with others, all are suspects."""
        interpreter = await self.make_hostile()
        calls = [run_call(interpreter, make_call(each, timeout=0.1)) for each in ("holds_everything", "waits")]
        for calling in calls:
            self.assertTrue((await self.failure(calling, CallInterrupted)).suspect)
        await self.failure(run_call(interpreter, make_call("holds_everything", timeout=0.1)), HandlerTimedOut)
        await self.assert_fine(interpreter)

    async def test_anothers_block_costs_no_time(self) -> None:
        """A call whose time ends while another blocks the loop gets that time back."""
        interpreter = await self.make_hostile()
        blocker = run_call(interpreter, make_call("blocks_a_little", timeout=20))
        calls = [run_call(interpreter, make_call(each, timeout=0.3)) for each in ("fine", "plain_fine")]
        self.assertEqual([(await calling).result for calling in calls], [b'"fine"'] * 2)
        self.assertEqual((await blocker).result, b'"blocked"')
        self.assertEqual(self.restarts, 0)

    async def test_more_plain_calls_than_threads(self) -> None:
        """Time spent waiting for a thread does not count."""
        interpreter = await self.make(
            """
            import asyncio, threading
            may_go = threading.Event()
            def holds_a_thread(event):
                may_go.wait()
                return 1
            def quick(event): return 1
            async def lets_go(event):
                await asyncio.sleep(1.2)
                may_go.set()
                return 1
            """,
            *("holds_a_thread", "quick", "lets_go"),
        )
        calls = [run_call(interpreter, make_call("holds_a_thread", timeout=60)) for _ in range(100)]
        calls += [run_call(interpreter, make_call("quick", timeout=1)) for _ in range(10)]
        calls.append(run_call(interpreter, make_call("lets_go", timeout=60)))
        self.assertEqual({(await each).result for each in calls}, {b"1"})

    async def test_abandoned_call(self) -> None:
        """A call that its caller cancels is ended in the process too."""
        interpreter = await self.make_hostile()
        calling = run_call(interpreter, make_call("waits"))
        calling.cancel()
        await self.failure(calling, CancelledError)
        while interpreter.running:
            await self.result(interpreter, "fine")


class OutputTests(HostileCase):
    """What handlers print and return."""

    async def test_huge_result(self) -> None:
        """Fifty megabytes fail the attempt with their size, and the next call is not affected."""
        interpreter = await self.make_hostile()
        error = await self.failure(run_call(interpreter, make_call("huge")), ResultTooLarge)
        self.assertIn(str((50 << 20) + 2), str(error))
        await self.assert_fine(interpreter)

    async def test_flood(self) -> None:
        """Four megabytes of lines neither stop the handler nor reach the log whole; the log says so."""
        events = self.record_log()
        interpreter = await self.make_hostile()
        self.assertEqual(await self.result(interpreter, "prints"), "printed")
        lines = [event for event in events if event.get("stream") == "stdout"]
        self.assertLess(sum(len(event["text"]) for event in lines), 70_000)
        self.assertEqual({event["event_id"] for event in lines}, {"trigger_evt_1"})
        self.assertTrue([event for event in events if "output truncated" in event.get("text", "")])

    async def test_raw_flood(self) -> None:
        """Six megabytes past Python do not stop the handler either."""
        events = self.record_log()
        interpreter = await self.make_hostile()
        self.assertEqual(await self.result(interpreter, "prints_raw"), "printed")
        await interpreter.close()
        self.assertLess(sum(len(event["text"]) for event in events if event.get("stream") == "raw"), 2_000_000)

    async def test_text(self) -> None:
        """Text is logged as printed, with its call's ids, half a line too."""
        events = self.record_log()
        interpreter = await self.make_hostile()
        self.assertEqual(await self.result(interpreter, "prints_text"), 1)
        said = {event["stream"]: event for event in events if "stream" in event}
        self.assertEqual(said["stdout"]["text"], "ünï cödé\ufffd bytes")
        self.assertEqual(said["stderr"]["text"], "half")
        self.assertEqual((said["stderr"]["binding"], said["stderr"]["attempt"]), ("gh@v2", 1))

    async def test_traceback(self) -> None:
        """A handler's exception has the user's frames alone."""
        interpreter = await self.make("def outer(event):\n    inner()\ndef inner():\n    1 / 0\n", "outer")
        text = (await self.failure(run_call(interpreter, make_call("outer")), HandlerRaised)).traceback
        self.assertIn("inner()", text)
        self.assertIn("1 / 0", text)
        self.assertNotIn("harn/vm", text)


class SurroundingsTests(HostileCase):
    """What a handler's process is like."""

    async def test_signals(self) -> None:
        """Signals that are meant for the server do nothing, and handlers can end what they start."""
        interpreter = await self.make_hostile()
        self.assertEqual(await self.result(interpreter, "signals_itself"), "alive")
        self.assertEqual(await self.result(interpreter, "terminates_child"), -signal.SIGTERM)

    async def test_loop_stopped(self) -> None:
        """A handler that stops the loop stops nothing."""
        interpreter = await self.make_hostile()
        self.assertEqual(await self.result(interpreter, "stops"), "stopped")
        await self.assert_fine(interpreter)
        self.assertEqual(self.restarts, 0)

    async def test_no_secrets_in_the_environment(self) -> None:
        """Handlers do not inherit the server's secrets."""
        for name in ("HARN_SECRET_GITHUB_TOKEN", "HARN_ORCHESTRATOR_API_KEYS", "HARN_ORCHESTRATOR_HMAC_SECRET_FILE"):
            self.patch(os, "environ", {**os.environ, name: "secret"})
        self.patch(os, "environ", {**os.environ, "HARN_OTHER": "plain"})
        interpreters = ChildInterpreters(reactor, FixedSecrets())
        interpreters.startService()
        self.addCleanup(interpreters.stopService)
        interpreter = await interpreters.create(self.bundle({"handlers.py": HOSTILE}, ["environment"]))
        self.assertEqual(await self.result(interpreter, "environment"), ["HARN_OTHER"])

    def test_environment_of_the_user(self) -> None:
        """What the service manager says to the server alone is kept from handlers, and nothing of like names."""
        names = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
        users = {"LISTEN_ADDR": "127.0.0.1", "WATCHDOG_URL": "x", "NOTIFY_SOCKETS": "y"}
        self.assertEqual(child_environment({**users, **dict.fromkeys(names, "1")}), users)

    async def test_light(self) -> None:
        """The process holds nothing of the server, and finds local modules nowhere on disk."""
        interpreter = await self.make_hostile()
        self.assertEqual(await self.result(interpreter, "modules"), [])
        path = await self.result(interpreter, "path")
        self.assertNotIn("", path)
        self.assertNotIn(os.getcwd(), path)
