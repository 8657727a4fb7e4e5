"""What the listener asks of the layer above, which puts the server together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from zope.interface import Interface

from harn.store.event_log import Record


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
    `PayloadInvalid` (400), `ShuttingDown` or `EventLogUnavailable` (503). Who asked for what, the listener records.
    """

    def generations(limit: int) -> Deferred[Sequence[Mapping[str, Any]]]:
        """The last ``limit`` generations that served, newest first; see `harn.history.recorded`."""

    def bindings() -> Deferred[Sequence[Mapping[str, Any]]]:
        """Every live or draining binding version, with its state, counts and leases."""

    def events(topic: str, after: int, limit: int) -> Deferred[RecordPage]:
        """
        Up to ``limit`` records of a topic with a number above ``after``.

        :raises RouteUnknown: there is no such topic, and none of ours is called so.
        """

    def inspect() -> Deferred[Mapping[str, Any]]:
        """All that ``harn orchestrator inspect`` shows."""

    def fire(trigger_id: str, payload: Any) -> Deferred[Mapping[str, Any]]:
        """Make up an event for a trigger and accept it; ``payload`` (JSON, or None) is its body."""

    def recover(older_than: float, dry_run: bool) -> Deferred[Mapping[str, Any]]:
        """Go on with stranded deliveries that are older than so many seconds; or only list them."""


class IReloadOperations(Interface):
    """
    What an operator may ask about generations, beside adopting one.

    Each method gives a JSON value. Each may fail as those of `IOperations` do; those that act fail with
    `NothingPending` (409) when there is nothing to act on. ``actor`` is the credential that asked.
    """

    def show(number: int, sources: bool) -> Deferred[Mapping[str, Any]]:
        """
        One generation with its manifest's text and its modules: ``{generation digest manifest_digest source actor
        adopted_at live recalled reason summary manifest modules: [{name path digest, source}]}``.

        :param sources: each module's text, too.
        :raises RouteUnknown: its content is not kept.
        """

    def diff(old: int, new: int) -> Deferred[Mapping[str, Any]]:
        """
        What differs between two generations; see `harn.history.differences`.

        :raises RouteUnknown: the content of one is not kept.
        """
