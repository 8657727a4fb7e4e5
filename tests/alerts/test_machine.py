"""The state machine of one alert: when messages are made, what they count, and what ends them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from harn.alerts import machine
from harn.alerts.model import FIRING, RESOLVED, AlertState, AlertSubject, Happened, rules_of
from harn.manifest.alerts import AlertSpec
from tests.alerts.examples import Alert, rule
from tests.manifest.rules import UNHURRIED

NOW = 1_000_000.0
MINUTE, HOUR = 60.0, 3600.0


class CountedTests(SynchronousTestCase):
    """Alerts that count."""

    def test_threshold(self) -> None:
        """It begins with as many as the threshold within the time, and the message says how many and since when."""
        alert = Alert(rule("dead_letter", threshold=3, within=600.0))
        alert.happens(NOW)
        alert.happens(NOW + 601)  # the first is too old by now
        alert.happens(NOW + 700)
        self.assertEqual(alert.waiting, [])
        alert.happens(NOW + 800)
        (notice,) = alert.firing
        self.assertEqual((notice.count, notice.since, notice.began_at), (3, NOW + 601, NOW + 601))
        self.assertEqual((notice.reason, notice.event_id), ("why", f"evt_{NOW + 800:g}"))

    def test_every(self) -> None:
        """While it continues there is one message in the time, which counts what happened since the last one."""
        alert = Alert(rule("dead_letter", every=HOUR))
        alert.happens(NOW)
        self.assertEqual(alert.deliver(NOW), [(FIRING, 1)])
        for minute in range(1, 60):
            alert.happens(NOW + minute * MINUTE)
        self.assertEqual(alert.waiting, [])
        alert.happens(NOW + HOUR)
        self.assertEqual(alert.deliver(NOW + HOUR), [(FIRING, 60)])

    def test_all_clear_of_dead_letters(self) -> None:
        """No new dead letter for the time ends it; the all-clear says how many there were, and how long it lasted."""
        alert = Alert(rule("dead_letter", within=600.0))
        alert.happens(NOW)
        alert.happens(NOW + 300, times=4)
        alert.deliver(NOW + 300)
        self.assertEqual(machine.next_look(alert.rule, alert.state), NOW + 900)
        alert.decide(NOW + 899)
        self.assertEqual(alert.waiting, [])
        alert.decide(NOW + 900)
        (pending,) = alert.state.pending
        notice = pending.notice
        self.assertEqual((notice.status, notice.count), (RESOLVED, 5))
        self.assertEqual((notice.began_at, notice.ended_at), (NOW, NOW + 900))

    def test_what_was_not_announced(self) -> None:
        """What begins and ends between two messages has none of its own, and is counted in the next."""
        alert = Alert(rule("dead_letter", within=60.0, every=HOUR))
        alert.happens(NOW)
        self.assertEqual(alert.deliver(NOW), [(FIRING, 1)])
        alert.decide(NOW + 60)
        self.assertEqual(alert.deliver(NOW + 60), [(RESOLVED, 1)])
        alert.happens(NOW + 600)
        alert.decide(NOW + 660)
        self.assertEqual((alert.waiting, alert.state.is_firing), ([], False))
        alert.happens(NOW + 2 * HOUR)
        self.assertEqual(alert.deliver(NOW + 2 * HOUR), [(FIRING, 2)])

    def test_many_at_once(self) -> None:
        """Dead letters that come as a number count as that many."""
        alert = Alert(rule("dead_letter", threshold=5))
        alert.happens(NOW, times=4)
        self.assertEqual(alert.waiting, [])
        alert.happens(NOW, times=500)
        self.assertEqual(alert.deliver(NOW), [(FIRING, 504)])

    def test_triggers_are_named(self) -> None:
        """An alert of all triggers names them, the most frequent first, and how many more there are."""
        alert = Alert(rule("dead_letter", trigger_id=None, threshold=40))
        for number in range(12):
            alert.happens(NOW, times=number + 1, trigger_id=f"t{number:02}")
        (notice,) = alert.firing
        self.assertEqual([each.trigger_id for each in notice.named][:2], ["t08", "t07"])
        self.assertEqual(len(notice.named), 10)  # those of the first nine, and one that came while it waited
        self.assertEqual((notice.count, notice.others), (78, 1))
        alert.state = AlertState()
        for number in range(12):
            alert.state = machine.happened(alert.rule, alert.state, _event(NOW, f"t{number:02}", 40))
        alert.decide(NOW)
        notice = alert.state.pending[0].notice
        self.assertEqual((len(notice.named), notice.others), (10, 2))


def _event(at: float, trigger_id: str, count: int) -> Any:
    return Happened(at=at, trigger_id=trigger_id, count=count)


class LastingTests(SynchronousTestCase):
    """Alerts on what lasts."""

    def test_reloads(self) -> None:
        """A failed reload begins it; it is said again each time that the pause has ended; a good reload ends it."""
        alert = Alert(rule("reload_failed"))
        alert.fails(NOW)
        self.assertEqual(alert.deliver(NOW), [(FIRING, 1)])
        alert.fails(NOW + MINUTE)
        self.assertEqual(alert.waiting, [])
        self.assertEqual(machine.next_look(alert.rule, alert.state), NOW + HOUR)
        alert.decide(NOW + HOUR)
        self.assertEqual(alert.deliver(NOW + HOUR), [(FIRING, 1)])
        alert.ends(NOW + 2 * HOUR, "reload")
        self.assertEqual(alert.deliver(NOW + 2 * HOUR), [(RESOLVED, 2)])
        self.assertIsNone(machine.next_look(alert.rule, alert.state))

    def test_circuits(self) -> None:
        """It ends when the last circuit is closed."""
        alert = Alert(rule("circuit_open", trigger_id=None))
        for name in ("a", "b"):
            alert.state = machine.changed(alert.state, {name: AlertSubject(trigger_id=name, since=NOW)})
            alert.happens(NOW, trigger_id=name)
        self.assertEqual(alert.deliver(NOW), [(FIRING, 2)])
        alert.ends(NOW + 1, "a")
        self.assertEqual(alert.waiting, [])
        alert.ends(NOW + 2, "b")
        self.assertEqual(alert.waiting, [RESOLVED])

    def test_silence(self) -> None:
        """It begins with the last thing accepted, names the silent triggers, the longest silent first."""
        alert = Alert(rule("silent", trigger_id=None))
        alert.begins(NOW, "b", since=NOW - 600)
        alert.begins(NOW, "a", since=NOW - 700)
        self.assertEqual([each.began_at for each in alert.firing], [NOW - 600])
        alert.deliver(NOW)
        alert.decide(NOW + HOUR)
        notice = alert.state.pending[0].notice
        self.assertEqual([each.trigger_id for each in notice.named], ["a", "b"])
        self.assertEqual(notice.count, 2)
        alert.deliver(NOW + HOUR)
        alert.ends(NOW + HOUR + 1, "a")
        alert.ends(NOW + HOUR + 2, "b")
        (pending,) = alert.state.pending
        self.assertEqual((pending.notice.status, pending.notice.began_at), (RESOLVED, NOW - 600))


class WaitingTests(SynchronousTestCase):
    """Messages that cannot be sent at once."""

    def test_counts_on_while_it_waits(self) -> None:
        """What happens while a message waits is added to it; what happens while it is sent, to the next one."""
        alert = Alert(rule("dead_letter"))
        alert.happens(NOW)
        alert.state = machine.not_sent(machine.begin_sending(alert.state), "refused", NOW, NOW + 5)
        alert.happens(NOW + 1)
        (pending,) = alert.state.pending
        self.assertEqual((pending.notice.count, pending.due_at, pending.attempts), (2, NOW + 5, 1))
        self.assertEqual((pending.failing_since, pending.error), (NOW, "refused"))
        alert.state = machine.begin_sending(alert.state)
        alert.happens(NOW + 6)
        self.assertEqual(alert.state.pending[0].notice.count, 2)
        alert.state = machine.sent(alert.state, NOW + 7)
        alert.happens(NOW + 7 + HOUR)
        self.assertEqual(alert.deliver(NOW + 7 + HOUR), [(FIRING, 2)])

    def test_never_more_than_three(self) -> None:
        """However often it begins and ends, three messages wait at most."""
        alert = Alert(rule("reload_failed", every=1.0))
        for second in range(0, 1000, 2):
            alert.fails(NOW + second)
            alert.ends(NOW + second + 1, "reload")
        self.assertEqual(alert.waiting, [FIRING, RESOLVED])

    def test_given_up(self) -> None:
        """After a day a message is given up; while the alert continues there is a new one then."""
        alert = Alert(rule("reload_failed"))
        alert.fails(NOW)
        alert.state, old = machine.given_up(alert.state, NOW + 86399)
        self.assertEqual(old, ())
        alert.state, old = machine.given_up(alert.state, NOW + 86400)
        self.assertEqual(len(old), 1)
        alert.decide(NOW + 86400)
        self.assertEqual(alert.waiting, [FIRING])

    def test_restored(self) -> None:
        """What an earlier server was sending is due again, with the same id; a message that had been sent is not."""
        alert = Alert(rule("reload_failed"))
        alert.fails(NOW)
        state = machine.restored(machine.begin_sending(alert.state), NOW + 10)
        (pending,) = state.pending
        self.assertEqual((pending.is_being_sent, pending.due_at), (False, NOW + 10))
        alert.state = machine.restored(machine.sent(machine.begin_sending(alert.state), NOW + 1), NOW + 10)
        alert.decide(NOW + 10)
        self.assertEqual(alert.waiting, [])

    def test_clock_set_back(self) -> None:
        """A wall clock that is set back by a day does not silence it for a day."""
        alert = Alert(rule("dead_letter", every=HOUR))
        alert.happens(NOW)
        alert.deliver(NOW)
        alert.happens(NOW - 86400)
        self.assertEqual(machine.next_look(alert.rule, alert.state), NOW - 86400 + 600)
        alert.happens(NOW - 86400 + 300)
        alert.decide(NOW - 86400 + HOUR)
        alert.happens(NOW - 86400 + HOUR + 1)
        self.assertEqual(alert.firing[-1].made_at, NOW - 86400 + HOUR + 1)


class RuleTests(SynchronousTestCase):
    def test_names(self) -> None:
        """Each alert has a name and a key of its own; the key does not change with its limits."""
        slack = AlertSpec(on="late", to="slack", url_secret="alerts/a")
        other = msgspec.structs.replace(slack, url_secret="alerts/b")
        found = list(rules_of([slack, other, msgspec.structs.replace(slack, within=1.0)], "gh"))
        self.assertEqual([each.name for each in found], ["gh/late/slack", "gh/late/slack#2", "gh/late/slack#3"])
        self.assertEqual(
            [each.key for each in found],
            ["gh/late/slack:alerts/a", "gh/late/slack:alerts/b", "gh/late/slack:alerts/a#2"],
        )
        (plain,) = rules_of([slack], None)
        self.assertEqual((plain.name, plain.covers("gh"), found[0].covers("x")), ("late/slack", True, False))


Step = tuple[str, float]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("happens", "ends", "send", "fail", "restart")),
        st.sampled_from((0.0, 0.5, 1.0, 3.0, 10.0, 11.0, 30.0, 31.0, 200.0)),
    ),
    max_size=60,
)
RULES = st.builds(
    lambda on, threshold, within, every: rule(on, threshold=threshold, within=within, every=every),
    st.sampled_from(("dead_letter", "reload_failed")),
    st.integers(1, 4),
    st.sampled_from((1.0, 10.0, 100.0)),
    st.sampled_from((1.0, 30.0, 300.0)),
)


class Run(Alert):
    """
    An alert that a list of steps drives.

    :ivar sent: time, status and count of each message that was sent.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sent: list[tuple[float, str, int]] = []
        self.happenings = 0
        self.covered = 0  # what only an all-clear counts

    def decide(self, now: float) -> None:
        """Look at the clock."""
        before, known = self.state.count, len(self.made)
        super().decide(now)
        if len(self.made) > known and self.state.pending[-1].notice.status == RESOLVED:
            self.covered += before

    def step(self, what: str, now: float) -> None:
        """Run one step."""
        if what == "happens":
            self.happenings += 1
            self.fails(now) if self.rule.spec.on == "reload_failed" else self.happens(now)
        elif what == "ends":
            self.ends(now, "reload")
        elif what == "send" and self.state.pending:
            notice = self.state.pending[0].notice
            self.sent.append((now, notice.status, notice.count))
            self.state = machine.sent(machine.begin_sending(self.state), now)
        elif what == "fail" and self.state.pending:
            self.state = machine.not_sent(machine.begin_sending(self.state), "no", now, now)
        elif what == "restart":
            self.state = machine.restored(msgspec.json.decode(msgspec.json.encode(self.state), type=AlertState), now)
        self.decide(now)

    def outline(self) -> list[tuple[str, float, int]]:
        """Return every message that was made."""
        return [(each.status, each.made_at, each.count) for each in self.made.values()]


class PropertyTests(SynchronousTestCase):
    @UNHURRIED
    @given(RULES, STEPS)
    def test_messages(self, alert: Any, steps: list[Step]) -> None:
        """At most one message in the time; an all-clear only after an alert, and alerts continue only within one."""
        run, now = Run(alert), NOW
        for what, pause in steps:
            now += pause
            run.step(what, now)
            self.assertLessEqual(len(run.state.pending), 3)
        firing = [at for at, status, _ in run.sent if status == FIRING]
        for earlier, later in pairwise(firing):
            self.assertGreaterEqual(later - earlier, alert.spec.every)
        statuses = [status for _, status, _ in run.sent]
        for before, after in pairwise(["", *statuses]):
            self.assertFalse(after == RESOLVED and before != FIRING, statuses)

    @UNHURRIED
    @given(RULES, STEPS)
    def test_nothing_is_counted_twice(self, alert: Any, steps: list[Step]) -> None:
        """All messages together count what happened at most once; with a threshold of one, exactly once."""
        run, now = Run(alert), NOW
        for what, pause in steps:
            now += pause
            run.step(what, now)
        said = sum(count for _, status, count in run.sent if status == FIRING and count)
        waiting = sum(each.notice.count for each in run.state.pending if each.notice.status == FIRING)
        repeats = _repeats(run)
        self.assertLessEqual(said + waiting + run.state.count - repeats, run.happenings)
        if alert.spec.threshold == 1 and alert.spec.on == "dead_letter":
            self.assertEqual(said + waiting + run.state.count + run.covered, run.happenings)

    @UNHURRIED
    @given(RULES, STEPS)
    def test_the_time_of_the_next_look(self, alert: Any, steps: list[Step]) -> None:
        """Looking at the times that the machine names alone makes the same messages as looking all the time."""
        lazy, busy, now = Run(alert), Run(alert), NOW
        for what, pause in steps:
            until = now + pause
            while (look := machine.next_look(lazy.rule, lazy.state)) is not None and max(look, now) < until:
                now = max(look, now)
                before = lazy.state
                lazy.decide(now)
                self.assertNotEqual(lazy.state, before, "it woke for nothing")
            now = until - pause if pause == 0 else now
            at = until - pause
            while at < until:
                busy.decide(at)
                at += 0.5
            now = until
            lazy.step(what, now)
            busy.step(what, now)
        self.assertEqual(lazy.outline(), busy.outline())

    @UNHURRIED
    @given(RULES, STEPS)
    def test_restarts(self, alert: Any, steps: list[Step]) -> None:
        """A restart at any moment changes no message."""
        plain, restarted, now = Run(alert), Run(alert), NOW
        for what, pause in steps:
            now += pause
            if what == "restart":
                restarted.step(what, now)
                plain.decide(now)
            else:
                plain.step(what, now)
                restarted.step(what, now)
        self.assertEqual(plain.outline(), restarted.outline())


def _repeats(run: Run) -> int:
    """Return how many messages repeat what lasts without anything new: each of them counts one."""
    if run.rule.spec.on == "dead_letter":
        return 0
    return len(run.firing)
