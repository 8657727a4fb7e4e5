"""
What the rest of harn may ask of a store.

Every method may be called from the reactor thread and never blocks it. Every method that returns a Deferred may fail
with `harn.errors.EventLogUnavailable`: then nothing of the unit counts as written. "Durable" means on disk before the
Deferred fires. Units handed over in one reactor turn share one commit; a unit that fails fails alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from harn.model.delivery import Acceptance, DeadLetter, Settlement, StoredDelivery
from harn.store.model import (
    Backlog,
    GenerationRecord,
    LiveBinding,
    RecentEvent,
    Record,
    Recovery,
    RetentionPolicy,
)


class IInbox(Interface):
    """Accepts events, each at most once for a dedupe key."""

    def accept(acceptance: Acceptance) -> Deferred[tuple[int | None, ...]]:
        """
        Keep all deliveries with their claims and events in one durable unit.

        :return: for each delivery, in order, its id (rises with each commit), or None for a duplicate.
        :raises ClaimTaken: the acceptance's guard was taken before; nothing was kept.
        :raises EventLogUnavailable: nothing was kept, no claim is used up.
        """

    def claim(scope: str, key: str, expires_at: float) -> Deferred[bool]:
        """Take one claim durably; False when it is taken (and not expired) already."""


class IDeliveries(Interface):
    """
    Where each accepted delivery stands.

    A delivery is its server's (``owner``) from its acceptance, or from the `recover` that took it over. `ready`, `due`
    and `next_due` know this server's only, so that what an earlier one left is run by nobody before `recover`.
    """

    def settle(settlement: Settlement) -> Deferred[None]:
        """
        Record an attempt and the delivery's new state as one durable unit.

        :raises StoreError: there is no such delivery.
        """

    def ready(after: int, limit: int, max_bytes: int) -> Deferred[Sequence[StoredDelivery]]:
        """
        Deliveries in state ready with an id above ``after``, by id; up to ``max_bytes`` of bodies, or one. Large bodies
        are left out.
        """

    def due(now: float, limit: int, excluding: Collection[int]) -> Deferred[Sequence[StoredDelivery]]:
        """
        Deliveries in state waiting whose time has come, the longest due first, without those in ``excluding``. Large
        bodies are left out.
        """

    def next_due(after: float = 0.0) -> Deferred[float | None]:
        """When the earliest waiting delivery that is due later than ``after`` is due (seconds, Unix)."""

    def advance_due(seconds: float) -> Deferred[None]:
        """Make every waiting delivery of this server due so many seconds earlier: the wall clock was set back."""

    def find(event_id: str) -> Deferred[Sequence[StoredDelivery]]:
        """All deliveries of one event, by id."""

    def backlog() -> Deferred[Sequence[Backlog]]:
        """Count the unfinished deliveries of each binding version. Only for start-up: cost grows with the backlog."""

    def move(
        trigger_id: str, version: int, to_version: int | None, now: float, excluding: Collection[int]
    ) -> Deferred[int]:
        """
        Give a version's unfinished deliveries to another, or, with None, to the dead letters (``binding_removed``).

        :param excluding: ids that run now and stay as they are.
        :return: how many.
        """

    def bury(
        trigger_id: str, version: int, dead: DeadLetter, now: float, excluding: Collection[int], waiting: bool
    ) -> Deferred[int]:
        """
        Give up a version's unfinished deliveries: make them dead letters of this reason.

        :param excluding: ids that run now and stay as they are.
        :param waiting: those that wait for a retry, too.
        :return: how many.
        """

    def take_back(trigger_id: str, version: int, to_version: int, since: float) -> Deferred[int]:
        """
        Make the dead letters of a version ready again, for another version and with all of their attempts: those that
        used up their attempts (``retry_exhausted``) and died at ``since`` (seconds, Unix) or later. This server's.

        :return: how many.
        """

    def oldest(versions: Collection[tuple[str, int]]) -> Deferred[Mapping[tuple[str, int], StoredDelivery]]:
        """Of each version (trigger id, number) the unfinished delivery that was accepted first, without its bytes."""

    def recent(trigger_ids: Collection[str], limit: int, depth: int) -> Deferred[Sequence[RecentEvent]]:
        """
        The newest ``limit`` events of each trigger, newest first, among the newest ``depth`` deliveries of all.
        """

    def begins(delivery_id: int, waits: bool = True) -> Deferred[None]:
        """
        Note that a delivery's handler is about to run; a note is kept until `ended`, or a crash of this process.

        :param waits: whether the caller waits for the note; else the result has fired, and the note is written soon.
        :return: fires, always, when the note would outlive a crash of this process. It is not durable: a failure of the
            whole system may lose it.
        """

    def ended(delivery_id: int) -> None:
        """Drop the note: its handler runs no more."""

    def recover(
        now: float,
        limit: int,
        received_before: float | None = None,
        leaving: int | None = None,
        gone: int | None = None,
    ) -> Deferred[Recovery]:
        """
        Take over every unfinished delivery of servers that are gone, as one unit (``owner``).

        Those that ran when their server crashed count that (``crashes`` + 1), and become dead letters
        (``recovery_limit``) at ``limit``. A server is gone when its heartbeat has lapsed or was not renewed since this
        one started; `close` drops its notes, so that a clean end counts for nothing.

        :param received_before: only those received earlier (seconds, Unix); None for all.
        :param leaving: the incarnation of a server that still runs and ends its deliveries: not those.
        :param gone: that of a server whose process is known to have ended: those in any case.
        """

    def stranded(
        older_than: float, limit: int, leaving: int | None = None, gone: int | None = None
    ) -> Deferred[Sequence[StoredDelivery]]:
        """
        Unfinished deliveries of servers that are gone, which wait for a `recover`, by id; without their bytes.

        :param older_than: only those received earlier (seconds, Unix).
        :param leaving: see `recover`; so is ``gone``.
        """

    def count_stranded(older_than: float, leaving: int | None = None, gone: int | None = None) -> Deferred[int]:
        """Count what `stranded` would list without a limit. Cost grows with what is unfinished."""

    def states(delivery_ids: Collection[int]) -> Deferred[Mapping[int, str]]:
        """State of each of these deliveries that is this server's, or finished; those of others are left out."""


class IEventLog(Interface):
    """
    The append-only record, by topic.

    Topics of deliveries (``trigger.inbox.envelopes``, ``trigger.outbox``, ``trigger.attempts``, ``trigger.dlq``) are
    read-only views of the delivery tables.
    """

    def append(topic: str, kind: str, payload: Mapping[str, Any], headers: Mapping[str, str] = {}) -> Deferred[int]:
        """
        Append one record durably; give its number.

        :raises ValueError: at once: the topic is a view, or its name is not of letters, digits, ``.``, ``_``, ``-``.
        :raises TypeError: at once: the payload is no JSON.
        """

    def read(topic: str, after: int, limit: int) -> Deferred[Sequence[Record]]:
        """
        Records with a number above ``after``, by number. An unknown topic is empty.

        Fewer than ``limit`` where events are large; only an empty answer means that there are no more.
        """

    def latest(topic: str) -> Deferred[int]:
        """The number of the newest record, 0 for none."""

    def topics() -> Deferred[Sequence[str]]:
        """Names of all topics with at least one record."""


class IGenerations(Interface):
    """Numbers of generations and binding versions; they never go back, over any number of restarts."""

    def last() -> Deferred[GenerationRecord | None]:
        """The generation with the highest number, adopted or only reserved (without its bindings)."""

    def latest_bindings() -> Deferred[Mapping[str, LiveBinding]]:
        """
        For every trigger id ever seen: its highest version number.

        Those of a generation that was only reserved count: it may have served, and the note of that have failed.
        """

    def bindings(keys: Collection[tuple[str, int]]) -> Deferred[Sequence[Any]]:
        """The `harn.store.model.BindingRecord` of each (trigger id, version) that is known."""

    def reserve(generation: GenerationRecord, bundle: bytes | None, manifest: bytes | None = None) -> Deferred[None]:
        """
        Write numbers, fingerprints, the bundle and the manifest's text (each unless it is None: known already) in one
        durable unit. A generation of the same number that was only reserved is replaced, with the bindings it brought.

        :param manifest: the text, encoded as the caller likes; kept under the generation's ``manifest_digest``.
        :raises StoreError: the generation's number, or a binding version's, was adopted before; or the bundle, or the
            manifest that it names, is None and not known.
        """

    def adopted(number: int, at: float, standing: Mapping[str, Any] = {}) -> Deferred[None]:
        """
        Note that a reserved generation serves, and `keep` each of ``standing``, in one durable unit.

        :param at: seconds, Unix. If it was adopted before, that time stays: a restart goes on with a generation.
        :raises TypeError: at once: a value is no JSON.
        :raises StoreError: there is no such generation; nothing was kept.
        """

    def keep(name: str, value: Any) -> Deferred[None]:
        """
        Keep a JSON value under a name, over restarts, in place of what was kept there; None removes it.

        :raises TypeError: at once: the value is no JSON.
        """

    def kept(name: str) -> Deferred[Any]:
        """What is kept under a name, or None."""

    def generation(number: int) -> Deferred[GenerationRecord | None]:
        """One adopted generation (without bindings), or None."""

    def manifest(digest: str) -> Deferred[bytes | None]:
        """The manifest's text as it was handed over, or None."""

    def history(limit: int) -> Deferred[Sequence[GenerationRecord]]:
        """The newest adopted generations, newest first (without bindings)."""

    def bundle(bundle_id: str) -> Deferred[bytes | None]:
        """The encoded bundle, or None."""


class IStore(IInbox, IDeliveries, IEventLog, IGenerations):
    """One store: its parts, and its life cycle."""

    backend: str = Attribute("For example ``sqlite``: as the state file shows it.")
    location: str | None = Attribute("A path or URL without credentials, or None.")
    incarnation: int = Attribute("This server's row number; the ``owner`` of what it accepts. Set by `open`.")

    def available() -> bool:
        """
        False while the last write failed, and from `abandon` on; true again after one succeeded. Asking is free.
        """

    def open() -> Deferred[None]:
        """
        Open or create, check the schema, register this server.

        :raises StateDirectoryUnusable: with a message that says what to do.
        """

    def heartbeat(now: float) -> Deferred[None]:
        """Renew this server's row; also the cheap probe that ends a time of unavailability."""

    def abandon(reason: str) -> None:
        """Write nothing more until a restart, and log why, once: each later write fails with `EventLogGone`."""

    def trim(policy: RetentionPolicy, now: float, limit: int) -> Deferred[int]:
        """
        Remove up to ``limit`` rows that nobody keeps: old events, expired claims, old generations, and the bundles and
        manifests that no other names; count them. The newest adopted generation is always kept, and so is of each
        trigger the newest version, and the newest of a generation that was adopted.
        """

    def close() -> Deferred[None]:
        """Write what was handed over, then close. Idempotent."""
