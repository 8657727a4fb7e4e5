"""What operators ask of alerts, and what the command shows, with and without a server."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from harn.alerts.operations import (
    AlertInfo,
    AlertList,
    AlertOperations,
    ListAlerts,
    TryAlert,
    list_alerts,
    try_alert,
)
from harn.errors import AlertNotSent, RouteUnknown
from tests.alerts.test_alerts import AlertCase
from tests.alerts.world import HEAD, URL, alert, everywhere, fake
from tests.operations.asking import asked


class OperationTests(AlertCase):
    def service(self) -> AlertOperations:
        """Return the service of the operations."""
        alerts = self.world.alerts
        return AlertOperations(board=alerts.board, runner=alerts.runner, wall=self.world.wall)

    def listed(self) -> tuple[AlertInfo, ...]:
        """List the alerts."""
        found: AlertList = self.successResultOf(asked(list_alerts, self.service(), ListAlerts()))
        return found.alerts

    def tried(self, name: str) -> Any:
        """Send a message of a test."""
        return self.successResultOf(asked(try_alert, self.service(), TryAlert(alert=name)))

    def test_list(self) -> None:
        """Those of all triggers come first; each says how it stands, and no secret."""
        self.started(fake("a", extra=alert("dead_letter")), head=everywhere("reload_failed", every="90m"))
        self.world.sender.fails = AlertNotSent("the receiver answered 404: no_service")
        self.world.die()
        first, second = self.listed()
        self.assertEqual((first.index, first.name, first.trigger_id), (1, "reload_failed/slack", None))
        self.assertEqual((first.state, first.every, first.last_sent, first.pending), ("quiet", "90m", None, 0))
        self.assertEqual((second.index, second.name, second.trigger_id), (2, "a/dead_letter/slack", "a"))
        self.assertEqual(
            (second.state, second.target, second.pending, second.attempts), ("firing", "alerts/slack", 1, 1)
        )
        self.assertEqual(second.last_error, "the receiver answered 404: no_service")
        self.assertNotIn(URL.encode(), msgspec.json.encode(self.listed()))
        self.world.sender.fails = None
        self.advance(10)
        self.assertEqual((self.listed()[1].pending, self.listed()[1].last_error), (0, None))

    def test_try(self) -> None:
        """A message of a test is sent by name or by number, changes nothing, and says when it cannot be sent."""
        self.started(fake("a", extra=alert("silent")), head=HEAD)
        before = self.listed()
        self.assertEqual((self.tried("a/silent/slack").sent, self.tried("1").sent), (True, True))
        self.assertIn("nothing is wrong", self.world.sender.sent[0][1].text)
        self.assertEqual(self.world.sender.documents[0]["type"], "alert.test")
        self.assertEqual(self.listed(), before)
        self.world.sender.fails = AlertNotSent("no answer within 15 s")
        tested = self.tried("1")
        self.assertEqual((tested.sent, tested.error, tested.target), (False, "no answer within 15 s", "alerts/slack"))
        rendered = self.world.metrics.render().decode()
        self.assertIn('harn_alerts_sent_total{on="silent",to="slack"} 2.0', rendered)
        self.assertIn('harn_alerts_failed_total{on="silent",to="slack"} 1.0', rendered)

    def test_unknown(self) -> None:
        """One that there is not names those that there are."""
        self.started(fake("a", extra=alert("silent")), head=HEAD)
        for name in ("b/silent/slack", "0", "2"):
            failure = self.failureResultOf(asked(try_alert, self.service(), TryAlert(alert=name)), RouteUnknown)
            self.assertIn("the live generation has: a/silent/slack", str(failure.value))

    def test_series_exist(self) -> None:
        """Every series of an alert in force exists at 0."""
        self.started(fake("a", extra=alert("late")), head=HEAD)
        rendered = self.world.metrics.render().decode()
        for line in (
            'harn_alerts_sent_total{on="late",to="slack"} 0.0',
            'harn_alerts_failed_total{on="late",to="slack"} 0.0',
            'harn_alerts_firing{on="late"} 0.0',
            "harn_alerts_pending 0.0",
        ):
            self.assertIn(line, rendered)

    def test_stored(self) -> None:
        """What is stored of an alert is what a command shows without a server, and holds no secret."""
        self.started(fake("a", extra=alert("dead_letter")), head=HEAD)
        self.world.die()
        self.successResultOf(self.world.stopped())
        ((name, value),) = self.world.store.query("SELECT name, value FROM standing WHERE name LIKE 'alert:%'")
        self.assertEqual(name, "alert:a/dead_letter/slack:alerts/slack")
        kept = json.loads(value)
        self.assertEqual((kept["name"], kept["target"], kept["threshold"]), ("a/dead_letter/slack", "alerts/slack", 1))
        self.assertNotIn("s3cr3t", value.decode())
