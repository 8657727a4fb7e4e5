"""
Generations, binding versions, bundles and manifests; and checkpoints, in the table ``standing`` (its name since schema
2).
"""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from zope.interface import implementer

from harn.errors import StoreError
from harn.store.executor import reads, writes
from harn.store.generations import (
    BindingRecord,
    GenerationRecord,
    ICheckpoints,
    IGenerations,
    LiveBinding,
)
from harn.store.halves import CheckpointsHalf, GenerationsHalf
from harn.store.rows import binding_of, generation_of, generation_row
from harn.store.sqlite.connection import Session

if TYPE_CHECKING:
    from harn.store.retention import RetentionPolicy

TABLES = """
CREATE TABLE generations (
    number INTEGER PRIMARY KEY,
    digest TEXT NOT NULL,
    bundle_id TEXT NOT NULL,
    source TEXT NOT NULL,
    actor TEXT NOT NULL,
    adopted_at REAL,
    removed BLOB NOT NULL,
    manifest_digest TEXT NOT NULL DEFAULT '',
    recalled INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    summary BLOB NOT NULL DEFAULT x'7b7d'
);

CREATE TABLE binding_versions (
    trigger_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    generation INTEGER NOT NULL,
    bundle_id TEXT NOT NULL,
    spec BLOB NOT NULL,
    PRIMARY KEY (trigger_id, version)
);
CREATE INDEX binding_versions_generation ON binding_versions (generation);

CREATE TABLE bundles (
    bundle_id TEXT PRIMARY KEY,
    data BLOB NOT NULL
);

CREATE TABLE manifests (
    digest TEXT PRIMARY KEY,
    data BLOB NOT NULL
);

-- Values by name, as JSON, that outlive a restart.
CREATE TABLE standing (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) WITHOUT ROWID;
"""

_COLUMNS = "number, digest, bundle_id, source, actor, adopted_at, removed, manifest_digest, recalled, reason, summary"
_LAST = "SELECT " + _COLUMNS + " FROM generations ORDER BY number DESC LIMIT 1"
_HISTORY = "SELECT " + _COLUMNS + " FROM generations WHERE adopted_at IS NOT NULL ORDER BY number DESC LIMIT ?"
_GENERATION = "SELECT " + _COLUMNS + " FROM generations WHERE number = ? AND adopted_at IS NOT NULL"

# They may have served all the same: the note of it can have failed. What never did is withdrawn, rows and all.
_UNADOPTED = "(SELECT number FROM generations WHERE adopted_at IS NULL)"
_LATEST_BINDINGS = "SELECT trigger_id, max(version), fingerprint, bundle_id FROM binding_versions GROUP BY trigger_id"
_BINDING = (
    "SELECT trigger_id, version, fingerprint, generation, bundle_id, spec FROM binding_versions"
    " WHERE trigger_id = ? AND version = ?"
)

_UNRESERVE = "DELETE FROM generations WHERE number = ? AND adopted_at IS NULL"
_UNRESERVE_BINDINGS = "DELETE FROM binding_versions WHERE generation = ?"
_INSERT_GENERATION = "INSERT INTO generations (" + _COLUMNS + ") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_INSERT_BINDING = (
    "INSERT INTO binding_versions (trigger_id, version, fingerprint, generation, bundle_id, spec)"
    " VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (trigger_id, version) DO UPDATE SET fingerprint = excluded.fingerprint,"
    " generation = excluded.generation, bundle_id = excluded.bundle_id, spec = excluded.spec"
    " WHERE (SELECT adopted_at FROM generations WHERE number = binding_versions.generation) IS NULL"
)
# A restart that goes on with a generation does not adopt it again: its history says since when it has been served.
_ADOPT = "UPDATE generations SET adopted_at = coalesce(adopted_at, ?) WHERE number = ?"
_INSERT_BUNDLE = "INSERT INTO bundles (bundle_id, data) VALUES (?, ?) ON CONFLICT (bundle_id) DO NOTHING"
_INSERT_MANIFEST = "INSERT INTO manifests (digest, data) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING"

_FLOOR = (
    "SELECT min(number) FROM (SELECT number FROM generations WHERE adopted_at IS NOT NULL ORDER BY number DESC LIMIT ?)"
)
_FURTHER = "IN (SELECT value FROM json_each(?2))"
# Kept: a trigger's newest version (numbers never go back) and the newest that is known to have served, what an
# unfinished delivery names, and what the policy does (as one list of texts, which SQLite sorts once).
_OLD_VERSIONS = (
    "DELETE FROM binding_versions WHERE (trigger_id, version) IN"
    " (SELECT b.trigger_id, b.version FROM binding_versions b WHERE b.generation < ?1"
    " AND b.generation NOT " + _FURTHER + " AND EXISTS"
    " (SELECT 1 FROM binding_versions n WHERE n.trigger_id = b.trigger_id AND n.version > b.version"
    " AND n.generation NOT IN " + _UNADOPTED + ")"
    " AND NOT EXISTS (SELECT 1 FROM deliveries d INDEXED BY deliveries_unfinished"
    " WHERE d.state < 2 AND d.trigger_id = b.trigger_id AND d.version = b.version)"
    " AND b.trigger_id || '@v' || b.version NOT IN (SELECT value FROM json_each(?4))"
    " ORDER BY b.generation, b.trigger_id, b.version LIMIT ?3)"
)
_OLD_GENERATIONS = (
    "DELETE FROM generations WHERE number IN (SELECT number FROM generations WHERE number < ?1"
    " AND number NOT " + _FURTHER + " ORDER BY number LIMIT ?3)"
)
_UNNAMED_BUNDLES = (
    "DELETE FROM bundles WHERE bundle_id IN (SELECT bundle_id FROM bundles WHERE bundle_id NOT IN"
    " (SELECT bundle_id FROM generations WHERE number >= ?1 OR number " + _FURTHER + " UNION"
    " SELECT bundle_id FROM binding_versions) ORDER BY bundle_id LIMIT ?3)"
)
_UNNAMED_MANIFESTS = (
    "DELETE FROM manifests WHERE digest IN (SELECT digest FROM manifests WHERE digest NOT IN"
    " (SELECT manifest_digest FROM generations WHERE number >= ?1 OR number " + _FURTHER + ")"
    " ORDER BY digest LIMIT ?3)"
)
_REST = (_OLD_GENERATIONS, _UNNAMED_BUNDLES, _UNNAMED_MANIFESTS)


@implementer(IGenerations)
class SQLiteGenerations(GenerationsHalf):
    """`IGenerations` on SQLite."""

    @reads
    def last(self, connection: sqlite3.Connection) -> GenerationRecord | None:
        """See `IGenerations.last`."""
        row = connection.execute(_LAST).fetchone()
        return None if row is None else generation_of(row)

    @reads
    def latest_bindings(self, connection: sqlite3.Connection) -> Mapping[str, LiveBinding]:
        """See `IGenerations.latest_bindings`."""
        return {
            trigger_id: LiveBinding(version=version, fingerprint=fingerprint, bundle_id=bundle_id)
            for trigger_id, version, fingerprint, bundle_id in connection.execute(_LATEST_BINDINGS)
        }

    @reads
    def bindings(self, connection: sqlite3.Connection, keys: Collection[tuple[str, int]]) -> Sequence[BindingRecord]:
        """See `IGenerations.bindings`."""
        rows = (connection.execute(_BINDING, key).fetchone() for key in keys)
        return [binding_of(row) for row in rows if row is not None]

    @writes
    def reserve(
        self, session: Session, generation: GenerationRecord, bundle: bytes | None, manifest: bytes | None = None
    ) -> None:
        """See `IGenerations.reserve`."""
        connection, number = session.connection, generation.number
        found = connection.execute("SELECT adopted_at FROM generations WHERE number = ?", (number,)).fetchone()
        if found is not None:
            if found[0] is not None:
                raise StoreError(f"generation {number} was adopted before; its number is not given again")
            connection.execute(_UNRESERVE_BINDINGS, (number,))
            connection.execute(_UNRESERVE, (number,))
        connection.execute(_INSERT_GENERATION, generation_row(generation))
        rows = [
            (row.trigger_id, row.version, row.fingerprint, row.generation, row.bundle_id, row.spec)
            for row in generation.bindings
        ]
        if rows and connection.executemany(_INSERT_BINDING, rows).rowcount != len(rows):
            raise StoreError(f"generation {number} brings a binding version whose number was given before")
        _put_bundle(connection, generation, bundle)
        _put_manifest(connection, generation, manifest)

    @writes
    def _adopted(self, session: Session, number: int, at: float, encoded: Mapping[str, bytes | None]) -> None:
        changed = session.connection.execute(_ADOPT, (at, number))
        if not changed.rowcount:
            raise StoreError(f"generation {number} was never reserved")
        put_all(session, encoded)

    @reads
    def generation(self, connection: sqlite3.Connection, number: int) -> GenerationRecord | None:
        """See `IGenerations.generation`."""
        row = connection.execute(_GENERATION, (number,)).fetchone()
        return None if row is None else generation_of(row)

    @reads
    def manifest(self, connection: sqlite3.Connection, digest: str) -> bytes | None:
        """See `IGenerations.manifest`."""
        row = connection.execute("SELECT data FROM manifests WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else bytes(row[0])

    @reads
    def history(self, connection: sqlite3.Connection, limit: int) -> Sequence[GenerationRecord]:
        """See `IGenerations.history`."""
        return [generation_of(row) for row in connection.execute(_HISTORY, (limit,))]

    @reads
    def bundle(self, connection: sqlite3.Connection, bundle_id: str) -> bytes | None:
        """See `IGenerations.bundle`."""
        row = connection.execute("SELECT data FROM bundles WHERE bundle_id = ?", (bundle_id,)).fetchone()
        return None if row is None else bytes(row[0])


def trim(connection: sqlite3.Connection, policy: RetentionPolicy, limit: int) -> int:
    """Delete up to ``limit`` rows that no kept generation needs; return how many. Looks at every version."""
    # The newest that was adopted is the live one, or the last good one: it stays whatever the policy says.
    (floor,) = connection.execute(_FLOOR, (max(1, policy.generations),)).fetchone()
    if floor is None:
        return 0
    further = json.dumps(policy.kept)
    versions = json.dumps([f"{trigger_id}@v{version}" for trigger_id, version in policy.versions])
    removed = connection.execute(_OLD_VERSIONS, (floor, further, limit, versions)).rowcount
    for statement in _REST:
        if removed < limit:
            removed += connection.execute(statement, (floor, further, limit - removed)).rowcount
    return removed


def _put_bundle(connection: sqlite3.Connection, generation: GenerationRecord, bundle: bytes | None) -> None:
    """
    Keep the bundle of a generation.

    :raises StoreError: it was not handed over, and is not there.
    """
    bundle_id = generation.bundle_id
    if bundle is not None:
        connection.execute(_INSERT_BUNDLE, (bundle_id, bundle))
    elif connection.execute("SELECT 1 FROM bundles WHERE bundle_id = ?", (bundle_id,)).fetchone() is None:
        raise StoreError(f"bundle {bundle_id} is not in the store, and was not handed over")


def _put_manifest(connection: sqlite3.Connection, generation: GenerationRecord, manifest: bytes | None) -> None:
    """
    Keep the manifest of a generation, if it has one.

    :raises StoreError: it has no digest; or it was not handed over, and is not there.
    """
    digest = generation.manifest_digest
    if manifest is not None:
        if not digest:
            raise StoreError(f"generation {generation.number} has a manifest, but no digest to keep it under")
        connection.execute(_INSERT_MANIFEST, (digest, manifest))
    elif digest and connection.execute("SELECT 1 FROM manifests WHERE digest = ?", (digest,)).fetchone() is None:
        raise StoreError(f"manifest {digest} is not in the store, and was not handed over")


_PUT = "INSERT INTO standing (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"

GET = "SELECT value FROM standing WHERE name = ?"
_BEGINNING = "SELECT name, value FROM standing WHERE name >= ? AND name < ? ORDER BY name"


@implementer(ICheckpoints)
class SQLiteCheckpoints(CheckpointsHalf):
    """`ICheckpoints` on SQLite."""

    @writes
    def _put(self, session: Session, encoded: Mapping[str, bytes | None]) -> None:
        put_all(session, encoded)

    @reads
    def get(self, connection: sqlite3.Connection, name: str) -> Any:
        """See `ICheckpoints.get`."""
        row = connection.execute(GET, (name,)).fetchone()
        return None if row is None else msgspec.json.decode(row[0])

    @reads
    def beginning(self, connection: sqlite3.Connection, prefix: str) -> Mapping[str, Any]:
        """See `ICheckpoints.beginning`."""
        rows = connection.execute(_BEGINNING, (prefix, prefix + "\U0010ffff"))
        return {name: msgspec.json.decode(value) for name, value in rows}


def put_all(session: Session, encoded: Mapping[str, bytes | None]) -> None:
    """Put values that `encode_checkpoints` made; None deletes."""
    for name, value in encoded.items():
        if value is None:
            session.connection.execute("DELETE FROM standing WHERE name = ?", (name,))
        else:
            session.connection.execute(_PUT, (name, value))
