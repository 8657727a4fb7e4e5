"""The old program's part of an upgrade, and the new one's, without processes: limits, order, and what is undone."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.process import reapAllProcesses
from twisted.internet.task import Clock, LoopingCall
from twisted.trial.unittest import SynchronousTestCase, TestCase

from harn.errors import EventLogUnavailable, StateDirectoryUnusable
from harn.orchestrator.notify import Supervisor
from harn.reload.report import ReloadReport, ReloadRequest
from harn.reload.turns import Turns
from harn.store.lock import StateDirectoryLock
from harn.upgrade import old_process, upgrade
from harn.upgrade.handover import MAIN, SERVES, TAKEN, YOURS, HandoverFailed, Inheritance, Program
from harn.upgrade.new_process import Successor
from harn.upgrade.old_process import PATIENCE, SECOND_TRY, Predecessor
from harn.upgrade.upgrade import FIRST, START_LIMIT, TAKE_LIMIT, Upgrade


class FakeListening:
    """A port that notes what is done to it."""

    descriptor = 7

    def __init__(self, done: list[Any]) -> None:
        self.done = done

    def pause(self) -> None:
        self.done.append("pause")

    def resume(self) -> None:
        self.done.append("resume")


class FakeParts:
    """Both the parts and those of them that an upgrade touches; notes what is done."""

    status = "generation 1 serves"
    incarnation = 5

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.away = 0
        self.fails: Exception | None = None
        self.are_numbers_known = True
        self.leaving: Deferred[None] | None = None
        self.turns = Turns(self.reload)
        self.listening = FakeListening(self.done)
        self.coordinator = self.publisher = self.store = self.interpreters = self

    async def reload(self, request: ReloadRequest, merged: int) -> Any:
        self.done.append("reload")
        return ReloadReport(status="ok", source="cli", actor="me", generation=1, digest="")

    async def leave_state(self) -> None:
        self.done.append("leave state")
        if self.leaving is not None:
            await self.leaving

    def take_state(self) -> None:
        self.done.append("take state")

    async def save_state(self) -> None:
        self.done.append("save state")

    async def renumber(self) -> None:
        if self.away:
            raise EventLogUnavailable("disk full")
        self.done.append("renumber")
        self.are_numbers_known = True

    async def take_over(self, serve: Callable[[], None]) -> None:
        self.done.append("catch up")
        serve()

    async def note_serving(self) -> None:
        self.done.append("note")
        if self.fails is not None:
            raise self.fails

    def try_hooks_again(self) -> None:
        self.done.append("hooks")

    async def open_port(self, inherited: int | None = None) -> str:
        self.done.append(f"open {inherited}")
        return "http://here"

    async def recover(self, limit: int, leaving: int | None = None, gone: int | None = None) -> int:
        self.done.append(f"recover but {leaving}")
        self.gone = gone
        if self.away:
            self.away -= 1
            raise EventLogUnavailable("disk full")
        return 3


class FakeSuccessor:
    """A new program."""

    pid = 4711
    end = "it ended with status 3 before it took over"

    def __init__(self, parts: FakeParts) -> None:
        self.parts = parts
        self.serves: Deferred[None] = Deferred()
        self.taken: Deferred[None] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self.gone.callback(None)
        self.is_alive = True
        self.was_told = False
        self.fails: Exception | None = None
        self.given: Any = None

    def spawn(self, *given: Any) -> None:
        self.given = given
        self.parts.done.append("spawn")
        if self.fails is not None:
            raise self.fails

    def hand_over(self) -> None:
        self.was_told = True
        self.parts.done.append("hand over")

    def is_main(self) -> None:
        self.parts.done.append("main")

    def send_signal(self, name: str) -> None:
        self.parts.done.append(name)

    def kill(self) -> Deferred[None]:
        self.parts.done.append("kill")
        return self.gone


class UpgradeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.parts: Any = FakeParts()
        self.done = self.parts.done
        self.successor = FakeSuccessor(self.parts)
        self.patch(upgrade, "Successor", lambda reactor: self.successor)
        self.upgrade = self.make(Program("/bin/new", ("new", "serve"), "/"))

    def make(self, program: Program | None) -> Upgrade:
        class Lock:
            descriptor, of_directory = 9, 10

        self.lock: Any = Lock()
        self.is_ending = False
        return Upgrade(
            self.clock,
            program,
            {"A": "b"},
            self.lock,
            Supervisor(self.clock, None),
            lambda heir: self.done.append(f"handed over to {heir.pid}"),
            lambda: self.done.append("failed"),
            lambda: self.is_ending,
        )

    def test_order(self) -> None:
        """The new program serves only after the old one takes no more connections, and no reload comes between."""
        self.upgrade.begin(self.parts)
        self.parts.turns.ask(ReloadRequest(source="cli", actor="me"))
        self.assertTrue(self.upgrade.is_under_way)
        self.assertEqual(self.done, ["spawn"])
        inheritance = Inheritance(pid=os.getpid(), incarnation=5, directory=6)
        self.assertEqual(self.successor.given[1:], ({"A": "b"}, inheritance, 7, self.lock))
        self.successor.serves.callback(None)
        self.assertEqual(self.done[1:], self.TOLD)
        self.assertTrue(self.upgrade.is_under_way)
        self.successor.taken.callback(None)
        self.assertEqual(self.done[4:6], ["main", "handed over to 4711"])
        self.assertFalse(self.upgrade.is_under_way)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    TOLD = ["leave state", "pause", "hand over"]

    def assert_went_on(self, *before: str) -> None:
        """See that everything is as it was, reloads go on, and another try may come."""
        resumed = ["resume"] if self.successor.was_told else []
        after = ["kill", *resumed, "take state", "renumber", "save state", "failed"]
        self.assertEqual(self.done, ["spawn", *before, *after])
        self.assertTrue(self.parts.are_numbers_known)
        self.parts.turns.ask(ReloadRequest(source="cli", actor="me"))
        self.assertEqual(self.done[-1], "reload")
        self.assertFalse(self.upgrade.is_under_way)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_too_slow(self) -> None:
        """A new program that could not serve in time is killed."""
        self.upgrade.begin(self.parts)
        self.clock.advance(START_LIMIT - 0.1)
        self.assertEqual(self.done, ["spawn"])
        self.clock.advance(0.1)
        self.assert_went_on()

    def test_ended(self) -> None:
        """One that ends before is no loss."""
        self.upgrade.begin(self.parts)
        self.successor.serves.errback(HandoverFailed("it ended with status 1"))
        self.assert_went_on()

    def test_not_started(self) -> None:
        """Neither is one that cannot be started."""
        self.successor.fails = HandoverFailed("no such file")
        self.upgrade.begin(self.parts)
        self.assert_went_on()

    def test_unexpected(self) -> None:
        """Whatever a start raises is no loss either, and is logged whole."""
        self.successor.fails = RuntimeError("nobody thought of it")
        self.upgrade.begin(self.parts)
        self.assert_went_on()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_ended_at_the_last_moment(self) -> None:
        """Nor one that ends while the state file is still being written."""
        self.parts.leaving = Deferred()
        self.upgrade.begin(self.parts)
        self.successor.serves.callback(None)
        self.successor.is_alive = False
        self.parts.leaving.callback(None)
        self.assert_went_on("leave state")

    def test_not_taken(self) -> None:
        """One that was told to take over, and ends or hangs before it has, leaves the port to the old program again."""
        for hangs in (False, True):
            self.setUp()
            self.upgrade.begin(self.parts)
            self.successor.serves.callback(None)
            if hangs:
                self.clock.advance(TAKE_LIMIT)
            else:
                self.successor.taken.errback(HandoverFailed("it ended with status 3"))
            self.assert_went_on(*self.TOLD)

    def test_numbers_once_it_is_gone(self) -> None:
        """Numbers are read again only when the new program gives no more; of one that does not end, at a reload."""
        for ends in (True, False):
            self.setUp()
            self.successor.gone = Deferred()
            self.upgrade.begin(self.parts)
            self.successor.serves.errback(HandoverFailed("no"))
            self.assertEqual(self.done, ["spawn", "kill", "take state"])
            if ends:
                self.successor.gone.callback(None)
                self.assert_went_on()
            else:
                self.clock.advance(TAKE_LIMIT)
                self.assertEqual(self.done[3:], ["save state", "failed"])
                self.assertFalse(self.parts.are_numbers_known)

    def test_store_away(self) -> None:
        """When the numbers cannot be read again, the server goes on all the same, and knows that."""
        self.parts.away = 1
        self.upgrade.begin(self.parts)
        self.successor.serves.errback(HandoverFailed("no"))
        self.assertEqual(self.done, ["spawn", "kill", "take state", "save state", "failed"])
        self.assertFalse(self.parts.are_numbers_known)

    def test_end_in_the_same_turn(self) -> None:
        """A server that was told to end hands over to nobody: its end is that of both programs."""
        self.is_ending = True
        self.upgrade.begin(self.parts)
        self.successor.serves.callback(None)
        self.assertEqual(self.done, ["spawn", "leave state", "kill", "take state"])

    def test_end_while_it_takes_over(self) -> None:
        """A new program that may have requests already is asked to end, with what it has."""
        for way in ("told", "cancelled"):
            self.setUp()
            self.upgrade.begin(self.parts)
            self.successor.serves.callback(None)
            if way == "told":
                self.is_ending = True
                self.successor.taken.callback(None)
            else:
                self.upgrade.cancel()
            self.assertEqual(self.done, ["spawn", *self.TOLD, "TERM", "take state"], way)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """At the server's end the new program is killed, in whatever state it is, and no reload is held up."""
        for step in ("waiting for a reload", "starting", "state file"):
            self.setUp()
            if step == "waiting for a reload":
                turn = self.parts.turns.turn()
                self.successResultOf(Deferred.fromCoroutine(turn.__aenter__()))
            self.parts.leaving = Deferred()
            self.upgrade.begin(self.parts)
            if step == "state file":
                self.successor.serves.callback(None)
            self.upgrade.cancel()
            self.assertEqual(self.done[-2:], ["kill", "take state"], step)
            self.assertFalse(self.upgrade.is_under_way)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_at_a_time(self) -> None:
        """A second signal starts nothing."""
        self.upgrade.begin(self.parts)
        self.upgrade.begin(self.parts)
        self.assertEqual(self.done, ["spawn"])

    def test_refused(self) -> None:
        """Where the way to start the program is not known, or a container would end with this process: nothing."""
        self.make(None).begin(self.parts)
        self.patch(os, "getpid", lambda: FIRST)
        self.upgrade.begin(self.parts)
        self.assertEqual(self.done, [])
        self.upgrade.cancel()


class FakePair:
    """The old program's end, as the new one has it."""

    def __init__(self, done: list[Any]) -> None:
        self.done = done

    def on(self, reactor: object, descriptor: int, heard: Any, lost: Any) -> FakePair:
        self.heard, self.lost = heard, lost
        return self

    def say(self, word: bytes) -> None:
        self.done.append(word)

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


class PredecessorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.parts: Any = FakeParts()
        self.done = self.parts.done
        self.pair = FakePair(self.done)
        self.patch(old_process, "Pair", self.pair)
        self.old = Predecessor(self.clock, Inheritance(pid=1, incarnation=4))
        self.lock: Any = FakeLock(self.done)
        self.old.inherit(self.lock)
        relieving = self.old.relieve(self.parts, self.lock, 10, lambda: self.done.append("serve"))
        self.relieving = Deferred.fromCoroutine(relieving)

    def take(self) -> None:
        """Take over, as the old program wants."""
        self.pair.heard(YOURS)
        self.pair.heard(MAIN)

    BEFORE = ["inherit 4", "open 3", "pause", SERVES]
    SERVING = ["catch up", "serve", "resume", TAKEN, "claim", "take state", "note", "save state"]
    SERVES_AT = len(BEFORE) + len(SERVING)

    def test_in_good_order(self) -> None:
        """It serves when it is told to; the old program's deliveries are its own when that is gone, and not before."""
        self.assertEqual(self.done, self.BEFORE)
        self.pair.heard(b"nonsense")
        self.pair.heard(MAIN.upper())
        self.assertNoResult(self.relieving)
        self.take()
        self.assertEqual(self.successResultOf(self.relieving), ("http://here", 3))
        self.assertEqual(self.done[4:], [*self.SERVING, "recover but 4"])
        self.old.take_over(self.parts, 10)
        self.assertFalse(self.old.is_gone)
        self.pair.heard(YOURS)
        self.pair.lost()
        self.assertTrue(self.old.is_gone)
        # Start hooks that failed, since the old program had what they wanted, too.
        self.assertEqual(self.done[self.SERVES_AT + 1 :], ["hooks", "recover but None"])

    def test_gone_early(self) -> None:
        """An old program that ends before it has handed over leaves everything at once."""
        self.pair.lost()
        self.successResultOf(self.relieving)
        self.assertEqual(self.done[4:], [*self.SERVING, "recover but None"])
        self.old.take_over(self.parts, 10)
        self.assertEqual(self.done[self.SERVES_AT + 1 :], ["hooks", "recover but None"])

    def test_store_away(self) -> None:
        """Taking over is tried again until the event log is there."""
        self.take()
        self.successResultOf(self.relieving)
        self.old.take_over(self.parts, 10)
        self.parts.away = 2
        self.pair.lost()
        self.clock.pump([SECOND_TRY] * 3)
        self.assertEqual(self.done[self.SERVES_AT + 1 :], ["hooks", *["recover but None"] * 3])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_serves_whatever_happens(self) -> None:
        """Once it is the only server, neither a lock nor an event log that cannot be written keeps it from serving."""
        self.lock.fails = True
        self.parts.away = 2
        self.take()
        self.assertEqual(self.successResultOf(self.relieving), ("http://here", 0))
        self.assertEqual(self.done[4:], [*self.SERVING, "recover but 4", "recover but 4"])
        self.old.take_over(self.parts, 10)
        self.clock.advance(SECOND_TRY)
        self.assertEqual(self.done[self.SERVES_AT + 2 :], ["recover but 4"])
        self.pair.lost()
        self.assertEqual(self.done[self.SERVES_AT + 3 :], ["hooks", "recover but None"])

    def test_gone_between_two_tries(self) -> None:
        """An old program that ends while its successor waits for the event log is taken over at the next try."""
        self.parts.away = 2
        self.take()
        self.old.take_over(self.parts, 10)
        self.parts.away = 1
        self.pair.lost()
        self.clock.pump([SECOND_TRY] * 2)
        self.assertEqual(self.done[-1], "recover but None")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close(self) -> None:
        """A server that ends takes nothing over any more, and leaves no timer."""
        self.take()
        self.successResultOf(self.relieving)
        self.old.take_over(self.parts, 10)
        self.old.close()
        self.assertEqual(self.done[self.SERVES_AT + 1 :], [])
        self.old.close()

    def test_close_while_trying(self) -> None:
        """So does one that ends between two tries."""
        self.take()
        self.successResultOf(self.relieving)
        self.old.take_over(self.parts, 10)
        self.parts.away = 100
        self.pair.lost()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.patch(self.pair, "lost", lambda: None)
        self.old.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_surprise(self) -> None:
        """Nor does anything that nobody thought of; it is logged, and taking over is tried again."""
        self.parts.fails = RuntimeError("nobody thought of it")
        self.take()
        self.assertEqual(self.successResultOf(self.relieving), ("http://here", 0))
        self.assertEqual(self.done[4:], [*self.SERVING[:-1], "recover but 4"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_end_meanwhile(self) -> None:
        """A server that ends while it takes over goes on with nothing of that."""
        self.parts.fails = CancelledError()
        self.take()
        self.failureResultOf(self.relieving, CancelledError)
        self.assertEqual(self.done[4:], self.SERVING[:-1])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waits_for_the_service_manager(self) -> None:
        """It speaks once the old program has told who it is, but does not wait for long."""
        self.pair.heard(YOURS)
        self.assertEqual(self.done[-1], "recover but 4")
        self.assertNoResult(self.relieving)
        self.clock.advance(PATIENCE)
        self.assertEqual(self.successResultOf(self.relieving), ("http://here", 3))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class SuccessorTests(TestCase):
    """The new program's process, as the old one has it."""

    timeout = 30

    def setUp(self) -> None:
        # Trial's reactor does not always hear of the end of children.
        reaping = LoopingCall(reapAllProcesses)
        reaping.start(0.01)
        self.addCleanup(reaping.stop)

    def begun(self, program: str) -> Successor:
        """Start a shell program."""
        heir = Successor(reactor)
        listening, lock = os.open(os.devnull, os.O_RDONLY), StateDirectoryLock(self.mktemp())
        self.addCleanup(os.close, listening)
        lock.acquire()
        self.addCleanup(lock.release)
        shell = Program("/bin/sh", ("sh", "-c", program), "/")
        heir.spawn(shell, os.environ, Inheritance(pid=1, incarnation=1), listening, lock)
        return heir

    async def test_taken(self) -> None:
        """It says that it serves, is told to, and has taken over; to say so earlier counts for nothing."""
        heir = self.begun("echo taken >&5; echo serves >&5; read word <&5; echo taken >&5; read word <&5")
        await heir.serves
        self.assertFalse(heir.taken.called)
        heir.hand_over()
        await heir.taken
        self.assertTrue(heir.is_alive)
        heir.is_main()
        await heir.kill()
        self.assertFalse(heir.is_alive)
        await heir.kill()

    async def test_ends_before_it_takes_over(self) -> None:
        """One that ends, or lets go, when it was told to take over has not done so."""
        for program in ("exit 3", "exec 5>&-; read word"):
            heir = self.begun(f"echo serves >&5; read word <&5; {program}")
            await heir.serves
            heir.hand_over()
            with self.assertRaises(HandoverFailed):
                await heir.taken
            await heir.kill()

    async def test_killed(self) -> None:
        """The end of one that is killed is told when it has ended."""
        heir = self.begun("read word")
        await heir.kill()
        self.assertIn(f"signal {signal.SIGKILL}", heir.end)

    def test_no_descriptors(self) -> None:
        """A system that has nothing left to start it with is no end of this program."""
        heir = Successor(reactor)

        def exhausted() -> Any:
            raise OSError(24, "Too many open files")

        self.patch(socket, "socketpair", exhausted)
        program = Program("/bin/sh", ("sh",), "/")
        lock = StateDirectoryLock(self.mktemp())
        lock.acquire()
        self.addCleanup(lock.release)
        refused = self.assertRaises(
            HandoverFailed, heir.spawn, program, {}, Inheritance(pid=1, incarnation=1), listening=1, lock=lock
        )
        self.assertIn("Too many open files", str(refused))
        self.assertTrue(heir.kill().called)
