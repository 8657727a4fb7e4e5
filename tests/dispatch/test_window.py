"""The window: bounded, in order, and never losing what the store holds."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from harn.dispatch.delivery import Delivery
from harn.dispatch.second_tries import SecondTries
from harn.dispatch.window import Window
from harn.model.delivery import DONE, Acceptance, NewDelivery, Settlement, StoredDelivery
from harn.testing.stores.pumped import PumpedStore
from harn.triggers.binding import BindingVersion
from tests.triggers.examples import version


class WindowTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = PumpedStore(self.clock)
        self.store.open()
        self.binding: BindingVersion = version(1)
        self.refills = 0
        self.window = self.make()

    def make(self, max_deliveries: int = 2, max_bytes: int = 1000) -> Window:
        """Make a window of this size."""
        tries = SecondTries(self.clock)
        return Window(self.clock, self.store.deliveries, self.admit, self.refilled, tries, max_deliveries, max_bytes)

    def admit(self, row: StoredDelivery) -> Delivery:
        """Take a row back, as the dispatcher does."""
        self.binding.stored -= 1
        return Delivery.stored(row, self.binding)

    def refilled(self) -> None:
        """Count."""
        self.refills += 1

    def accept(self, body: bytes = b"") -> Delivery:
        """Make a delivery durable, without telling the window."""
        new = NewDelivery(
            event_id="e", trigger_id="gh", version=1, provider="p", kind="k", envelope=b"", body=body, received_at=0.0
        )
        (delivery_id,) = self.successResultOf(self.store.inbox.accept(Acceptance(deliveries=(new,))))
        assert delivery_id is not None
        return Delivery.accepted(delivery_id, self.binding, new)

    def finish(self, delivery_id: int) -> None:
        """Settle a delivery, and let go of it."""
        settlement = Settlement(delivery_id=delivery_id, state=DONE, version=1, attempts=1)
        self.successResultOf(self.store.deliveries.settle(settlement))
        self.window.let_go(delivery_id)

    def empty(self) -> list[int]:
        """Take and finish deliveries until there is none; give their ids."""
        taken = []
        while (delivery := self.window.pop()) is not None:
            taken.append(delivery.delivery_id)
            self.finish(delivery.delivery_id)
        return taken

    def test_first_in_first_out(self) -> None:
        """What fits never touches the store."""
        self.store.reader.held = True
        for _ in range(2):
            self.window.offer(self.accept())
        self.assertEqual((self.empty(), self.binding.stored), ([1, 2], 0))
        self.assertEqual(len(self.store.reader.waiting), 0)

    def test_overflow_comes_back_in_order(self) -> None:
        """What does not fit is counted as stored, and follows by id; then memory is enough again."""
        for _ in range(7):
            self.window.offer(self.accept())
        self.assertEqual((len(self.window), self.binding.stored), (2, 5))
        self.assertEqual(self.empty(), [1, 2, 3, 4, 5, 6, 7])
        self.assertEqual(self.binding.stored, 0)
        self.window.offer(self.accept())
        self.assertEqual((len(self.window), self.binding.stored), (1, 0))

    def test_bytes_count_too(self) -> None:
        """Memory is full when its bytes are; one large delivery still comes through."""
        self.window = self.make(max_deliveries=100, max_bytes=10)
        for _ in range(4):
            self.window.offer(self.accept(b"x" * 30))
        self.assertEqual((len(self.window), self.binding.stored, self.window.room), (1, 3, 0))
        self.assertEqual(self.empty(), [1, 2, 3, 4])

    def test_offers_during_a_read_are_not_missed(self) -> None:
        """What is left to the store while it is read is read after; nothing twice."""
        for _ in range(3):
            self.window.offer(self.accept())
        self.store.reader.held = True
        taken = [self.window.pop() for _ in range(3)]
        self.window.offer(self.accept())
        self.store.reader.run()
        self.window.offer(self.accept())
        self.store.reader.deliver()
        self.store.reader.release()
        ids = [delivery.delivery_id for delivery in taken if delivery is not None]
        self.assertEqual(ids + self.empty(), [1, 2, 3, 4, 5])
        self.assertEqual(self.binding.stored, 0)

    def test_a_row_is_left_to_the_news_of_its_commit(self) -> None:
        """A read that sees a row before its commit was told leaves it; the offer then brings it, once."""
        for _ in range(3):
            self.window.offer(self.accept())
        late = self.accept()
        self.assertEqual((self.empty(), self.binding.stored), ([1, 2, 3], 0))
        self.window.offer(late)
        self.assertEqual((self.empty(), self.binding.stored), ([4], 0))

    def test_the_first_news_may_come_after_a_read_that_saw_it(self) -> None:
        """After a restart no commit was told yet; the row comes in by the read; its offer only settles the count."""
        self.window.start_over()
        early = self.accept()
        self.window.start_over()
        self.assertEqual((len(self.window), self.binding.stored), (1, -1))
        self.window.offer(early)
        self.assertEqual((self.empty(), self.binding.stored), ([1], 0))

    def test_starting_over_takes_nothing_twice(self) -> None:
        """Rows of any age come in; what is queued or runs is in hand and is left out."""
        older = [self.accept() for _ in range(2)]
        self.binding.stored += len(older)
        self.window.offer(self.accept())
        self.window.offer(self.accept())
        runs = self.window.pop()
        assert runs is not None
        self.window.start_over()
        self.assertEqual([*self.empty(), runs.delivery_id], [4, 1, 2, 3])
        self.assertEqual(self.binding.stored, 0)

    def test_what_ends_during_a_read_does_not_come_back(self) -> None:
        """A row that was read as ready, and settled before the answer came, is not run again."""
        self.window.offer(self.accept())
        self.store.reader.held = True
        runs = self.window.pop()
        assert runs is not None
        self.window.start_over()
        self.store.reader.run()
        self.finish(runs.delivery_id)
        self.store.reader.release()
        self.assertEqual(self.empty(), [])

    def test_starting_over_during_a_read(self) -> None:
        """The answer of a read from before is thrown away; the whole store is read."""
        older = self.accept()
        self.binding.stored += 1
        for _ in range(4):
            self.window.offer(self.accept())
        self.store.reader.held = True
        taken = [self.window.pop() for _ in range(2)]
        self.window.fill()
        self.window.start_over()
        self.store.reader.release()
        ids = [delivery.delivery_id for delivery in taken if delivery is not None]
        self.assertEqual((ids, self.empty()), ([2, 3], [older.delivery_id, 4, 5]))

    def test_reads_again_when_the_store_is_away(self) -> None:
        """A failed read costs a second, and no delivery."""
        for _ in range(3):
            self.window.offer(self.accept())
        self.store.fail_reads = True
        self.assertEqual(self.empty(), [1, 2])
        self.store.fail_reads = False
        self.clock.advance(1.0)
        self.assertEqual((self.empty(), self.refills), ([3], 1))

    def test_retries_go_in_whatever_the_room(self) -> None:
        """What must not be lost is taken over the limit; what was interrupted comes first."""
        for _ in range(3):
            self.window.push(self.accept())
        self.window.push_first(self.accept())
        self.assertEqual((self.window.room, self.empty()), (0, [4, 1, 2, 3]))

    def test_remove(self) -> None:
        """What is picked is taken out, and its bytes with it."""
        self.window = self.make(max_bytes=100)
        for body in (b"x" * 90, b"y" * 10):
            self.window.offer(self.accept(body))
        self.assertEqual(self.window.room, 0)
        removed = self.window.remove(lambda delivery: delivery.delivery_id == 1)
        self.assertEqual(([each.delivery_id for each in removed], len(self.window), self.window.room), ([1], 1, 1))

    def test_close(self) -> None:
        """A closed window reads no more."""
        for _ in range(3):
            self.window.offer(self.accept())
        self.window.close()
        self.assertEqual(self.empty(), [1, 2])
