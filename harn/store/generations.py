"""
Generations and binding versions, from which a restart continues: their numbers, manifests and bundles; and checkpoints,
which are small JSON values by name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from msgspec import Struct, field
from zope.interface import Interface

from harn.errors import StoreError
from harn.store.changes import GENERATIONS
from harn.store.checkpoints import StandingStatements, encode_checkpoints
from harn.store.database import Connection, Session
from harn.store.executor import Idea, reads, writes

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from harn.store.retention import RetentionPolicy


class BindingRecord(Struct, frozen=True, kw_only=True):
    """One definition of one trigger, as it was given a number. ``spec`` is the encoded trigger spec."""

    trigger_id: str
    version: int
    fingerprint: str
    generation: int
    bundle_id: str
    spec: bytes


class GenerationRecord(Struct, frozen=True, kw_only=True):
    """
    One generation as it was given its number.

    :ivar adopted_at: seconds, Unix; None while it is only reserved.
    :ivar bindings: the definitions that are new in it (unchanged ones keep the record they have).
    :ivar removed: ids of triggers that it no longer has.
    :ivar manifest_digest: names the manifest's text in the store; empty in records from before there were any.
    :ivar recalled: the earlier generation whose content this is, for one that was rolled back to.
    :ivar reason: why it was made, if the caller said so.
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
    summary: Mapping[str, Any] = field(default_factory=dict)


class LiveBinding(Struct, frozen=True, kw_only=True):
    """The newest number ever given to a trigger, and its fingerprint then."""

    version: int
    fingerprint: str
    bundle_id: str


class IGenerations(Interface):
    """Numbers of generations and binding versions; they never go back, over any number of restarts."""

    def last() -> Deferred[GenerationRecord | None]:
        """Return the generation with the highest number, adopted or only reserved (without its bindings)."""

    def latest_bindings() -> Deferred[Mapping[str, LiveBinding]]:
        """
        Return the highest version number of every trigger id ever seen.

        Those of a generation that was only reserved count: it may have served, and the note of that have failed.
        """

    def bindings_at(number: int) -> Deferred[Mapping[str, LiveBinding]]:
        """
        Return the highest version number of every trigger id as of one generation, whether that was adopted or not.

        Of those before it, those that were only reserved do not count, nor does any after it.
        """

    def bindings(keys: Collection[tuple[str, int]]) -> Deferred[Sequence[BindingRecord]]:
        """Return the record of each (trigger id, version) that exists."""

    def reserve(generation: GenerationRecord, bundle: bytes | None, manifest: bytes | None = None) -> Deferred[None]:
        """
        Write numbers, fingerprints, the bundle and the manifest's text (each unless it is None: known already) in one
        durable unit. A generation of the same number that was only reserved is replaced, with the bindings it brought.

        :param manifest: the text, encoded as the caller likes; kept under the generation's ``manifest_digest``.
        :raises StoreError: the generation's number, or a binding version's, was adopted before; or the bundle, or the
            manifest that it names, is None and not known.
        """

    def adopted(number: int, at: float, checkpoints: Mapping[str, Any] = {}) -> Deferred[None]:
        """
        Record that a reserved generation serves, and put each of ``checkpoints``, in one durable unit.

        :param at: seconds, Unix. If it was adopted before, that time stays: a restart continues with a generation.
        :raises TypeError: immediately: a value has no form in JSON.
        :raises StoreError: there is no such generation; nothing was put.
        """

    def generation(number: int) -> Deferred[GenerationRecord | None]:
        """Return one adopted generation (without bindings), or None."""

    def manifest(digest: str) -> Deferred[bytes | None]:
        """Return the manifest's text as it was stored, or None."""

    def history(limit: int) -> Deferred[Sequence[GenerationRecord]]:
        """Return the newest adopted generations, newest first (without bindings)."""

    def bundle(bundle_id: str) -> Deferred[bytes | None]:
        """Return the encoded bundle, or None."""


GENERATION_COLUMNS = (
    "number, digest, bundle_id, source, actor, adopted_at, removed, manifest_digest, recalled, reason, summary"
)
"""What `generation_of` reads, in its order, and `generation_row` writes."""


def generation_row(generation: GenerationRecord) -> tuple[Any, ...]:
    """Return the columns of a generation, in order."""
    return (
        generation.number,
        generation.digest,
        generation.bundle_id,
        generation.source,
        generation.actor,
        generation.adopted_at,
        msgspec.json.encode(generation.removed),
        generation.manifest_digest,
        generation.recalled,
        generation.reason,
        msgspec.json.encode(generation.summary),
    )


def generation_of(row: Sequence[Any]) -> GenerationRecord:
    """Read a generation, without its bindings."""
    number, digest, bundle_id, source, actor, adopted_at, removed, manifest_digest, recalled, reason, summary = row
    return GenerationRecord(
        number=number,
        digest=digest,
        bundle_id=bundle_id,
        source=source,
        actor=actor,
        adopted_at=adopted_at,
        removed=msgspec.json.decode(removed, type=tuple[str, ...]),
        manifest_digest=manifest_digest,
        recalled=recalled,
        reason=reason,
        summary=msgspec.json.decode(summary, type=dict[str, Any]),
    )


def binding_of(row: Sequence[Any]) -> BindingRecord:
    """Read a definition of a trigger: the columns of a `BindingRecord`, in order."""
    return BindingRecord(
        trigger_id=row[0], version=row[1], fingerprint=row[2], generation=row[3], bundle_id=row[4], spec=row[5]
    )


def _live_bindings(rows: Iterable[Sequence[Any]]) -> dict[str, LiveBinding]:
    return {
        trigger_id: LiveBinding(version=version, fingerprint=fingerprint, bundle_id=bundle_id)
        for trigger_id, version, fingerprint, bundle_id in rows
    }


class GenerationStatements(Struct, frozen=True, kw_only=True):
    """
    The statements of a dialect; the values of each are given here.

    :ivar last: none; as `generation_of` reads it.
    :ivar generation: number.
    :ivar history: limit.
    :ivar latest_bindings: none: trigger, version, fingerprint, bundle.
    :ivar bindings_at: number; the same columns.
    :ivar bindings: `Arrays.pairs`; as `binding_of`.
    :ivar manifest: digest.
    :ivar has_manifest: the same.
    :ivar bundle: bundle id.
    :ivar has_bundle: the same.
    :ivar adopted_at: number.
    :ivar unreserve: two statements, number.
    :ivar insert: `generation_row`.
    :ivar insert_bindings: rows of `BindingRecord`, its fields in order.
    :ivar adopt: at (seconds, Unix), number.
    :ivar insert_bundle: bundle id, data.
    :ivar insert_manifest: digest, data.
    :ivar floor: how many are kept.
    :ivar old_versions: floor, further numbers, limit, `Arrays.pairs`.
    :ivar old: the other tables: floor, further numbers, limit.
    """

    last: str
    generation: str
    history: str
    latest_bindings: str
    bindings_at: str
    bindings: str
    manifest: str
    has_manifest: str
    bundle: str
    has_bundle: str
    adopted_at: str
    unreserve: tuple[str, ...]
    insert: str
    insert_bindings: str
    adopt: str
    insert_bundle: str
    insert_manifest: str
    floor: str
    old_versions: str
    old: tuple[str, ...]

    def trim(self, session: Session, policy: RetentionPolicy, limit: int) -> int:
        """Delete up to ``limit`` rows that no kept generation needs; return how many. Looks at every version."""
        execute, arrays = session.connection.execute, session.arrays
        # The newest that was adopted is the live one, or the last good one: it stays whatever the policy says.
        (floor,) = execute(self.floor, (max(1, policy.generations),)).fetchone()
        if floor is None:
            return 0
        further = arrays.of(policy.kept)
        removed = execute(self.old_versions, (floor, further, limit, *arrays.pairs(policy.versions))).rowcount
        for statement in self.old:
            if removed < limit:
                removed += execute(statement, (floor, further, limit - removed)).rowcount
        return removed


class GenerationsHalf(Idea):
    """`IGenerations` with the statements of ``sql``; checkpoints are put with those of ``standing``."""

    sql: ClassVar[GenerationStatements]
    standing: ClassVar[StandingStatements]

    @reads
    def last(self, connection: Connection) -> GenerationRecord | None:
        """See `IGenerations.last`."""
        return next(map(generation_of, connection.execute(self.sql.last)), None)

    @reads
    def latest_bindings(self, connection: Connection) -> Mapping[str, LiveBinding]:
        """See `IGenerations.latest_bindings`."""
        return _live_bindings(connection.execute(self.sql.latest_bindings))

    @reads
    def bindings_at(self, connection: Connection, number: int) -> Mapping[str, LiveBinding]:
        """See `IGenerations.bindings_at`."""
        return _live_bindings(connection.execute(self.sql.bindings_at, (number,)))

    @reads
    def bindings(self, connection: Connection, keys: Collection[tuple[str, int]]) -> Sequence[BindingRecord]:
        """See `IGenerations.bindings`."""
        return list(map(binding_of, connection.execute(self.sql.bindings, self._executor.arrays.pairs(keys))))

    @writes
    def reserve(
        self, session: Session, generation: GenerationRecord, bundle: bytes | None, manifest: bytes | None = None
    ) -> None:
        """See `IGenerations.reserve`."""
        execute, number = session.connection.execute, generation.number
        found = execute(self.sql.adopted_at, (number,)).fetchone()
        if found is not None:
            if found[0] is not None:
                raise StoreError(f"generation {number} was adopted before; its number is not given again")
            for statement in self.sql.unreserve:
                execute(statement, (number,))
        execute(self.sql.insert, generation_row(generation))
        rows = [
            (row.trigger_id, row.version, row.fingerprint, row.generation, row.bundle_id, row.spec)
            for row in generation.bindings
        ]
        if session.write_rows(self.sql.insert_bindings, rows) != len(rows):
            raise StoreError(f"generation {number} brings a binding version whose number was given before")
        self._put_content(session.connection, generation, bundle, manifest)

    def _put_content(
        self, connection: Connection, generation: GenerationRecord, bundle: bytes | None, manifest: bytes | None
    ) -> None:
        """
        Keep the bundle and the manifest of a generation.

        :raises StoreError: one was not handed over, and is not there; or the manifest has no digest.
        """
        bundle_id, digest = generation.bundle_id, generation.manifest_digest
        if bundle is not None:
            connection.execute(self.sql.insert_bundle, (bundle_id, bundle))
        elif connection.execute(self.sql.has_bundle, (bundle_id,)).fetchone() is None:
            raise StoreError(f"bundle {bundle_id} is not in the store, and was not handed over")
        if manifest is not None:
            if not digest:
                raise StoreError(f"generation {generation.number} has a manifest, but no digest to keep it under")
            connection.execute(self.sql.insert_manifest, (digest, manifest))
        elif digest and connection.execute(self.sql.has_manifest, (digest,)).fetchone() is None:
            raise StoreError(f"manifest {digest} is not in the store, and was not handed over")

    def adopted(self, number: int, at: float, checkpoints: Mapping[str, Any] = {}) -> Deferred[None]:
        """See `IGenerations.adopted`; the values are encoded immediately."""
        return self._adopted(number, at, encode_checkpoints(checkpoints))

    @writes
    def _adopted(self, session: Session, number: int, at: float, encoded: Mapping[str, bytes | None]) -> None:
        if not session.connection.execute(self.sql.adopt, (float(at), number)).rowcount:
            raise StoreError(f"generation {number} was never reserved")
        self.standing.put_all(session, encoded)
        session.notify(GENERATIONS)

    @reads
    def generation(self, connection: Connection, number: int) -> GenerationRecord | None:
        """See `IGenerations.generation`."""
        return next(map(generation_of, connection.execute(self.sql.generation, (number,))), None)

    @reads
    def manifest(self, connection: Connection, digest: str) -> bytes | None:
        """See `IGenerations.manifest`."""
        row = connection.execute(self.sql.manifest, (digest,)).fetchone()
        return None if row is None else bytes(row[0])

    @reads
    def history(self, connection: Connection, limit: int) -> Sequence[GenerationRecord]:
        """See `IGenerations.history`."""
        return list(map(generation_of, connection.execute(self.sql.history, (limit,))))

    @reads
    def bundle(self, connection: Connection, bundle_id: str) -> bytes | None:
        """See `IGenerations.bundle`."""
        row = connection.execute(self.sql.bundle, (bundle_id,)).fetchone()
        return None if row is None else bytes(row[0])
