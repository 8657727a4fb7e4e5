"""Values that cross the store's interfaces, beside those of `harn.model.delivery`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen


@frozen(kw_only=True)
class Record:
    """
    One record of a topic.

    :ivar number: rises within the topic; may have gaps.
    :ivar occurred_at: seconds, Unix.
    """

    number: int
    topic: str
    kind: str
    payload: dict[str, Any]
    headers: dict[str, str] = field(factory=dict)
    occurred_at: float


@frozen(kw_only=True)
class BindingRecord:
    """One definition of one trigger, as it was given a number. ``spec`` is the encoded trigger spec."""

    trigger_id: str
    version: int
    fingerprint: str
    generation: int
    bundle_id: str
    spec: bytes


@frozen(kw_only=True)
class GenerationRecord:
    """
    One generation as it was given its number.

    :ivar adopted_at: seconds, Unix; None while it is only reserved.
    :ivar bindings: the definitions that are new in it (unchanged ones keep the record they have).
    :ivar removed: ids of triggers that it no longer has.
    :ivar manifest_digest: names the manifest's text in the store; empty in records of before there were any.
    :ivar recalled: the earlier generation whose content this is, for one that was rolled back to.
    :ivar reason: why it was made, where somebody said.
    :ivar summary: what it changed, as a JSON value.
    """

    number: int
    digest: str
    bundle_id: str
    source: str
    actor: str
    adopted_at: float | None = None
    bindings: tuple[BindingRecord, ...] = ()
    removed: tuple[str, ...] = ()
    manifest_digest: str = ""
    recalled: int | None = None
    reason: str = ""
    summary: Mapping[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class LiveBinding:
    """The newest number ever given to a trigger, and its fingerprint then."""

    version: int
    fingerprint: str
    bundle_id: str


@frozen(kw_only=True)
class Backlog:
    """Unfinished deliveries of one binding version: ``ready`` to run, and ``waiting`` for a retry's time."""

    trigger_id: str
    version: int
    ready: int
    waiting: int


@frozen(kw_only=True)
class Recovery:
    """
    What a restart found: how many unfinished deliveries go on, and how many were given up at the limit.

    :ivar crashed: how many of both were running when their server crashed.
    :ivar backlog: those that go on, counted for each binding version.
    """

    recovered: int
    dead: int
    crashed: int = 0
    backlog: tuple[Backlog, ...] = ()


@frozen(kw_only=True)
class RetentionPolicy:
    """
    What the background trimming keeps.

    :ivar events: seconds that finished deliveries and log records are kept.
    :ivar dead: seconds that dead letters are kept.
    :ivar max_bytes: when the data is larger, the oldest finished deliveries go first; None for no limit.
    :ivar generations: how many adopted generations are kept with their content; ``kept``: numbers of further ones.
    :ivar versions: binding versions (trigger id, number) that are kept beside those.
    """

    events: float
    dead: float
    max_bytes: int | None = None
    generations: int = 20
    kept: tuple[int, ...] = ()
    versions: tuple[tuple[str, int], ...] = ()


@frozen(kw_only=True)
class RecentEvent:
    """
    A recorded event, and how its delivery was treated.

    :ivar treatment: ``handled`` (its handler was called), ``skipped`` (its predicate said no), ``filter_error``,
        or ``unknown`` while it has not come that far.
    """

    event_id: str
    trigger_id: str
    version: int
    kind: str
    received_at: float
    treatment: str
    envelope: bytes
    body: bytes


@frozen(kw_only=True)
class ServerRow:
    """One server's heartbeat row."""

    incarnation: int
    pid: int
    host: str
    started_at: float
    seen_at: float
