"""Alerts as examples, for the tests of this package."""

from __future__ import annotations

from itertools import count
from typing import Any

from harn.alerts import machine
from harn.alerts.messages import AlertOrigin
from harn.alerts.model import FIRING, AlertState, AlertSubject, Happened, Notice, Rule, rules_of
from harn.manifest.alerts import AlertSpec

NOTICE = Notice(
    id="alert_1",
    status=FIRING,
    made_at=1_700_000_000.0,
    began_at=1_700_000_000.0,
    since=1_700_000_000.0,
    count=3,
    reason="rejected",
    event_id="trigger_evt_1",
)
"""A notice of an alert that fires."""
ORIGIN = AlertOrigin(host="web-1", package="shop", generation=7)


def rule(on: str, *, trigger_id: str | None = "gh", to: str = "slack", **more: Any) -> Rule:
    """Return one alert in force."""
    target = {"address": "ops@shop.test"} if to == "email" else {"url_secret": "alerts/url"}
    (found,) = rules_of([AlertSpec(on=on, to=to, **{**target, **more})], trigger_id)
    return found


class Alert:
    """
    One alert that a test drives.

    :ivar made: every message that was made so far.
    """

    def __init__(self, alert: Rule, state: AlertState | None = None) -> None:
        self.rule = alert
        self.state = AlertState() if state is None else state
        self.made: dict[str, Notice] = {}
        self._numbers = count(1)

    def decide(self, now: float) -> None:
        """Look at the clock."""
        self.state = machine.decide(self.rule, self.state, now, f"alert_{next(self._numbers)}")
        for each in self.state.pending:
            self.made[each.notice.id] = each.notice

    def happens(self, now: float, times: int = 1, trigger_id: str = "gh") -> None:
        """Count something."""
        event = Happened(at=now, trigger_id=trigger_id, count=times, reason="why", event_id=f"evt_{now:g}")
        self.state = machine.happened(self.rule, self.state, event)
        self.decide(now)

    def begins(self, now: float, name: str = "gh", since: float | None = None) -> None:
        """Begin something that lasts."""
        subject = AlertSubject(trigger_id=name, since=now if since is None else since)
        self.state = machine.changed(self.state, {name: subject})
        self.decide(now)

    def ends(self, now: float, name: str = "gh") -> None:
        """End something that lasted."""
        self.state = machine.changed(self.state, {}, (name,))
        self.decide(now)

    def fails(self, now: float) -> None:
        """Fail a reload."""
        self.state = machine.changed(self.state, {"reload": AlertSubject(trigger_id="", since=now)})
        self.happens(now, trigger_id="")

    def deliver(self, now: float) -> list[tuple[str, int]]:
        """Send everything that waits; return status and count of each."""
        said = []
        while self.state.pending:
            notice = self.state.pending[0].notice
            said.append((notice.status, notice.count))
            self.state = machine.sent(machine.begin_sending(self.state), now)
        return said

    @property
    def waiting(self) -> list[str]:
        """The status of each message that waits."""
        return [each.notice.status for each in self.state.pending]

    @property
    def firing(self) -> list[Notice]:
        """Every message so far that it began or continues."""
        return [each for each in self.made.values() if each.status == FIRING]
