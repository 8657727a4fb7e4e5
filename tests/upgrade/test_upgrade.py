"""The old program's part of an upgrade, and the new one's, without processes: limits, order, and what is undone."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.process import reapAllProcesses
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from harn.errors import EventLogUnavailable, StateDirectoryUnusable
from harn.reload.report import ReloadReport
from harn.reload.runs import ReloadQueue
from harn.store.lock import StateDirectoryLock
from harn.systemd import ServiceManager
from harn.upgrade import program, upgrade
from harn.upgrade.interfaces import INewServer, IOldServer, IServerLife
from harn.upgrade.program import (
    MAIN,
    PATIENCE,
    READY,
    RETRY_INTERVAL,
    TAKE_OVER,
    TAKEN,
    HandoverFailed,
    Inheritance,
    OldProcess,
    Program,
)
from harn.upgrade.upgrade import FIRST, START_LIMIT, TAKE_LIMIT, NewProcess, Upgrade


@implementer(IOldServer, INewServer, IServerLife)
class FakeServer:
    """A server; notes what is done to it."""

    status = "generation 1 serves"
    incarnation = 5
    listening_descriptor = 7

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.away = 0
        self.fails: Exception | None = None
        self.is_ending = False
        self.are_numbers_known = True
        self.disowning: Deferred[None] | None = None
        self.queue = ReloadQueue()

    async def reload(self) -> ReloadReport:
        async with self.queue.exclusive():
            self.done.append("reload")
            return ReloadReport(status="ok", source="cli", actor="me", generation=1, digest="")

    def exclusive(self) -> Any:
        return self.queue.exclusive()

    def serve(self) -> None:
        self.done.append("serve")

    def handed_over(self, new_process: Any) -> None:
        self.done.append(f"handed over to {new_process.pid}")

    def not_handed_over(self) -> None:
        self.done.append("failed")

    def pause_listening(self) -> None:
        self.done.append("pause")

    def resume_listening(self) -> None:
        self.done.append("resume")

    def own_state_file(self) -> None:
        self.done.append("own state")

    async def disown_state_file(self) -> None:
        self.done.append("disown state")
        if self.disowning is not None:
            await self.disowning

    async def save_state(self) -> None:
        self.done.append("save state")

    def mark_numbers_unknown(self) -> None:
        self.are_numbers_known = False

    async def read_numbers(self) -> None:
        if self.away:
            raise EventLogUnavailable("disk full")
        self.done.append("read numbers")
        self.are_numbers_known = True

    async def open_port(self, descriptor: int) -> str:
        self.done.append(f"open {descriptor}")
        return "http://here"

    async def read_gates(self) -> None:
        self.done.append("read gates")

    async def read_rollouts(self) -> None:
        self.done.append("read rollouts")

    def begin_rollouts(self) -> None:
        self.done.append("begin rollouts")

    async def note_serving(self) -> None:
        self.done.append("note")
        if self.fails is not None:
            raise self.fails

    async def recover(self, leaving: int | None, gone: int | None) -> int:
        self.done.append(f"recover but {leaving}")
        self.gone = gone
        if self.away:
            self.away -= 1
            raise EventLogUnavailable("disk full")
        return 3

    def retry_start_hooks(self) -> None:
        self.done.append("hooks")


class FakeNewProcess:
    """A new program."""

    pid = 4711
    end = "it ended with status 3 before it took over"

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.ready: Deferred[None] = Deferred()
        self.taken: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self.gone.callback(None)
        self.is_alive = True
        self.was_handed_over = False
        self.fails: Exception | None = None
        self.given: Any = None

    def spawn(self, *given: Any) -> None:
        self.given = given
        self.server.done.append("spawn")
        if self.fails is not None:
            raise self.fails

    def hand_over(self) -> None:
        self.was_handed_over = True
        self.server.done.append("hand over")

    def confirm_main(self) -> None:
        self.server.done.append("main")

    def send_signal(self, name: str) -> None:
        self.server.done.append(name)

    def kill(self) -> Deferred[None]:
        self.server.done.append("kill")
        return self.gone


class UpgradeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.server: Any = FakeServer()
        self.done = self.server.done
        self.new = FakeNewProcess(self.server)
        self.patch(upgrade, "NewProcess", lambda reactor: self.new)
        self.upgrade = self.make(Program("/bin/new", ("new", "serve"), "/"))

    def make(self, program: Program | None) -> Upgrade:
        class Lock:
            descriptor, of_directory = 9, 10

        self.lock = cast("Any", Lock())
        return Upgrade(
            self.clock,
            program,
            {"A": "b"},
            self.lock,
            ServiceManager(self.clock, None),
            self.server,
        )

    def test_order(self) -> None:
        """The new program serves only after the old one takes no more connections, and no reload comes between."""
        self.upgrade.begin(self.server)
        self.server.queue.spawn(self.server.reload())
        self.assertTrue(self.upgrade.is_running)
        self.assertEqual(self.done, ["spawn"])
        inheritance = Inheritance(pid=os.getpid(), incarnation=5, directory=6)
        self.assertEqual(self.new.given[1:], ({"A": "b"}, inheritance, 7, self.lock))
        self.new.ready.callback(None)
        self.assertEqual(self.done[1:], self.TOLD)
        self.assertTrue(self.upgrade.is_running)
        self.new.taken.callback(None)
        self.assertEqual(self.done[4:6], ["main", "handed over to 4711"])
        self.assertFalse(self.upgrade.is_running)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    TOLD = ["disown state", "pause", "hand over"]

    def assert_went_on(self, *before: str) -> None:
        """See that everything is as it was, reloads continue, and another try may come."""
        resumed = ["resume"] if self.new.was_handed_over else []
        after = ["kill", *resumed, "own state", "read numbers", "save state", "failed"]
        self.assertEqual(self.done, ["spawn", *before, *after])
        self.assertTrue(self.server.are_numbers_known)
        self.server.queue.spawn(self.server.reload())
        self.assertEqual(self.done[-1], "reload")
        self.assertFalse(self.upgrade.is_running)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_slow(self) -> None:
        """A new program that could not serve in time is killed."""
        self.upgrade.begin(self.server)
        self.clock.advance(START_LIMIT - 0.1)
        self.assertEqual(self.done, ["spawn"])
        self.clock.advance(0.1)
        self.assert_went_on()

    def test_ended(self) -> None:
        """A program that ends before does no harm."""
        self.upgrade.begin(self.server)
        self.new.ready.errback(HandoverFailed("it ended with status 1"))
        self.assert_went_on()

    def test_not_started(self) -> None:
        """Neither is one that cannot be started."""
        self.new.fails = HandoverFailed("no such file")
        self.upgrade.begin(self.server)
        self.assert_went_on()

    def test_unexpected(self) -> None:
        """Whatever a start raises does no harm either, and is logged whole."""
        self.new.fails = RuntimeError("nobody thought of it")
        self.upgrade.begin(self.server)
        self.assert_went_on()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_ended_at_the_last_moment(self) -> None:
        """Nor one that ends while the state file is still being written."""
        self.server.disowning = Deferred()
        self.upgrade.begin(self.server)
        self.new.ready.callback(None)
        self.new.is_alive = False
        self.server.disowning.callback(None)
        self.assert_went_on("disown state")

    def test_not_taken(self) -> None:
        """A program that ends or hangs between the order to take over and doing so leaves the port to the old one."""
        for hangs in (False, True):
            self.setUp()
            self.upgrade.begin(self.server)
            self.new.ready.callback(None)
            if hangs:
                self.clock.advance(TAKE_LIMIT)
            else:
                self.new.taken.errback(HandoverFailed("it ended with status 3"))
            self.assert_went_on(*self.TOLD)

    def test_numbers_once_it_has_ended(self) -> None:
        """
        Numbers are read again only when the new program no longer gives any; of one that does not end, at a reload.
        """
        for ends in (True, False):
            self.setUp()
            self.new.gone = Deferred()
            self.upgrade.begin(self.server)
            self.new.ready.errback(HandoverFailed("no"))
            self.assertEqual(self.done, ["spawn", "kill", "own state"])
            if ends:
                self.new.gone.callback(None)
                self.assert_went_on()
            else:
                self.clock.advance(TAKE_LIMIT)
                self.assertEqual(self.done[3:], ["save state", "failed"])
                self.assertFalse(self.server.are_numbers_known)

    def test_store_away(self) -> None:
        """When the numbers cannot be read again, the server continues, and reads them before the next reload."""
        self.server.away = 1
        self.upgrade.begin(self.server)
        self.new.ready.errback(HandoverFailed("no"))
        self.assertEqual(self.done, ["spawn", "kill", "own state", "save state", "failed"])
        self.assertFalse(self.server.are_numbers_known)

    def test_end_in_the_same_turn(self) -> None:
        """A server that was asked to end hands over to no other: its end is that of both programs."""
        self.server.is_ending = True
        self.upgrade.begin(self.server)
        self.new.ready.callback(None)
        self.assertEqual(self.done, ["spawn", "disown state", "kill", "own state"])

    def test_end_while_it_takes_over(self) -> None:
        """A new program that may have requests already is asked to end, and finishes them."""
        for way in ("told", "cancelled"):
            self.setUp()
            self.upgrade.begin(self.server)
            self.new.ready.callback(None)
            if way == "told":
                self.server.is_ending = True
                self.new.taken.callback(None)
            else:
                self.upgrade.cancel()
            self.assertEqual(self.done, ["spawn", *self.TOLD, "TERM", "own state"], way)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """At the server's end the new program is killed, in whatever state it is, and no reload is held up."""
        for step in ("waiting for a reload", "starting", "state file"):
            self.setUp()
            if step == "waiting for a reload":
                turn = self.server.queue.exclusive()
                self.successResultOf(Deferred.fromCoroutine(turn.__aenter__()))
            self.server.disowning = Deferred()
            self.upgrade.begin(self.server)
            if step == "state file":
                self.new.ready.callback(None)
            self.upgrade.cancel()
            self.assertEqual(self.done[-2:], ["kill", "own state"], step)
            self.assertFalse(self.upgrade.is_running)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_at_a_time(self) -> None:
        """A second signal starts nothing."""
        self.upgrade.begin(self.server)
        self.upgrade.begin(self.server)
        self.assertEqual(self.done, ["spawn"])

    def test_refused(self) -> None:
        """Where the way to start the program is not known, or a container would end with this process: nothing."""
        self.make(None).begin(self.server)
        self.patch(os, "getpid", lambda: FIRST)
        self.upgrade.begin(self.server)
        self.assertEqual(self.done, [])
        self.upgrade.cancel()


class FakeChannel:
    """The old program's end, in the new one."""

    def __init__(self, done: list[Any]) -> None:
        self.done = done

    def open(self, reactor: object, descriptor: int, user: Any) -> FakeChannel:
        self.received, self.lost = user.message_received, user.channel_lost
        return self

    def send(self, message: bytes) -> None:
        self.done.append(message)

    def close(self) -> None:
        self.lost()


class FakeLock:
    """The state directory's."""

    fails = False

    def __init__(self, done: list[Any]) -> None:
        self.done = done

    def inherit(self, descriptor: int, of_directory: int | None) -> None:
        self.done.append(f"inherit {descriptor}")

    def claim(self) -> None:
        self.done.append("claim")
        if self.fails:
            raise StateDirectoryUnusable("it cannot be written")


class OldProcessTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.server: Any = FakeServer()
        self.done = self.server.done
        self.channel = FakeChannel(self.done)
        self.patch(program, "HandoverChannel", self.channel)
        self.old = OldProcess(self.clock, Inheritance(pid=1, incarnation=4))
        self.lock = cast("Any", FakeLock(self.done))
        self.old.inherit(self.lock)
        taking = self.old.take_over(self.server, self.lock, self.server)
        self.taking = Deferred.fromCoroutine(taking)

    def take(self) -> None:
        """Take over, as the old program wants."""
        self.channel.received(TAKE_OVER)
        self.channel.received(MAIN)

    BEFORE = ["inherit 4", "open 3", "pause", READY]
    SERVING = [
        *("read gates", "read rollouts", "serve", "begin rollouts", "resume", TAKEN),
        *("claim", "own state", "note", "save state"),
    ]
    SERVES_AT = len(BEFORE) + len(SERVING)

    def test_in_good_order(self) -> None:
        """It serves on the order; the old program's deliveries are its own when that has ended, and not before."""
        self.assertEqual(self.done, self.BEFORE)
        self.channel.received(b"nonsense")
        self.channel.received(MAIN.upper())
        self.assertNoResult(self.taking)
        self.take()
        self.assertEqual(self.successResultOf(self.taking), ("http://here", 3))
        self.assertEqual(self.done[4:], [*self.SERVING, "recover but 4"])
        self.old.take_over_rest(self.server)
        self.assertFalse(self.old.has_ended)
        self.channel.received(TAKE_OVER)
        self.channel.lost()
        self.assertTrue(self.old.has_ended)
        # Start hooks that failed, since the old program had what they wanted, too.
        self.assertEqual(self.done[self.SERVES_AT + 1 :], ["hooks", "recover but None"])

    def test_gone_early(self) -> None:
        """An old program that ends before it has handed over leaves everything at once."""
        self.channel.lost()
        self.successResultOf(self.taking)
        self.assertEqual(self.done[4:], [*self.SERVING, "recover but None"])
        self.old.take_over_rest(self.server)
        self.assertEqual(self.done[self.SERVES_AT + 1 :], ["hooks", "recover but None"])

    def test_store_away(self) -> None:
        """Taking over is tried again until the event log is there."""
        self.take()
        self.successResultOf(self.taking)
        self.old.take_over_rest(self.server)
        self.server.away = 2
        self.channel.lost()
        self.clock.pump([RETRY_INTERVAL] * 3)
        self.assertEqual(self.done[self.SERVES_AT + 1 :], ["hooks", *["recover but None"] * 3])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_serves_whatever_happens(self) -> None:
        """Once it is the only server, neither a lock nor an event log that cannot be written keeps it from serving."""
        self.lock.fails = True
        self.server.away = 2
        self.take()
        self.assertEqual(self.successResultOf(self.taking), ("http://here", 0))
        self.assertEqual(self.done[4:], [*self.SERVING, "recover but 4", "recover but 4"])
        self.old.take_over_rest(self.server)
        self.clock.advance(RETRY_INTERVAL)
        self.assertEqual(self.done[self.SERVES_AT + 2 :], ["recover but 4"])
        self.channel.lost()
        self.assertEqual(self.done[self.SERVES_AT + 3 :], ["hooks", "recover but None"])

    def test_gone_between_two_tries(self) -> None:
        """An old program that ends while its successor waits for the event log is taken over at the next try."""
        self.server.away = 2
        self.take()
        self.old.take_over_rest(self.server)
        self.server.away = 1
        self.channel.lost()
        self.clock.pump([RETRY_INTERVAL] * 2)
        self.assertEqual(self.done[-1], "recover but None")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close(self) -> None:
        """A server that ends takes nothing over any more, and leaves no timer."""
        self.take()
        self.successResultOf(self.taking)
        self.old.take_over_rest(self.server)
        self.old.close()
        self.assertEqual(self.done[self.SERVES_AT + 1 :], [])
        self.old.close()

    def test_close_while_trying(self) -> None:
        """So does one that ends between two tries."""
        self.take()
        self.successResultOf(self.taking)
        self.old.take_over_rest(self.server)
        self.server.away = 100
        self.channel.lost()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.patch(self.channel, "lost", lambda: None)
        self.old.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_surprise(self) -> None:
        """An unexpected error does not either; it is logged, and taking over is tried again."""
        self.server.fails = RuntimeError("nobody thought of it")
        self.take()
        self.assertEqual(self.successResultOf(self.taking), ("http://here", 0))
        self.assertEqual(self.done[4:], [*self.SERVING[:-1], "recover but 4"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_end_meanwhile(self) -> None:
        """A server that ends while it takes over continues with nothing of that."""
        self.server.fails = CancelledError()
        self.take()
        self.failureResultOf(self.taking, CancelledError)
        self.assertEqual(self.done[4:], self.SERVING[:-1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waits_for_the_service_manager(self) -> None:
        """It sends messages once the old program has sent its identity, but does not wait for long."""
        self.channel.received(TAKE_OVER)
        self.assertEqual(self.done[-1], "recover but 4")
        self.assertNoResult(self.taking)
        self.clock.advance(PATIENCE)
        self.assertEqual(self.successResultOf(self.taking), ("http://here", 3))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class NewProcessTests(TestCase):
    """The new program's process, in the old one."""

    timeout = 180

    def setUp(self) -> None:
        # Trial's reactor does not always notice the end of children.
        reaping = LoopingCall(reapAllProcesses)
        reaping.start(0.01)
        self.addCleanup(reaping.stop)

    def begun(self, program: str) -> NewProcess:
        """Start a shell program."""
        new = NewProcess(reactor)
        listening, lock = os.open(os.devnull, os.O_RDONLY), StateDirectoryLock(self.mktemp())
        self.addCleanup(os.close, listening)
        lock.acquire()
        self.addCleanup(lock.release)
        shell = Program("/bin/sh", ("sh", "-c", program), "/")
        new.spawn(shell, os.environ, Inheritance(pid=1, incarnation=1), listening, lock)
        return new

    async def test_taken(self) -> None:
        """It reports that it serves, gets the order, and takes over; an earlier report has no effect."""
        new = self.begun("echo taken >&5; echo serves >&5; read word <&5; echo taken >&5; read word <&5")
        await new.ready
        self.assertFalse(new.taken.called)
        new.hand_over()
        await new.taken
        self.assertTrue(new.is_alive)
        new.confirm_main()
        await new.kill()
        self.assertFalse(new.is_alive)
        await new.kill()

    async def test_ends_before_it_takes_over(self) -> None:
        """A program that ends, or closes the channel, after the order to take over has not done so."""
        for ending in ("exit 3", "exec 5>&-; read word"):
            new = self.begun(f"echo serves >&5; read word <&5; {ending}")
            await new.ready
            new.hand_over()
            with self.assertRaises(HandoverFailed):
                await new.taken
            await new.kill()

    async def test_killed(self) -> None:
        """The end of a program that is killed is reported when it has ended."""
        new = self.begun("read word")
        await new.kill()
        self.assertIn(f"signal {signal.SIGKILL}", new.end)

    def test_no_descriptors(self) -> None:
        """A system without the resources to start it does not end this program."""
        new = NewProcess(reactor)

        def exhausted() -> Any:
            raise OSError(24, "Too many open files")

        self.patch(socket, "socketpair", exhausted)
        program = Program("/bin/sh", ("sh",), "/")
        lock = StateDirectoryLock(self.mktemp())
        lock.acquire()
        self.addCleanup(lock.release)
        refused = self.assertRaises(
            HandoverFailed, new.spawn, program, {}, Inheritance(pid=1, incarnation=1), listening=1, lock=lock
        )
        self.assertIn("Too many open files", str(refused))
        self.assertTrue(new.kill().called)
