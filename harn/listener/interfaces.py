"""What the listener asks of the layer above, which puts the server together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from harn.store.model import Record


@frozen(kw_only=True)
class RecordPage:
    """
    A piece of a topic.

    :ivar latest: the number of the topic's newest record, 0 for none.
    """

    topic: str
    records: Sequence[Record]
    latest: int


class IOperations(Interface):
    """
    What an operator may ask of a running server, beside a reload.

    Each method gives a JSON value. Each may fail with `RouteUnknown` (404: no such trigger, event or letter),
    `PayloadInvalid` (400), `ShuttingDown` or `EventLogUnavailable` (503). ``actor`` is the credential that asked.
    """

    def generations() -> Deferred[Sequence[Mapping[str, Any]]]:
        """The generations that served, newest first."""

    def bindings() -> Deferred[Sequence[Mapping[str, Any]]]:
        """Every live or draining binding version, with its state, counts and leases."""

    def events(topic: str, after: int, limit: int) -> Deferred[RecordPage]:
        """
        Up to ``limit`` records of a topic with a number above ``after``.

        :raises RouteUnknown: there is no such topic, and none of ours is called so.
        """

    def inspect() -> Deferred[Mapping[str, Any]]:
        """All that ``harn orchestrator inspect`` shows."""

    def fire(trigger_id: str, payload: Any, actor: str) -> Deferred[Mapping[str, Any]]:
        """Make up an event for a trigger and accept it; ``payload`` (JSON, or None) is its body."""

    def recover(older_than: float, dry_run: bool, actor: str) -> Deferred[Mapping[str, Any]]:
        """Go on with stranded deliveries that are older than so many seconds; or only list them."""
