"""Deadlines by a clock: whose time runs, who is asked to end, who pays."""

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.testing.calls import make_call
from harn.vm.calls import ActiveCall
from harn.vm.frames import BLOCKED_BY_NO_CALL, LOOP_TURNS, Pong
from harn.vm.timeouts import GRACE, PING_INTERVAL, SILENCE, CallDeadlines, TimeoutDecision, decide_timeout


class JudgeTests(SynchronousTestCase):
    """The pure decision."""

    def test_table(self) -> None:
        """Each situation has its verdict."""
        table = [
            # cancelled, culprit, alone, verdict
            (False, LOOP_TURNS, False, TimeoutDecision.CANCEL),
            (True, LOOP_TURNS, False, TimeoutDecision.KILL_CULPRIT),
            (False, 7, False, TimeoutDecision.CANCEL),
            (True, 7, False, TimeoutDecision.KILL_CULPRIT),
            (False, 8, False, TimeoutDecision.WAIT),
            (True, 8, False, TimeoutDecision.WAIT),
            (False, BLOCKED_BY_NO_CALL, False, TimeoutDecision.CANCEL),
            (True, BLOCKED_BY_NO_CALL, False, TimeoutDecision.KILL_UNKNOWN),
            (True, BLOCKED_BY_NO_CALL, True, TimeoutDecision.KILL_CULPRIT),
            (False, None, False, TimeoutDecision.KILL_UNKNOWN),
            (False, None, True, TimeoutDecision.KILL_CULPRIT),
        ]
        for cancelled, culprit, alone, verdict in table:
            self.assertIs(decide_timeout(7, cancelled=cancelled, culprit=culprit, alone=alone), verdict)

    @given(st.booleans(), st.sampled_from([None, LOOP_TURNS, BLOCKED_BY_NO_CALL, 7, 8]), st.booleans())
    def test_nobody_pays_for_another(self, cancelled: Any, culprit: Any, alone: Any) -> None:
        """A call counts as the cause only if it was alone, or had its time to end and no other one is named."""
        if decide_timeout(7, cancelled=cancelled, culprit=culprit, alone=alone) is TimeoutDecision.KILL_CULPRIT:
            self.assertTrue(alone or (cancelled and culprit in (LOOP_TURNS, 7)))


class Holder:
    """Records the requests of `CallDeadlines`; answers pings when the test says so."""

    def __init__(self) -> None:
        self.calls: dict[int, Any] = {}
        self.pings: list[int] = []
        self.cancelled: list[int] = []
        self.ended: list[int | str] = []

    def ping(self, number: Any) -> None:
        self.pings.append(number)

    def cancel(self, running: Any) -> None:
        self.cancelled.append(running.number)

    def end(self, culprit: Any, why: Any, *, suspect: Any) -> None:
        self.ended.append(("suspect" if suspect else "stuck") if culprit is None else culprit.number)
        self.calls = {}


class OverdueTests(SynchronousTestCase):
    """`CallDeadlines` with a clock."""

    def setUp(self) -> None:
        self.clock, self.holder = Clock(), Holder()
        self.overdue = CallDeadlines(self.clock, self.holder)

    def begin(self, number: Any, timeout: Any) -> Any:
        running = ActiveCall(number, make_call("f", timeout=timeout), None, cast("Any", None), cast("Any", None))
        self.holder.calls[number] = running
        self.overdue.began(running)
        return running

    def answer(self, culprit: Any) -> None:
        self.overdue.pong_received(Pong(self.holder.pings[-1], culprit))

    def test_idle_is_silent(self) -> None:
        """With no calls there are no pings, and after a while no timer."""
        self.begin(1, 30)
        del self.holder.calls[1]
        self.clock.pump([0.5] * 10)
        self.assertEqual((self.holder.pings, self.clock.getDelayedCalls()), ([], []))

    def test_pings_while_calls_run(self) -> None:
        """About once a second, one at a time."""
        self.begin(1, 30)
        for _ in range(10):
            self.clock.advance(PING_INTERVAL)
            self.answer(LOOP_TURNS)
        self.assertEqual(len(self.holder.pings), 10)
        self.assertEqual(self.holder.cancelled, [])

    def test_cancel_then_kill(self) -> None:
        """A call over its time is asked to end; after the grace the process is ended for it."""
        self.begin(1, 0.3)
        self.begin(2, 30)
        self.clock.advance(0.3)
        self.answer(LOOP_TURNS)
        self.assertEqual((self.holder.cancelled, self.holder.ended), ([1], []))
        self.clock.advance(GRACE)
        self.answer(LOOP_TURNS)
        self.assertEqual((self.holder.cancelled, self.holder.ended), ([1], [1]))

    def test_silence(self) -> None:
        """Without an answer several calls are suspects, and one alone is the cause."""
        for numbers, ended in (((1, 2), "suspect"), ((3,), 3)):
            for number in numbers:
                self.begin(number, 0.3)
            self.clock.pump([0.3] + [0.25] * int(SILENCE / 0.25 + 1))
            self.assertEqual(self.holder.ended[-1:], [ended])
            self.overdue.stop()

    def test_silence_before_anybody_is_overdue(self) -> None:
        """A process that does not answer is left alone while no call is over its time."""
        self.begin(1, 30)
        self.clock.pump([0.5] * 50)
        self.assertEqual((self.holder.ended, len(self.holder.pings)), ([], 1))

    def test_blocked_time_is_given_back(self) -> None:
        """A call that another one keeps from the loop gets that time back; the other does not."""
        self.begin(1, 5)
        victim = self.begin(2, 1.5)
        self.clock.advance(1)
        self.answer(1)
        self.clock.advance(0.5)
        self.answer(1)
        self.assertEqual(self.holder.cancelled, [])
        self.clock.advance(0.5)
        self.answer(LOOP_TURNS)
        self.assertEqual(self.holder.cancelled, [])
        self.assertTrue(1 < victim.due_at - self.clock.seconds() <= 1.5)
        self.assertEqual(self.holder.calls[1].due_at, 5)

    def test_what_was_left_behind(self) -> None:
        """A task that an ended call left behind, and that blocks the loop, ends the process without failing a call."""
        self.begin(1, 0.3)
        for _ in range(12):
            self.clock.advance(0.25)
            if self.holder.pings and not self.holder.ended:
                self.answer(99)
        self.assertEqual((self.holder.cancelled, self.holder.ended), ([], ["stuck"]))

    def test_waiting_for_a_thread(self) -> None:
        """A queued call has all its time once it starts."""
        running = self.begin(1, 1)
        self.overdue.queued(running, waits=True)
        for _ in range(5):
            self.clock.advance(1)
            self.answer(LOOP_TURNS)
        self.assertEqual(self.holder.cancelled, [])
        self.overdue.queued(running, waits=False)
        self.clock.advance(1)
        self.answer(LOOP_TURNS)
        self.assertEqual(self.holder.cancelled, [1])

    def test_late_answers(self) -> None:
        """An answer to an earlier ping, or to none, decides nothing."""
        self.begin(1, 0.3)
        self.overdue.pong_received(Pong(1, LOOP_TURNS))
        self.clock.advance(0.3)
        self.overdue.pong_received(Pong(self.holder.pings[-1] - 1, LOOP_TURNS))
        self.assertEqual(self.holder.cancelled, [])
        self.overdue.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
