"""Queries over generations and what they were made of, and the statements that write them."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from harn.errors import StoreError
from harn.store.generations import BindingRecord, GenerationRecord, LiveBinding

if TYPE_CHECKING:
    from harn.store.sqlite.session import Session

_COLUMNS = "number, digest, bundle_id, source, actor, adopted_at, removed, manifest_digest, recalled, reason, summary"
_LAST = "SELECT " + _COLUMNS + " FROM generations ORDER BY number DESC LIMIT 1"
_HISTORY = "SELECT " + _COLUMNS + " FROM generations WHERE adopted_at IS NOT NULL ORDER BY number DESC LIMIT ?"
_GENERATION = "SELECT " + _COLUMNS + " FROM generations WHERE number = ? AND adopted_at IS NOT NULL"

# They may have served all the same: the note of it can have failed. What never did is withdrawn, rows and all.
UNADOPTED = "(SELECT number FROM generations WHERE adopted_at IS NULL)"
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
# A restart that goes on with a generation does not adopt it anew: its history says since when it has been served.
_ADOPT = "UPDATE generations SET adopted_at = coalesce(adopted_at, ?) WHERE number = ?"
_INSERT_BUNDLE = "INSERT OR IGNORE INTO bundles (bundle_id, data) VALUES (?, ?)"
_INSERT_MANIFEST = "INSERT OR IGNORE INTO manifests (digest, data) VALUES (?, ?)"


def last(connection: sqlite3.Connection) -> GenerationRecord | None:
    """See `IGenerations.last`."""
    row = connection.execute(_LAST).fetchone()
    return None if row is None else _generation(row)


def latest_bindings(connection: sqlite3.Connection) -> Mapping[str, LiveBinding]:
    """See `IGenerations.latest_bindings`."""
    return {
        trigger_id: LiveBinding(version=version, fingerprint=fingerprint, bundle_id=bundle_id)
        for trigger_id, version, fingerprint, bundle_id in connection.execute(_LATEST_BINDINGS)
    }


def bindings(connection: sqlite3.Connection, keys: Collection[tuple[str, int]]) -> Sequence[BindingRecord]:
    """See `IGenerations.bindings`."""
    rows = (connection.execute(_BINDING, key).fetchone() for key in keys)
    return [
        BindingRecord(
            trigger_id=row[0], version=row[1], fingerprint=row[2], generation=row[3], bundle_id=row[4], spec=row[5]
        )
        for row in rows
        if row is not None
    ]


def history(connection: sqlite3.Connection, limit: int) -> Sequence[GenerationRecord]:
    """See `IGenerations.history`."""
    return [_generation(row) for row in connection.execute(_HISTORY, (limit,))]


def generation(connection: sqlite3.Connection, number: int) -> GenerationRecord | None:
    """See `IGenerations.generation`."""
    row = connection.execute(_GENERATION, (number,)).fetchone()
    return None if row is None else _generation(row)


def bundle(connection: sqlite3.Connection, bundle_id: str) -> bytes | None:
    """See `IGenerations.bundle`."""
    row = connection.execute("SELECT data FROM bundles WHERE bundle_id = ?", (bundle_id,)).fetchone()
    return None if row is None else bytes(row[0])


def manifest(connection: sqlite3.Connection, digest: str) -> bytes | None:
    """See `IGenerations.manifest`."""
    row = connection.execute("SELECT data FROM manifests WHERE digest = ?", (digest,)).fetchone()
    return None if row is None else bytes(row[0])


def kept(connection: sqlite3.Connection, name: str) -> Any:
    """See `ICheckpoints.get`."""
    row = connection.execute("SELECT value FROM standing WHERE name = ?", (name,)).fetchone()
    return None if row is None else msgspec.json.decode(row[0])


def reserve(session: Session, generation: GenerationRecord, bundle: bytes | None, manifest: bytes | None) -> None:
    """See `IGenerations.reserve`."""
    connection, number = session.connection, generation.number
    found = connection.execute("SELECT adopted_at FROM generations WHERE number = ?", (number,)).fetchone()
    if found is not None:
        if found[0] is not None:
            raise StoreError(f"generation {number} was adopted before; its number is not given again")
        connection.execute(_UNRESERVE_BINDINGS, (number,))
        connection.execute(_UNRESERVE, (number,))
    removed = msgspec.json.encode(generation.removed)
    connection.execute(
        _INSERT_GENERATION,
        (
            number,
            generation.digest,
            generation.bundle_id,
            generation.source,
            generation.actor,
            generation.adopted_at,
            removed,
            generation.manifest_digest,
            generation.recalled,
            generation.reason,
            msgspec.json.encode(generation.summary),
        ),
    )
    rows = [
        (row.trigger_id, row.version, row.fingerprint, row.generation, row.bundle_id, row.spec)
        for row in generation.bindings
    ]
    if rows and connection.executemany(_INSERT_BINDING, rows).rowcount != len(rows):
        raise StoreError(f"generation {number} brings a binding version whose number was given before")
    if bundle is not None:
        connection.execute(_INSERT_BUNDLE, (generation.bundle_id, bundle))
    elif connection.execute("SELECT 1 FROM bundles WHERE bundle_id = ?", (generation.bundle_id,)).fetchone() is None:
        raise StoreError(f"bundle {generation.bundle_id} is not in the store, and was not handed over")
    digest = generation.manifest_digest
    if manifest is not None:
        if not digest:
            raise StoreError(f"generation {number} has a manifest, but no digest to keep it under")
        connection.execute(_INSERT_MANIFEST, (digest, manifest))
    elif digest and connection.execute("SELECT 1 FROM manifests WHERE digest = ?", (digest,)).fetchone() is None:
        raise StoreError(f"manifest {digest} is not in the store, and was not handed over")


def adopted(session: Session, number: int, at: float, checkpoints: Mapping[str, bytes | None]) -> None:
    """See `IGenerations.adopted`; the values are encoded already."""
    changed = session.connection.execute(_ADOPT, (at, number))
    if not changed.rowcount:
        raise StoreError(f"generation {number} was never reserved")
    keep(session, checkpoints)


def keep(session: Session, checkpoints: Mapping[str, bytes | None]) -> None:
    """See `ICheckpoints.put`; the values are encoded already."""
    for name, value in checkpoints.items():
        if value is None:
            session.connection.execute("DELETE FROM standing WHERE name = ?", (name,))
        else:
            session.connection.execute("INSERT OR REPLACE INTO standing (name, value) VALUES (?, ?)", (name, value))


def _generation(row: Sequence[Any]) -> GenerationRecord:
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
