"""Generations, binding versions, bundles and manifests; and checkpoints, in the table ``standing``."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from zope.interface import implementer

from harn.errors import StoreError
from harn.store.executor import reads, writes
from harn.store.generations import BindingRecord, GenerationRecord, ICheckpoints, IGenerations, LiveBinding
from harn.store.halves import CheckpointsHalf, GenerationsHalf
from harn.store.postgres.connection import PostgresConnection, PostgresSession
from harn.store.rows import binding_of, generation_of, generation_row

if TYPE_CHECKING:
    from harn.store.retention import RetentionPolicy

TABLES = """
CREATE TABLE generations (
    number bigint PRIMARY KEY,
    digest text NOT NULL,
    bundle_id text NOT NULL,
    source text NOT NULL,
    actor text NOT NULL,
    adopted_at double precision,
    removed bytea NOT NULL,
    manifest_digest text NOT NULL,
    recalled bigint,
    reason text NOT NULL,
    summary bytea NOT NULL
);

CREATE TABLE binding_versions (
    trigger_id text NOT NULL,
    version integer NOT NULL,
    fingerprint text NOT NULL,
    generation bigint NOT NULL,
    bundle_id text NOT NULL,
    spec bytea NOT NULL,
    PRIMARY KEY (trigger_id, version)
);
CREATE INDEX binding_versions_generation ON binding_versions (generation);

CREATE TABLE bundles (bundle_id text PRIMARY KEY, data bytea NOT NULL);

CREATE TABLE manifests (digest text PRIMARY KEY, data bytea NOT NULL);

-- Values by name, as JSON, that outlive a restart. In the order of bytes, so that a prefix is a range.
CREATE TABLE standing (name text COLLATE "C" PRIMARY KEY, value bytea NOT NULL);
"""

_COLUMNS = "number, digest, bundle_id, source, actor, adopted_at, removed, manifest_digest, recalled, reason, summary"
_LAST = "SELECT " + _COLUMNS + " FROM generations ORDER BY number DESC LIMIT 1"
_HISTORY = "SELECT " + _COLUMNS + " FROM generations WHERE adopted_at IS NOT NULL ORDER BY number DESC LIMIT $1::bigint"
_GENERATION = "SELECT " + _COLUMNS + " FROM generations WHERE number = $1::bigint AND adopted_at IS NOT NULL"
_LATEST_BINDINGS = (
    "SELECT DISTINCT ON (trigger_id) trigger_id, version, fingerprint, bundle_id FROM binding_versions"
    " ORDER BY trigger_id, version DESC"
)
_BINDINGS = (
    "SELECT b.trigger_id, b.version, b.fingerprint, b.generation, b.bundle_id, b.spec"
    " FROM unnest($1::text[], $2::integer[]) WITH ORDINALITY AS wanted (trigger_id, version, place)"
    " JOIN binding_versions b ON b.trigger_id = wanted.trigger_id AND b.version = wanted.version ORDER BY place"
)
_MANIFEST = "SELECT data FROM manifests WHERE digest = $1::text"
_BUNDLE = "SELECT data FROM bundles WHERE bundle_id = $1::text"
_ADOPTED_AT = "SELECT adopted_at FROM generations WHERE number = $1::bigint"
_UNRESERVE = "DELETE FROM generations WHERE number = $1::bigint AND adopted_at IS NULL"
_UNRESERVE_BINDINGS = "DELETE FROM binding_versions WHERE generation = $1::bigint"
_INSERT_GENERATION = (
    "INSERT INTO generations (" + _COLUMNS + ") VALUES ($1::bigint, $2::text, $3::text, $4::text, $5::text,"
    " $6::float8, $7::bytea, $8::text, $9::bigint, $10::text, $11::bytea)"
)
_INSERT_BINDINGS = (
    "INSERT INTO binding_versions (trigger_id, version, fingerprint, generation, bundle_id, spec)"
    " SELECT * FROM unnest($1::text[], $2::integer[], $3::text[], $4::bigint[], $5::text[], $6::bytea[])"
    " ON CONFLICT (trigger_id, version) DO UPDATE SET fingerprint = excluded.fingerprint,"
    " generation = excluded.generation, bundle_id = excluded.bundle_id, spec = excluded.spec"
    " WHERE (SELECT adopted_at FROM generations WHERE number = binding_versions.generation) IS NULL"
)
# A restart that goes on with a generation does not adopt it again: its history says since when it has been served.
_ADOPT = "UPDATE generations SET adopted_at = coalesce(adopted_at, $1::float8) WHERE number = $2::bigint"
_INSERT_BUNDLE = "INSERT INTO bundles (bundle_id, data) VALUES ($1::text, $2::bytea) ON CONFLICT DO NOTHING"
_INSERT_MANIFEST = "INSERT INTO manifests (digest, data) VALUES ($1::text, $2::bytea) ON CONFLICT DO NOTHING"

_FLOOR = (
    "SELECT min(number) FROM"
    " (SELECT number FROM generations WHERE adopted_at IS NOT NULL ORDER BY number DESC LIMIT $1::bigint) AS newest"
)
# Kept: a trigger's newest version (numbers never go back) and the newest that is known to have served, what an
# unfinished delivery names, and what the policy does.
_OLD_VERSIONS = (
    "DELETE FROM binding_versions WHERE ctid = ANY (ARRAY("
    "SELECT b.ctid FROM binding_versions b WHERE b.generation < $1::bigint AND b.generation <> ALL ($2::bigint[])"
    " AND EXISTS (SELECT 1 FROM binding_versions n WHERE n.trigger_id = b.trigger_id AND n.version > b.version"
    " AND n.generation NOT IN (SELECT number FROM generations WHERE adopted_at IS NULL))"
    " AND NOT EXISTS (SELECT 1 FROM deliveries d"
    " WHERE d.state < 2 AND d.trigger_id = b.trigger_id AND d.version = b.version)"
    " AND NOT EXISTS (SELECT 1 FROM unnest($4::text[], $5::integer[]) AS kept (trigger_id, version)"
    " WHERE kept.trigger_id = b.trigger_id AND kept.version = b.version)"
    " ORDER BY b.generation, b.trigger_id, b.version LIMIT $3::bigint))"
)
_KEPT = "number >= $1::bigint OR number = ANY ($2::bigint[])"
_OLD_GENERATIONS = (
    "DELETE FROM generations WHERE number IN (SELECT number FROM generations WHERE NOT (" + _KEPT + ")"
    " ORDER BY number LIMIT $3::bigint)"
)
_UNNAMED_BUNDLES = (
    "DELETE FROM bundles WHERE bundle_id IN (SELECT bundle_id FROM bundles WHERE bundle_id NOT IN"
    " (SELECT bundle_id FROM generations WHERE " + _KEPT + " UNION SELECT bundle_id FROM binding_versions)"
    " ORDER BY bundle_id LIMIT $3::bigint)"
)
_UNNAMED_MANIFESTS = (
    "DELETE FROM manifests WHERE digest IN (SELECT digest FROM manifests WHERE digest NOT IN"
    " (SELECT manifest_digest FROM generations WHERE " + _KEPT + ") ORDER BY digest LIMIT $3::bigint)"
)
_REST = (_OLD_GENERATIONS, _UNNAMED_BUNDLES, _UNNAMED_MANIFESTS)
_PUT = (
    "INSERT INTO standing (name, value) VALUES ($1::text, $2::bytea)"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
_REMOVE = "DELETE FROM standing WHERE name = $1::text"
GET = "SELECT value FROM standing WHERE name = $1::text"
_BEGINNING = "SELECT name, value FROM standing WHERE name >= $1::text AND name < $2::text ORDER BY name"


@implementer(IGenerations)
class PostgresGenerations(GenerationsHalf):
    """`IGenerations` on PostgreSQL."""

    @reads
    def last(self, connection: PostgresConnection) -> GenerationRecord | None:
        """See `IGenerations.last`."""
        return next(map(generation_of, connection.execute(_LAST)), None)

    @reads
    def latest_bindings(self, connection: PostgresConnection) -> Mapping[str, LiveBinding]:
        """See `IGenerations.latest_bindings`."""
        return {
            trigger_id: LiveBinding(version=version, fingerprint=fingerprint, bundle_id=bundle_id)
            for trigger_id, version, fingerprint, bundle_id in connection.execute(_LATEST_BINDINGS)
        }

    @reads
    def bindings(self, connection: PostgresConnection, keys: Collection[tuple[str, int]]) -> Sequence[BindingRecord]:
        """See `IGenerations.bindings`."""
        wanted = [trigger_id for trigger_id, _ in keys], [version for _, version in keys]
        return list(map(binding_of, connection.execute(_BINDINGS, wanted)))

    @writes
    def reserve(
        self,
        session: PostgresSession,
        generation: GenerationRecord,
        bundle: bytes | None,
        manifest: bytes | None = None,
    ) -> None:
        """See `IGenerations.reserve`."""
        execute, number = session.connection.execute, generation.number
        found = execute(_ADOPTED_AT, (number,)).fetchone()
        if found is not None:
            if found[0] is not None:
                raise StoreError(f"generation {number} was adopted before; its number is not given again")
            execute(_UNRESERVE_BINDINGS, (number,))
            execute(_UNRESERVE, (number,))
        execute(_INSERT_GENERATION, generation_row(generation))
        rows = [
            (row.trigger_id, row.version, row.fingerprint, row.generation, row.bundle_id, row.spec)
            for row in generation.bindings
        ]
        if rows and execute(_INSERT_BINDINGS, [list(each) for each in zip(*rows, strict=True)]).rowcount != len(rows):
            raise StoreError(f"generation {number} brings a binding version whose number was given before")
        _put_content(session, generation, bundle, manifest)

    @writes
    def _adopted(self, session: PostgresSession, number: int, at: float, encoded: Mapping[str, bytes | None]) -> None:
        if not session.connection.execute(_ADOPT, (float(at), number)).rowcount:
            raise StoreError(f"generation {number} was never reserved")
        put_all(session, encoded)

    @reads
    def generation(self, connection: PostgresConnection, number: int) -> GenerationRecord | None:
        """See `IGenerations.generation`."""
        return next(map(generation_of, connection.execute(_GENERATION, (number,))), None)

    @reads
    def manifest(self, connection: PostgresConnection, digest: str) -> bytes | None:
        """See `IGenerations.manifest`."""
        row = connection.execute(_MANIFEST, (digest,)).fetchone()
        return None if row is None else bytes(row[0])

    @reads
    def history(self, connection: PostgresConnection, limit: int) -> Sequence[GenerationRecord]:
        """See `IGenerations.history`."""
        return list(map(generation_of, connection.execute(_HISTORY, (limit,))))

    @reads
    def bundle(self, connection: PostgresConnection, bundle_id: str) -> bytes | None:
        """See `IGenerations.bundle`."""
        row = connection.execute(_BUNDLE, (bundle_id,)).fetchone()
        return None if row is None else bytes(row[0])


def trim(connection: PostgresConnection, policy: RetentionPolicy, limit: int) -> int:
    """Delete up to ``limit`` rows that no kept generation needs; return how many. Looks at every version."""
    # The newest that was adopted is the live one, or the last good one: it stays whatever the policy says.
    (floor,) = connection.execute(_FLOOR, (max(1, policy.generations),)).fetchone()
    if floor is None:
        return 0
    kept = [trigger_id for trigger_id, _ in policy.versions], [version for _, version in policy.versions]
    removed = int(connection.execute(_OLD_VERSIONS, (floor, list(policy.kept), limit, *kept)).rowcount)
    for statement in _REST:
        if removed < limit:
            removed += connection.execute(statement, (floor, list(policy.kept), limit - removed)).rowcount
    return removed


def _put_content(
    session: PostgresSession, generation: GenerationRecord, bundle: bytes | None, manifest: bytes | None
) -> None:
    """
    Keep the bundle and the manifest of a generation.

    :raises StoreError: one was not handed over, and is not there; or the manifest has no digest.
    """
    execute, bundle_id, digest = session.connection.execute, generation.bundle_id, generation.manifest_digest
    if bundle is not None:
        execute(_INSERT_BUNDLE, (bundle_id, bundle))
    elif execute(_BUNDLE, (bundle_id,)).fetchone() is None:
        raise StoreError(f"bundle {bundle_id} is not in the store, and was not handed over")
    if manifest is not None:
        if not digest:
            raise StoreError(f"generation {generation.number} has a manifest, but no digest to keep it under")
        execute(_INSERT_MANIFEST, (digest, manifest))
    elif digest and execute(_MANIFEST, (digest,)).fetchone() is None:
        raise StoreError(f"manifest {digest} is not in the store, and was not handed over")


@implementer(ICheckpoints)
class PostgresCheckpoints(CheckpointsHalf):
    """`ICheckpoints` on PostgreSQL."""

    @writes
    def _put(self, session: PostgresSession, encoded: Mapping[str, bytes | None]) -> None:
        put_all(session, encoded)

    @reads
    def get(self, connection: PostgresConnection, name: str) -> Any:
        """See `ICheckpoints.get`."""
        row = connection.execute(GET, (name,)).fetchone()
        return None if row is None else msgspec.json.decode(row[0])

    @reads
    def beginning(self, connection: PostgresConnection, prefix: str) -> Mapping[str, Any]:
        """See `ICheckpoints.beginning`."""
        rows = connection.execute(_BEGINNING, (prefix, prefix + "\U0010ffff"))
        return {name: msgspec.json.decode(value) for name, value in rows}


def put_all(session: PostgresSession, encoded: Mapping[str, bytes | None]) -> None:
    """Put values that `encode_checkpoints` made; None deletes."""
    for name, value in encoded.items():
        if value is None:
            session.connection.execute(_REMOVE, (name,))
        else:
            session.connection.execute(_PUT, (name, value))
