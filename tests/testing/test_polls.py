"""``run_poll``: one call of a poll's function, read as a server reads it."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from harn.handlers import Context
from harn.testing.polls import run_poll


async def find_orders(cursor: Any, context: Context) -> dict[str, Any]:
    """Find the orders after a number."""
    context.log.info("looking", after=cursor)
    await context.secret("shop/token")
    found = [{"payload": {"id": n}, "kind": "order.created"} for n in range((cursor or 0) + 1, 4)]
    return {"events": found[:2], "cursor": min((cursor or 0) + 2, 3), "more": len(found) > 2}


class RunPollTests(SynchronousTestCase):
    """The answer."""

    def test_events_and_cursor(self) -> None:
        """Events are as a handler gets them, the cursor is for the next call, and the log is kept."""
        found = run_poll(find_orders, secrets={"shop/token": "t"}, trigger_id="orders")
        self.assertEqual((found.run.outcome, found.cursor, found.more), ("success", 2, True))
        self.assertEqual([event.provider_payload["raw"] for event in found.events], [{"id": 1}, {"id": 2}])
        self.assertEqual([(event.provider, event.kind) for event in found.events], [("poll", "order.created")] * 2)
        self.assertTrue(found.events[0].dedupe_key.startswith("poll:orders:"))
        self.assertEqual(found.run.log[0].fields, {"after": None})
        again = run_poll(find_orders, found.cursor, secrets={"shop/token": "t"})
        self.assertEqual(([event.provider_payload["raw"] for event in again.events], again.cursor), ([{"id": 3}], 3))

    def test_none_is_no_news(self) -> None:
        """Without an answer there are no events, and the cursor stays."""
        found = run_poll(lambda cursor: None, {"page": 2})
        self.assertEqual((found.run.outcome, found.events, found.cursor), ("success", (), {"page": 2}))

    def test_failures(self) -> None:
        """What it raises, and an answer that a server refuses, is a failure: nothing is found, and the cursor stays."""
        raised = run_poll(find_orders, 1)
        self.assertEqual((raised.run.outcome, raised.events, raised.cursor), ("failed", (), 1))
        self.assertIn("shop/token", raised.run.error or "")
        refused = run_poll(lambda cursor: {"events": [{"id": 1}], "cursor": 2}, 1)
        self.assertEqual((refused.run.outcome, refused.run.error_class), ("failed", "PayloadInvalid"))
        self.assertEqual((refused.events, refused.cursor), ((), 1))
        self.assertIn("it must return", refused.run.error or "")
