"""Totals of triggers over restarts and crashes."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.lifecycle import Accepted, AcceptedDelivery, RequestRefused, Settled, SettledDelivery
from harn.model.delivery import DONE, WAITING, Settlement
from harn.statistics import totals as module
from harn.statistics.totals import PAUSE, REREAD, TotalsFlusher, TriggerTotals
from harn.store.statistics import TriggerTotal
from harn.testing.kit import KitServer
from harn.testing.stores.kit import NOW, accept_of, attempt_of, dead_letter, new_delivery
from harn.testing.stores.pumped import PumpedStore


class TotalsCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(NOW)
        self.start(None)

    def start(self, store: PumpedStore | None, *, takes_over: bool = False) -> None:
        """Start a server, after another that had ``store``."""
        self.server = server = KitServer(self.clock, store=store)
        self.totals = TriggerTotals(self.clock, self.clock, server.store.totals, server.metrics, takes_over=takes_over)
        self.totals.begin()

    def accept(self, *trigger_ids: str) -> None:
        """Accept a delivery for each of these triggers, as the intake does."""
        for number, trigger_id in enumerate(trigger_ids):
            new = new_delivery(f"e{number}", trigger_id=trigger_id)
            (delivery_id,) = self.successResultOf(self.server.store.inbox.accept(accept_of(new)))
            assert delivery_id is not None
            self.server.lifecycle.emit(Accepted.of([AcceptedDelivery(f"{trigger_id}@v1", delivery_id, new)]))

    def refuse(self, status: int = 401) -> None:
        """Refuse a request to ``gh``."""
        self.server.lifecycle.emit(RequestRefused("gh", "webhook", (), status))

    def flush(self) -> None:
        """Add the counts to the store."""
        self.successResultOf(self.asked(self.totals.flush()))

    def stored(self) -> dict[str, tuple[int, int]]:
        """Return the stored counts of accepted and refused."""
        found = self.successResultOf(self.server.store.totals.totals())
        return {key: (each.accepted, each.refused) for key, each in found.items()}

    @staticmethod
    def asked(coroutine: Coroutine[Any, Any, None]) -> Deferred[None]:
        """Begin it."""
        return Deferred.fromCoroutine(coroutine)

    def counted(self, trigger_id: str = "gh") -> tuple[int, int]:
        """Return the shown counts of accepted and refused."""
        total = self.totals.of(trigger_id)
        return total.accepted, total.refused


class CountedTests(TotalsCase):
    """One server after another."""

    def test_at_once_and_later_in_the_store(self) -> None:
        """A count is shown at once, and is the same after it was added to the store, which is done only for news."""
        self.accept("gh", "gh", "other")
        self.refuse()
        self.assertEqual((self.counted(), self.counted("other"), self.counted("none")), ((2, 1), (1, 0), (0, 0)))
        self.assertEqual(self.stored(), {})
        self.flush()
        self.assertEqual(self.stored(), {"gh": (2, 1), "other": (1, 0)})
        self.assertEqual((self.counted(), self.counted("other")), ((2, 1), (1, 0)))
        commits = self.server.store.commits
        self.flush()
        self.assertEqual(self.server.store.commits, commits)
        self.accept("gh")
        self.assertEqual(self.counted(), (3, 1))
        self.flush()
        self.assertEqual((self.counted(), self.stored()["gh"]), ((3, 1), (3, 1)))

    def test_over_a_restart(self) -> None:
        """The next server continues with what the one before had counted to its end."""
        self.accept("gh")
        self.refuse()
        self.successResultOf(self.asked(self.totals.close()))
        self.start(self.server.store.beside())
        self.assertEqual(self.counted(), (1, 1))
        self.accept("gh")
        self.assertEqual(self.counted(), (2, 1))

    def test_over_a_crash(self) -> None:
        """What a server that was killed had not added yet is counted again, once; refused requests are not known."""
        self.accept("gh")
        self.flush()
        self.accept("gh", "other")
        self.refuse()
        self.start(self.server.store.beside())
        self.assertEqual((self.counted(), self.counted("other")), ((2, 0), (1, 0)))
        self.accept("gh")
        self.flush()
        self.start(self.server.store.beside())
        self.assertEqual((self.counted(), self.counted("other")), ((3, 0), (1, 0)))

    def test_many_that_nobody_counted(self) -> None:
        """An older database is counted slice by slice, with pauses; what is accepted meanwhile counts once."""
        self.patch(module, "SLICE", 2)
        self.accept(*["gh"] * 5)
        self.start(self.server.store.beside())
        self.accept("gh")
        self.flush()
        self.assertEqual(self.stored(), {"gh": (2, 0)})
        self.clock.pump([PAUSE] * 3)
        self.assertEqual(self.counted(), (6, 0))
        self.flush()
        self.assertEqual(self.stored(), {"gh": (6, 0)})

    def test_end_while_counting(self) -> None:
        """A server that ends before all is counted leaves the rest, its own deliveries too, to the next one."""
        self.patch(module, "SLICE", 2)
        self.accept(*["gh"] * 5)
        self.start(self.server.store.beside())
        self.accept("gh")
        self.refuse()
        closing = self.asked(self.totals.close())
        self.clock.advance(PAUSE)
        self.successResultOf(closing)
        self.assertEqual(self.stored(), {"gh": (2, 1)})
        self.patch(module, "SLICE", 100)
        self.start(self.server.store.beside())
        self.assertEqual(self.counted(), (6, 1))

    def test_beside_one_that_ends(self) -> None:
        """A server that takes over counts its own; what the other adds at its end is seen within a minute."""
        self.accept("gh")
        before = self.totals
        self.start(self.server.store.beside(), takes_over=True)
        self.assertEqual(self.counted(), (0, 0))
        self.successResultOf(self.asked(before.close()))
        self.accept("gh")
        self.flush()
        self.clock.advance(REREAD)
        self.accept("gh")
        self.flush()
        self.assertEqual((self.counted(), self.stored()), ((3, 0), {"gh": (3, 0)}))

    def test_times(self) -> None:
        """The last success and failure are known at once, after a restart, and after a crash."""
        failed = attempt_of(outcome="failed", error_class="handler_error", completed_at=NOW + 2.0)
        done = attempt_of(completed_at=NOW + 1.0)
        self.accept("gh", "gh")
        for delivery_id, settlement in (
            (1, Settlement(delivery_id=1, state=DONE, version=1, attempts=1, attempt=done, result=b"1")),
            (2, Settlement(delivery_id=2, state=WAITING, version=1, attempts=1, due_at=NOW + 9.0, attempt=failed)),
        ):
            self.successResultOf(self.server.store.deliveries.settle(settlement))
            one = SettledDelivery("gh", "webhook", "gh@v1", f"e{delivery_id}", b"", False, settlement, received_at=NOW)
            self.server.lifecycle.emit(Settled.of([one]))
        whole = TriggerTotal(trigger_id="gh", accepted=2, last_success=NOW + 1.0, last_failure=NOW + 2.0)
        self.assertEqual(self.totals.of("gh"), whole)
        self.start(self.server.store.beside())
        self.assertEqual(self.totals.of("gh"), whole)
        self.flush()
        self.assertEqual(self.totals.of("gh"), whole)

    def test_dead_from_the_start(self) -> None:
        """A filter that fails is a failure of its trigger."""
        new = new_delivery("e1", dead=dead_letter("no"), received_at=NOW)
        self.server.lifecycle.emit(Accepted.of([AcceptedDelivery("gh@v1", 1, new)]))
        self.assertEqual(self.totals.of("gh").last_failure, NOW)

    def test_trigger_that_came_back(self) -> None:
        """A trigger that comes back continues its series; nothing of either time is lost or doubled."""
        self.accept("gh")
        self.flush()
        self.accept("gh")
        self.server.metrics.remove(["gh"])
        self.accept("gh")
        self.flush()
        self.assertEqual((self.counted(), self.stored()), ((3, 0), {"gh": (3, 0)}))


class TroubleTests(TotalsCase):
    """The store cannot be read or written."""

    def test_full_disk(self) -> None:
        """Counts that cannot be written are shown, and written later."""
        self.accept("gh")
        self.server.store.fail_writes = True
        self.flush()
        self.assertEqual(self.counted(), (1, 0))
        self.server.store.fail_writes = False
        self.flush()
        self.assertEqual((self.counted(), self.stored()), ((1, 0), {"gh": (1, 0)}))

    def test_unreadable_at_the_start(self) -> None:
        """Totals that cannot be read at first are read later; until then nothing is added."""
        self.accept("gh")
        self.flush()
        store = self.server.store.beside()
        store.fail_reads = True
        self.start(store)
        self.accept("gh")
        self.assertEqual(self.counted(), (1, 0))
        self.flush()
        store.fail_reads = False
        self.flush()
        self.flush()
        self.assertEqual((self.counted(), self.stored()), ((2, 0), {"gh": (2, 0)}))

    def test_service(self) -> None:
        """The service adds every few seconds."""
        flusher = TotalsFlusher(self.clock, self.totals)
        flusher.startService()
        self.addCleanup(flusher.stopService)
        self.accept("gh")
        self.clock.advance(module.INTERVAL)
        self.assertEqual(self.stored(), {"gh": (1, 0)})
