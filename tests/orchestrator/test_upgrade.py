"""The old program's part of an upgrade, and the new one's, without processes: limits, order, and what is undone."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.errors import EventLogUnavailable, StateDirectoryUnusable
from harn.orchestrator import predecessor, upgrade
from harn.orchestrator.handover import SERVES, YOURS, HandoverFailed, Inheritance, Program
from harn.orchestrator.notify import Supervisor
from harn.orchestrator.predecessor import SECOND_TRY, Predecessor
from harn.orchestrator.upgrade import FIRST, START_LIMIT, Upgrade
from harn.reload.report import ReloadReport, ReloadRequest
from harn.reload.turns import Turns


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
        self.leaving: Deferred[None] | None = None
        self.turns = Turns(self.reload)
        self.listening = FakeListening(self.done)
        self.coordinator = self.publisher = self.store = self

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

    async def open_port(self, inherited: int | None = None) -> str:
        self.done.append(f"open {inherited}")
        return "http://here"

    async def recover(self, limit: int, leaving: int | None = None) -> int:
        self.done.append(f"recover but {leaving}")
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
        self.is_alive = True
        self.fails = ""
        self.given: Any = None

    def spawn(self, *given: Any) -> None:
        self.given = given
        self.parts.done.append("spawn")
        if self.fails:
            raise HandoverFailed(self.fails)

    def hand_over(self) -> None:
        self.parts.done.append("hand over")

    def kill(self) -> None:
        self.parts.done.append("kill")


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
            descriptor = 9

        lock: Any = Lock()
        return Upgrade(
            self.clock,
            program,
            {"A": "b"},
            lock,
            Supervisor(self.clock, None),
            lambda heir: self.done.append(f"handed over to {heir.pid}"),
            lambda: self.done.append("failed"),
        )

    def test_order(self) -> None:
        """The new program serves only after the old one has let go of everything, and no reload comes between."""
        self.upgrade.begin(self.parts)
        self.parts.turns.ask(ReloadRequest(source="cli", actor="me"))
        self.assertTrue(self.upgrade.is_under_way)
        self.assertEqual(self.done, ["spawn"])
        inheritance = Inheritance(pid=os.getpid(), incarnation=5)
        self.assertEqual(self.successor.given[1:], ({"A": "b"}, inheritance, 7, 9))
        self.successor.serves.callback(None)
        self.assertEqual(self.done[:4], ["spawn", "leave state", "handed over to 4711", "hand over"])
        self.assertFalse(self.upgrade.is_under_way)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def assert_went_on(self, *before: str) -> None:
        """See that everything is as it was, reloads go on, and another try may come."""
        self.assertEqual(self.done, ["spawn", *before, "kill", "take state", "renumber", "failed"])
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
        self.successor.fails = "no such file"
        self.upgrade.begin(self.parts)
        self.assert_went_on()

    def test_ended_at_the_last_moment(self) -> None:
        """Nor one that ends while the state file is still being written."""
        self.parts.leaving = Deferred()
        self.upgrade.begin(self.parts)
        self.successor.serves.callback(None)
        self.successor.is_alive = False
        self.parts.leaving.callback(None)
        self.assert_went_on("leave state")

    def test_store_away(self) -> None:
        """When the numbers cannot be read again, the server goes on all the same."""
        self.parts.away = 1
        self.upgrade.begin(self.parts)
        self.successor.serves.errback(HandoverFailed("no"))
        self.assertEqual(self.done, ["spawn", "kill", "take state", "failed"])

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

    def inherit(self, descriptor: int) -> None:
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
        self.patch(predecessor, "Pair", self.pair)
        self.old = Predecessor(self.clock, Inheritance(pid=1, incarnation=4))
        self.lock: Any = FakeLock(self.done)
        self.old.inherit(self.lock)
        self.relieving = Deferred.fromCoroutine(self.old.relieve(self.parts, self.lock, 10))

    BEFORE = ["inherit 4", "open 3", "pause", SERVES]
    SERVING = ["resume", "claim", "take state", "save state"]

    def test_in_good_order(self) -> None:
        """It serves when it is told to; the old program's deliveries are its own when that is gone, and not before."""
        self.assertEqual(self.done, self.BEFORE)
        self.pair.heard(b"nonsense")
        self.assertNoResult(self.relieving)
        self.pair.heard(YOURS)
        self.assertEqual(self.successResultOf(self.relieving), ("http://here", 3))
        self.assertEqual(self.done[4:], [*self.SERVING, "recover but 4"])
        self.old.take_over(self.parts, 10)
        self.assertFalse(self.old.is_gone)
        self.pair.heard(YOURS)
        self.pair.lost()
        self.assertTrue(self.old.is_gone)
        self.assertEqual(self.done[9:], ["recover but None"])

    def test_gone_early(self) -> None:
        """An old program that ends before it has handed over leaves everything at once."""
        self.pair.lost()
        self.successResultOf(self.relieving)
        self.assertEqual(self.done[4:], [*self.SERVING, "recover but None"])
        self.old.take_over(self.parts, 10)
        self.assertEqual(self.done[9:], ["recover but None"])

    def test_store_away(self) -> None:
        """Taking over is tried again until the event log is there."""
        self.pair.heard(YOURS)
        self.successResultOf(self.relieving)
        self.old.take_over(self.parts, 10)
        self.parts.away = 2
        self.pair.lost()
        self.clock.pump([SECOND_TRY] * 3)
        self.assertEqual(self.done[9:], ["recover but None"] * 3)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_serves_whatever_happens(self) -> None:
        """Once it is the only server, neither a lock nor an event log that cannot be written keeps it from serving."""
        self.lock.fails = True
        self.parts.away = 2
        self.pair.heard(YOURS)
        self.assertEqual(self.successResultOf(self.relieving), ("http://here", 0))
        self.assertEqual(self.done[4:], [*self.SERVING, "recover but 4", "recover but 4"])
        self.old.take_over(self.parts, 10)
        self.clock.advance(SECOND_TRY)
        self.assertEqual(self.done[10:], ["recover but 4"])
        self.pair.lost()
        self.assertEqual(self.done[11:], ["recover but None"])

    def test_gone_between_two_tries(self) -> None:
        """An old program that ends while its successor waits for the event log is taken over at the next try."""
        self.parts.away = 2
        self.pair.heard(YOURS)
        self.old.take_over(self.parts, 10)
        self.parts.away = 1
        self.pair.lost()
        self.clock.pump([SECOND_TRY] * 2)
        self.assertEqual(self.done[-1], "recover but None")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close(self) -> None:
        """A server that ends takes nothing over any more, and leaves no timer."""
        self.pair.heard(YOURS)
        self.successResultOf(self.relieving)
        self.old.take_over(self.parts, 10)
        self.old.close()
        self.assertEqual(self.done[9:], [])
        self.old.close()

    def test_close_while_trying(self) -> None:
        """So does one that ends between two tries."""
        self.pair.heard(YOURS)
        self.successResultOf(self.relieving)
        self.old.take_over(self.parts, 10)
        self.parts.away = 100
        self.pair.lost()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.patch(self.pair, "lost", lambda: None)
        self.old.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
