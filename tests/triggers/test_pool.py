"""Things shared by key, and counted."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from harn.triggers.pool import KeyedPool


class TextPool(KeyedPool[str]):
    """Closes a text by a function of the test's."""

    def __init__(self, closed_by: Callable[[str], Deferred[object]]) -> None:
        super().__init__()
        self._closed_by = closed_by

    async def close(self, value: str) -> None:
        """See `KeyedPool.close`."""
        await self._closed_by(value)


class KeyedPoolTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.closed: list[str] = []
        self.closing: list[Deferred[object]] = []

    def close(self, thing: str) -> Deferred[object]:
        self.closed.append(thing)
        waiting: Deferred[object] = Deferred()
        self.closing.append(waiting)
        return waiting

    def test_closed_when_the_last_holder_lets_go(self) -> None:
        """Only the last release closes, and closes once."""
        pool = TextPool(self.close)
        first = pool.add("a", "thing")
        second = pool.acquire("a")
        assert second is not None
        self.assertEqual((first.holders, len(pool)), (2, 1))
        first.release()
        self.assertEqual(self.closed, [])
        second.release()
        self.assertEqual((self.closed, len(pool), list(pool)), (["thing"], 0, []))

    def test_unknown_key(self) -> None:
        """There is nothing to hold under a key that was never added."""
        self.assertIsNone(TextPool(self.close).acquire("a"))

    def test_a_thing_that_closes_is_found_no_more(self) -> None:
        """While one closes, its key is free: the next is another thing, which the first one's end leaves alone."""
        pool = TextPool(self.close)
        pool.add("a", "old").release()
        self.assertIsNone(pool.acquire("a"))
        new = pool.add("a", "new")
        self.closing[0].callback(None)
        self.assertIs(pool.acquire("a"), new)
        self.assertEqual(self.closed, ["old"])

    def test_from_a_to_b_and_back(self) -> None:
        """A is found again as long as something holds it, and the same thing then serves both."""
        pool = TextPool(self.close)
        a = pool.add("a", "A")
        b = pool.add("b", "B")
        draining = a.retain()
        a.release()
        again = pool.acquire("a")
        assert again is not None
        b.release()
        draining.release()
        self.assertEqual((again.value, again.holders, self.closed), ("A", 1, ["B"]))

    def test_a_replaced_thing_keeps_its_holders(self) -> None:
        """A second thing under one key hides the first; each closes when its own holders are gone."""
        pool = TextPool(self.close)
        first = pool.add("a", "first")
        second = pool.add("a", "second")
        first.release()
        self.assertIs(pool.acquire("a"), second)
        self.assertEqual(self.closed, ["first"])

    def test_the_older_thing_is_found_again(self) -> None:
        """When a second thing of a key goes first, as that of a failed candidate does, the first serves as before."""
        pool = TextPool(self.close)
        first = pool.add("a", "first")
        pool.add("a", "second").release()
        self.assertEqual((pool.acquire("a"), len(pool), self.closed), (first, 1, ["second"]))

    def test_withdraw(self) -> None:
        """A withdrawn entry is acquired by no other holder, keeps its holders, and closes with the last of them."""
        pool = TextPool(self.close)
        held = pool.add("a", "A").retain()
        held.withdraw()
        held.withdraw()
        self.assertEqual((pool.acquire("a"), len(pool), self.closed), (None, 0, []))
        held.release()
        held.release()
        self.assertEqual(self.closed, ["A"])

    def test_idle_waits_for_what_closes(self) -> None:
        """It fires when everything released so far is closed, and does not wait for what comes later."""
        pool = TextPool(self.close)
        self.successResultOf(pool.idle())
        pool.add("a", "a").release()
        pool.add("b", "b").release()
        idle = pool.idle()
        pool.add("c", "c").release()
        self.closing[0].callback(None)
        self.assertNoResult(idle)
        self.closing[1].callback(None)
        self.successResultOf(idle)
        self.assertNoResult(pool.idle())
        self.closing[2].callback(None)
        self.successResultOf(pool.idle())

    def test_a_close_that_fails_is_logged(self) -> None:
        """Whether closing raises or its Deferred fails, the holder that released is not affected."""

        def raising(thing: str) -> Deferred[object]:
            raise RuntimeError(thing)

        for close in (raising, lambda thing: fail(RuntimeError(thing))):
            pool = TextPool(close)
            pool.add("a", "bad").release()
            self.successResultOf(pool.idle())
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_close_at_once(self) -> None:
        """A thing that closes at once leaves nothing to wait for."""
        pool = TextPool(lambda thing: succeed(None))
        pool.add("a", "a").release()
        self.successResultOf(pool.idle())
