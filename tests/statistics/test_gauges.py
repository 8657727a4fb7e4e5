"""Backlogs and dead letters of triggers, and the gauges of them."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.dispatch.gates import Gates
from harn.lifecycle import DeadLettered, DeadLettersEnded, Redriven
from harn.model.delivery import DEAD, WAITING, Settlement
from harn.statistics.gauges import INTERVAL, Backlogs, add_gauges
from harn.testing.kit import KitServer
from harn.testing.stores.kit import NOW, accept_of, dead_letter, new_delivery


class BacklogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.server = server = KitServer(self.clock)
        dispatcher: Any = SimpleNamespace(in_progress={}, gates=Gates())
        self.dispatcher = dispatcher
        registry: Any = SimpleNamespace(waiting=Counter(gh=1))
        totals, lifecycle = server.store.totals, server.lifecycle
        self.backlogs = Backlogs(self.clock, self.clock, totals, dispatcher, registry, lifecycle)
        add_gauges(server.metrics, self.clock, self.backlogs)
        server.metrics.trigger("gh", "webhook")
        server.metrics.trigger("idle", "webhook")

    def accept(self, count: int) -> None:
        """Accept deliveries of ``gh``, received now."""
        for number in range(count):
            new = new_delivery(f"e{number}", received_at=self.clock.seconds())
            self.successResultOf(self.server.store.inbox.accept(accept_of(new)))

    def settle(self, delivery_id: int, **changes: Any) -> None:
        """Settle a delivery in the store."""
        settlement = Settlement(delivery_id=delivery_id, version=1, attempts=1, **changes)
        self.successResultOf(self.server.store.deliveries.settle(settlement))

    def gauge(self, name: str) -> dict[str, float]:
        """Return the values of a gauge by trigger id, from a scrape."""
        text = self.server.metrics.render().decode()
        (family,) = (each for each in text_string_to_metric_families(text) if each.name == name)
        return {sample.labels["trigger_id"]: sample.value for sample in family.samples}

    def refresh(self) -> None:
        """Look at the store."""
        self.successResultOf(Deferred.fromCoroutine(self.backlogs.refresh()))

    def test_ages(self) -> None:
        """The oldest delivery of each kind counts, without what runs; a trigger without any shows 0."""
        self.accept(3)
        self.settle(2, state=WAITING, due_at=NOW + 500.0)
        self.clock.advance(100.0)
        self.accept(1)
        self.dispatcher.in_progress[1] = SimpleNamespace(binding=SimpleNamespace(id="gh"))
        self.refresh()
        self.clock.advance(20.0)
        self.assertEqual(self.gauge("harn_oldest_ready_age_seconds"), {"gh": 120.0, "idle": 0.0})
        self.assertEqual(self.gauge("harn_oldest_waiting_age_seconds"), {"gh": 120.0, "idle": 0.0})
        self.assertEqual(self.gauge("harn_trigger_running"), {"gh": 1.0, "idle": 0.0})
        self.assertEqual(self.gauge("harn_trigger_waiting"), {"gh": 1.0, "idle": 0.0})
        self.dispatcher.in_progress[3] = self.dispatcher.in_progress[1]
        self.refresh()
        self.assertEqual(self.gauge("harn_oldest_ready_age_seconds"), {"gh": 20.0, "idle": 0.0})

    def test_dead_letters(self) -> None:
        """Deaths count at once, and so do ends of dead letters; the store has the last word, a few seconds later."""
        self.backlogs.startService()
        self.addCleanup(self.backlogs.stopService)
        self.server.lifecycle.emit(DeadLettered("gh", "webhook", None, "binding_removed", 5))
        self.assertEqual(self.gauge("harn_dead_letters"), {"gh": 5.0, "idle": 0.0})
        self.server.lifecycle.emit(Redriven("gh", "gh@v2", 1))
        self.server.lifecycle.emit(DeadLettersEnded("gh", "webhook", "replayed", 2))
        self.assertEqual(self.gauge("harn_dead_letters"), {"gh": 2.0, "idle": 0.0})
        self.accept(1)
        self.settle(1, state=DEAD, dead=dead_letter("no"))
        self.server.metrics.remove(["gh"])
        self.clock.advance(INTERVAL)
        self.assertEqual(self.gauge("harn_dead_letters"), {"gh": 1.0, "idle": 0.0})

    def test_store_that_is_away(self) -> None:
        """What was known stays, and the next look comes as soon as usual."""
        self.accept(1)
        self.backlogs.startService()
        self.addCleanup(self.backlogs.stopService)
        self.server.store.fail_reads = True
        self.clock.advance(INTERVAL)
        self.assertIn("gh", self.backlogs.oldest)
        self.server.store.fail_reads = False
        self.settle(1, state=DEAD, dead=dead_letter("no"))
        self.clock.advance(INTERVAL)
        self.assertEqual((self.backlogs.oldest, self.backlogs.dead), ({}, {"gh": 1}))
