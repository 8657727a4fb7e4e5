"""Where each accepted delivery stands: values, the dead letters that the store makes itself, and the interface."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen
from zope.interface import Interface

from harn.model import delivery as model
from harn.model.delivery import BINDING_REMOVED, DeadLetter, Settlement, State, StoredDelivery

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred  # commands read these values, and start without Twisted

HANDLED = "handled"
SKIPPED = "skipped"
FILTER_ERROR = "filter_error"
UNKNOWN = "unknown"

REMOVED = DeadLetter(
    reason=BINDING_REMOVED,
    error_class=BINDING_REMOVED,
    error="its trigger was removed from the manifest before it was done",
)
"""The dead letter of a delivery whose trigger is gone."""


@frozen(kw_only=True)
class Backlog:
    """Unfinished deliveries of one binding version: ``ready`` to run, and ``waiting`` for a retry's time."""

    trigger_id: str
    version: int
    ready: int
    waiting: int


@frozen
class DueDelivery:
    """A delivery whose time had come, and which is ready now."""

    delivery_id: int
    trigger_id: str
    version: int


@frozen
class Unfinished:
    """The state of an unfinished delivery, and the version that its row names."""

    state: State
    version: int


@frozen
class GivenUp:
    """Counts of the deliveries of one provider that became dead letters: were ``ready`` to run, or ``waiting``."""

    provider: str
    ready: int
    waiting: int


@frozen(kw_only=True)
class RecentEvent:
    """
    A recorded event, and how its delivery ended.

    :ivar disposition: ``handled`` (its handler was called), ``skipped`` (its predicate said no), ``filter_error``,
        or ``unknown`` while it has not come that far.
    """

    event_id: str
    trigger_id: str
    version: int
    kind: str
    received_at: float
    disposition: str
    envelope: bytes
    body: bytes


def disposition(state: State, reason: str | None, passed: bool, last_outcome: str | None, succeeded: bool) -> str:
    """
    Return how an event was handled, from its delivery's row and attempts.

    :param state: the delivery's; ``reason``: why it is dead, if it is.
    :param passed: its predicate said yes.
    :param last_outcome: its last attempt's, if there was one; ``succeeded``: whether any attempt did.
    """
    if state == model.DEAD and reason == model.FILTER_ERROR:
        return FILTER_ERROR
    if state in (model.DONE, model.SKIPPED) and last_outcome == "skipped":
        return SKIPPED
    return HANDLED if passed or succeeded else UNKNOWN


class IDeliveries(Interface):
    """
    Where each accepted delivery stands.

    A delivery belongs to a server (``owner``) from its acceptance, or from the `IRecovery.recover` that took it over.
    `ready`, `due` and `next_due` are about this server's only, so that what an earlier one left is not run before that.
    """

    def settle(settlement: Settlement) -> Deferred[None]:
        """
        Record an attempt and the delivery's new state as one durable unit.

        :raises StoreError: there is no such delivery.
        """

    def ready(
        trigger_id: str, version: int, excluding: Collection[int], limit: int, max_bytes: int
    ) -> Deferred[Sequence[StoredDelivery]]:
        """
        Return deliveries of a binding version that are ready, by id, without those in ``excluding``; up to
        ``max_bytes`` of bodies, or one. Large bodies are left out.
        """

    def due(now: float, limit: int) -> Deferred[Sequence[DueDelivery]]:
        """Make waiting deliveries whose time has come ready, the longest due first; return which."""

    def next_due(after: float = 0.0) -> Deferred[float | None]:
        """Return when the earliest waiting delivery that is due later than ``after`` is due (seconds, Unix)."""

    def advance_due(seconds: float) -> Deferred[None]:
        """Make every waiting delivery of this server due so many seconds earlier: the wall clock was set back."""

    def find(event_id: str) -> Deferred[Sequence[StoredDelivery]]:
        """Return all deliveries of one event, by id."""

    def backlog() -> Deferred[Sequence[Backlog]]:
        """Count the unfinished deliveries of each binding version. Only for start-up: cost grows with the backlog."""

    def dead_letter(
        trigger_id: str,
        version: int | None,
        dead: DeadLetter,
        excluding: Collection[int],
        *,
        waiting: bool = True,
        tried: bool = True,
    ) -> Deferred[Sequence[GivenUp]]:
        """
        Make unfinished deliveries of a version, or with None of every version of the trigger, dead letters.

        :param excluding: ids that stay as they are: of those that memory has.
        :param waiting: those that wait for a retry, too; ``tried``: those that have used up an attempt, too.
        :return: how many that were, by provider.
        """

    def skip(delivery_id: int, reason: str) -> Deferred[Unfinished | None]:
        """
        End a delivery that is ready or waits as skipped, for one of `harn.model.delivery.SKIP_REASONS`.

        :return: its state and version before; None when it is not unfinished, or another server's.
        """

    def redrive(trigger_id: str, version: int, to_version: int, since: float) -> Deferred[int]:
        """
        Make the dead letters of a version ready again, for another version and with all of their attempts: those that
        used up their attempts (``retry_exhausted``) and died at ``since`` (seconds, Unix) or later. This server's.

        :return: the number of deliveries.
        """

    def oldest(versions: Collection[tuple[str, int]]) -> Deferred[Mapping[tuple[str, int], StoredDelivery]]:
        """Return for each version (trigger id, number) its oldest unfinished delivery, without its bytes."""

    def recent(trigger_ids: Collection[str], limit: int, depth: int) -> Deferred[Sequence[RecentEvent]]:
        """
        Return the newest ``limit`` events of each trigger, newest first, among the newest ``depth`` deliveries of all.
        """

    def begins(delivery_id: int) -> Deferred[None]:
        """
        Record that a delivery's handler is about to run; a note is kept until `ended`, or a crash of this process.

        :return: fires, always, when the note would outlive a crash of this process. It is not durable: a failure of the
            whole system may lose it.
        """

    def begins_at_once(delivery_id: int) -> None:
        """Record the same of a handler that does not wait for the note, which is written at the end of this turn."""

    def ended(delivery_id: int) -> None:
        """Remove the note of a delivery whose handler has ended."""

    def states(delivery_ids: Collection[int]) -> Deferred[Mapping[int, State]]:
        """Return the state of each of these deliveries that is this server's, or finished; others are left out."""
