"""Drains in sight: what an operator is shown of them, and what asking to end one does."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import Deferred

from harn.errors import EventLogUnavailable, HandlerRetryAfter, RouteUnknown
from harn.operations.model import Caller, Operation, Role
from harn.reload.operations import (
    DrainCancelled,
    DrainMoved,
    DrainOf,
    DrainService,
    ListDrains,
    cancel_drain,
    list_drains,
    move_drain,
)
from tests.reload.case import GenerationCase
from tests.reload.fakes import START
from tests.reload.world import fake

FASTER = 'timeout = "5s"'
CALLER = Caller(actor="me", role=Role.ADMIN)
HEAD = '[orchestrator]\nallow_empty = true\nreload.drain_timeout = "10s"\n'
MOVED = DrainMoved(binding="a@v1", moved=2, to="a@v2")


class DrainOperationsTests(GenerationCase):
    """The operations on drains."""

    def begun(self, *triggers: str, count: int = 3) -> DrainService:
        """Accept deliveries of ``a@v1`` of which one runs, then have these triggers; what drains is 1.5 s old."""
        self.started(fake("a"), fake("b"), head=HEAD)
        world = self.world
        world.dispatcher.apply(1)
        for number in range(count):
            self.successResultOf(world.take("a", f"d{number}"))
            world.clock.advance(1.0)
        world.manifest(*triggers, head=HEAD)
        self.assertTrue(self.reloaded().ok)
        world.clock.advance(1.5)
        return self.service()

    def service(self) -> DrainService:
        """Make the service of the operations, of the present world."""
        world = self.world
        return DrainService(
            wall=world.clock,
            store=world.store.deliveries,
            registry=world.registry,
            dispatcher=world.dispatcher,
            drains=world.drains,
        )

    def listing(self, service: DrainService) -> Deferred[Any]:
        """Request the list."""
        running: Any = list_drains.run(service, CALLER, ListDrains())
        return Deferred.fromCoroutine(running)

    def shown(self, service: DrainService) -> list[dict[str, Any]]:
        """Return the description, as JSON."""
        found: list[dict[str, Any]] = msgspec.to_builtins(self.successResultOf(self.listing(service)))["drains"]
        return list(found)

    def act(self, operation: Operation[Any, Any, Any], service: DrainService) -> Deferred[Any]:
        """Request something to be done with ``a@v1``."""
        running: Any = operation.run(service, CALLER, DrainOf(binding="a@v1"))
        return Deferred.fromCoroutine(running)

    def test_nothing_drains(self) -> None:
        """There is nothing to show, and nothing to act on."""
        operations = self.begun(fake("a"), fake("b"), count=0)
        self.assertEqual(self.shown(operations), [])
        for operation in (cancel_drain, move_drain):
            error = self.failureResultOf(self.act(operation, operations), RouteUnknown).value
            self.assertEqual(str(error), "no version 'a@v1' drains; nothing drains now")

    def test_everything_that_is_shown(self) -> None:
        """Of each draining version."""
        operations = self.begun(fake("a", extra=FASTER), fake("b"))
        oldest = self.world.calls[0].call.event_id
        self.assertEqual(
            self.shown(operations),
            [
                {
                    "binding": "a@v1",
                    "trigger_id": "a",
                    "version": 1,
                    "generation": 1,
                    "draining_since": "2023-11-14T22:13:23.000Z",
                    "age_seconds": 1.5,
                    "deadline": "2023-11-14T22:13:33.000Z",
                    "in_flight": 3,
                    "running": 1,
                    "queued": 2,
                    "waiting": 0,
                    "moved": False,
                    "oldest_event": {"event_id": oldest, "received_at": "2023-11-14T22:13:20.000Z"},
                }
            ],
        )
        self.assertEqual(START, 1_700_000_000.0)  # which these times are of

    def test_requests_alone(self) -> None:
        """A version that only a request holds has nothing accepted to show."""
        self.started(fake("a"))
        binding = self.world.version("a")
        binding.lease()
        self.world.manifest(fake("a", extra=FASTER))
        self.reloaded()
        operations = self.service()
        (shown,) = self.shown(operations)
        self.assertEqual((shown["in_flight"], shown["queued"], shown["oldest_event"]), (1, 0, None))
        binding.release()
        self.assertEqual(self.shown(operations), [])

    def test_waiting_retries(self) -> None:
        """Those of a trigger that is gone are its last version's; of one that lives, none are."""
        for triggers, waiting in (((fake("b"),), 1), ((fake("a", extra=FASTER), fake("b")), 0)):
            self.setUp()
            self.started(fake("a"), fake("b"))
            for number in range(2):
                self.successResultOf(self.world.take("a", f"d{number}"))
            self.world.calls[0].raises(HandlerRetryAfter("later", 600.0))
            self.world.manifest(*triggers)
            self.reloaded()
            operations = self.service()
            (shown,) = self.shown(operations)
            self.assertEqual((shown["running"], shown["waiting"]), (1, waiting))

    def test_the_event_log_is_away(self) -> None:
        """A failure to read the store fails the operation."""
        operations = self.begun(fake("a", extra=FASTER), fake("b"))
        self.world.store.fail_reads = True
        self.failureResultOf(self.listing(operations), EventLogUnavailable)

    def test_what_ends_meanwhile(self) -> None:
        """A version that ends while the store is asked is no longer shown."""
        operations = self.begun(fake("a", extra=FASTER), fake("b"), count=1)
        read, self.world.store.deliveries.oldest = self.world.store.deliveries.oldest, self._ends_first
        self.read = read
        self.assertEqual(self.shown(operations), [])

    def _ends_first(self, versions: Any) -> Any:
        self.world.calls[0].returns()
        return self.read(versions)

    def test_the_event_log_is_asked_once(self) -> None:
        """However many versions drain, their oldest events are looked up together; when none does, nothing is."""
        self.started(*(fake(name) for name in "abc"))
        for name in "abc":
            self.successResultOf(self.world.take(name))
        world, asked = self.world, []
        read = world.store.deliveries.oldest
        self.patch(world.store.deliveries, "oldest", lambda versions: asked.append(len(versions)) or read(versions))
        operations = self.service()
        self.assertEqual(self.shown(operations), [])
        self.reloaded(*(fake(name, extra=FASTER) for name in "abc"))
        events = {running.call.event_id for running in world.calls}
        self.assertEqual({each["oldest_event"]["event_id"] for each in self.shown(operations)}, events)
        self.assertEqual(asked, [3])

    def test_move(self) -> None:
        """What was not begun goes to the live version at once; what runs, runs."""
        operations = self.begun(fake("a", extra=FASTER), fake("b"))
        self.assertEqual(self.successResultOf(self.act(move_drain, operations)), MOVED)
        (shown,) = self.shown(operations)
        self.assertEqual(
            (shown["moved"], shown["deadline"], shown["running"], shown["queued"], shown["in_flight"]),
            (True, None, 1, 0, 1),
        )
        self.assertEqual(self.successResultOf(self.act(move_drain, operations)).moved, 0)

    def test_move_of_a_trigger_that_is_gone(self) -> None:
        """There is no version to name, and all that was queued, in memory too, is a dead letter."""
        operations = self.begun(fake("b"))
        self.assertEqual(
            self.successResultOf(self.act(move_drain, operations)), msgspec.structs.replace(MOVED, to=None)
        )
        self.assertEqual(self.world.metrics.trigger("a", "fake").dead_reasons, {"binding_removed": 2})

    def test_move_before_another_reload(self) -> None:
        """What was aimed at the version that was live goes there, whatever is adopted before that is on disk."""
        operations = self.begun(fake("a", extra=FASTER), fake("b"))
        self.world.store.fail_writes = True
        moving = self.act(move_drain, operations)
        self.world.store.fail_writes = False
        self.reloaded(fake("a", extra='timeout = "6s"'), fake("b"), head=HEAD)
        self.world.clock.advance(1.0)
        self.assertEqual(self.successResultOf(moving), MOVED)

    def test_cancel(self) -> None:
        """All that it holds is given up, and it is gone."""
        operations = self.begun(fake("b"))
        cancelled = self.successResultOf(self.act(cancel_drain, operations))
        self.assertEqual(cancelled, DrainCancelled(binding="a@v1", cancelled=3))
        self.assertEqual((self.shown(operations), self.world.retired), ([], ["a@v1"]))
        self.failureResultOf(self.act(cancel_drain, operations), RouteUnknown)
