"""Units: what is written whole or not at all, each with the Deferred of who asked for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from harn.model.delivery import Acceptance, Settlement

if TYPE_CHECKING:
    from harn.store.sqlite.session import Session


class Unit:
    """
    One unit. The writer's thread sets ``value``, or ``error`` if this unit alone failed; the Deferred fires later.

    Plain slots, not a frozen value: thousands are made each second, and what they come to is filled in.

    :ivar size: bytes that it brings, as far as they count.
    """

    __slots__ = ("deferred", "error", "value")
    size = 0

    def __init__(self) -> None:
        self.deferred: Deferred[Any] = Deferred()
        self.value: Any = None
        self.error: Exception | None = None


class Accept(Unit):
    """Keep deliveries with their claims; ``size``: bytes of their bodies."""

    __slots__ = ("acceptance", "size")

    def __init__(self, acceptance: Acceptance) -> None:
        super().__init__()
        self.acceptance = acceptance
        self.size = 0
        for delivery in acceptance.deliveries:
            self.size += len(delivery.body)


class Settle(Unit):
    """Record where a delivery stands; ``at`` (seconds, Unix) is when, if no attempt says so; ``size``: its result's."""

    __slots__ = ("at", "settlement", "size")

    def __init__(self, settlement: Settlement, at: float) -> None:
        super().__init__()
        self.settlement = settlement
        self.at = at
        self.size = 0 if settlement.result is None else len(settlement.result)


class Append(Unit):
    """Append a record; payload and headers are encoded already, ``at`` is seconds, Unix."""

    __slots__ = ("at", "headers", "kind", "payload", "topic")

    def __init__(self, topic: str, kind: str, payload: bytes, headers: bytes, at: float) -> None:
        super().__init__()
        self.topic = topic
        self.kind = kind
        self.payload = payload
        self.headers = headers
        self.at = at


class Call(Unit):
    """Anything else, that is not done thousands of times a second: ``work`` is run within the transaction."""

    __slots__ = ("work",)

    def __init__(self, work: Callable[[Session], Any]) -> None:
        super().__init__()
        self.work = work
