"""
Generations, binding versions, bundles and manifests; and checkpoints, in the table ``standing`` (its name since schema
2).
"""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from zope.interface import implementer

from harn.store.checkpoints import CheckpointsHalf, ICheckpoints, StandingStatements
from harn.store.generations import GENERATION_COLUMNS, GenerationsHalf, GenerationStatements, IGenerations

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

_SELECT = "SELECT " + GENERATION_COLUMNS + " FROM generations"
_PLACES = ", ".join("?" * 11)
_FURTHER = "IN (SELECT value FROM json_each(?2))"
# They may have served all the same: the note of it can have failed. What never did is withdrawn, rows and all.
_UNADOPTED = "(SELECT number FROM generations WHERE adopted_at IS NULL)"

GENERATIONS = GenerationStatements(
    last=_SELECT + " ORDER BY number DESC LIMIT 1",
    generation=_SELECT + " WHERE number = ? AND adopted_at IS NOT NULL",
    history=_SELECT + " WHERE adopted_at IS NOT NULL ORDER BY number DESC LIMIT ?",
    latest_bindings=(
        "SELECT trigger_id, max(version), fingerprint, bundle_id FROM binding_versions GROUP BY trigger_id"
    ),
    bindings_at=(
        "SELECT trigger_id, max(version), fingerprint, bundle_id FROM binding_versions"
        " WHERE generation = ?1 OR (generation < ?1 AND generation NOT IN " + _UNADOPTED + ") GROUP BY trigger_id"
    ),
    bindings=(
        "SELECT b.trigger_id, b.version, b.fingerprint, b.generation, b.bundle_id, b.spec"
        " FROM json_each(?) AS wanted CROSS JOIN binding_versions b"
        " ON b.trigger_id = json_extract(wanted.value, '$[0]') AND b.version = json_extract(wanted.value, '$[1]')"
    ),
    manifest="SELECT data FROM manifests WHERE digest = ?",
    has_manifest="SELECT 1 FROM manifests WHERE digest = ?",
    bundle="SELECT data FROM bundles WHERE bundle_id = ?",
    has_bundle="SELECT 1 FROM bundles WHERE bundle_id = ?",
    adopted_at="SELECT adopted_at FROM generations WHERE number = ?",
    unreserve=(
        "DELETE FROM binding_versions WHERE generation = ?",
        "DELETE FROM generations WHERE number = ? AND adopted_at IS NULL",
    ),
    insert="INSERT INTO generations (" + GENERATION_COLUMNS + ") VALUES (" + _PLACES + ")",
    insert_bindings=(
        "INSERT INTO binding_versions (trigger_id, version, fingerprint, generation, bundle_id, spec) VALUES {}"
        " ON CONFLICT (trigger_id, version) DO UPDATE SET fingerprint = excluded.fingerprint,"
        " generation = excluded.generation, bundle_id = excluded.bundle_id, spec = excluded.spec"
        " WHERE (SELECT adopted_at FROM generations WHERE number = binding_versions.generation) IS NULL"
    ),
    # A restart that continues a generation does not adopt it again: its history says since when it has been served.
    adopt="UPDATE generations SET adopted_at = coalesce(adopted_at, ?) WHERE number = ? AND digest <> ''",
    insert_bundle="INSERT INTO bundles (bundle_id, data) VALUES (?, ?) ON CONFLICT (bundle_id) DO NOTHING",
    insert_manifest="INSERT INTO manifests (digest, data) VALUES (?, ?) ON CONFLICT (digest) DO NOTHING",
    floor=(
        "SELECT min(number) FROM"
        " (SELECT number FROM generations WHERE adopted_at IS NOT NULL ORDER BY number DESC LIMIT ?)"
    ),
    # Kept: a trigger's newest version (numbers never go back) and the newest that is known to have served, what an
    # unfinished delivery names, and what the policy does (as one list of rows, which SQLite sorts once).
    old_versions=(
        "DELETE FROM binding_versions WHERE (trigger_id, version) IN"
        " (SELECT b.trigger_id, b.version FROM binding_versions b WHERE b.generation < ?1"
        " AND b.generation NOT " + _FURTHER + " AND EXISTS"
        " (SELECT 1 FROM binding_versions n WHERE n.trigger_id = b.trigger_id AND n.version > b.version"
        " AND n.generation NOT IN " + _UNADOPTED + ")"
        " AND NOT EXISTS (SELECT 1 FROM deliveries d INDEXED BY deliveries_unfinished"
        " WHERE d.state < 2 AND d.trigger_id = b.trigger_id AND d.version = b.version)"
        " AND (b.trigger_id, b.version) NOT IN"
        " (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') FROM json_each(?4))"
        " ORDER BY b.generation, b.trigger_id, b.version LIMIT ?3)"
    ),
    old=(
        "DELETE FROM generations WHERE number IN (SELECT number FROM generations WHERE number < ?1"
        " AND number NOT " + _FURTHER + " ORDER BY number LIMIT ?3)",
        "DELETE FROM bundles WHERE bundle_id IN (SELECT bundle_id FROM bundles WHERE bundle_id NOT IN"
        " (SELECT bundle_id FROM generations WHERE number >= ?1 OR number " + _FURTHER + " UNION"
        " SELECT bundle_id FROM binding_versions) ORDER BY bundle_id LIMIT ?3)",
        "DELETE FROM manifests WHERE digest IN (SELECT digest FROM manifests WHERE digest NOT IN"
        " (SELECT manifest_digest FROM generations WHERE number >= ?1 OR number " + _FURTHER + ")"
        " ORDER BY digest LIMIT ?3)",
    ),
)
STANDING = StandingStatements(
    put="INSERT INTO standing (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
    remove="DELETE FROM standing WHERE name = ?",
    get="SELECT value FROM standing WHERE name = ?",
    beginning="SELECT name, value FROM standing WHERE name >= ? AND name < ? ORDER BY name",
)


@implementer(IGenerations)
class SQLiteGenerations(GenerationsHalf):
    """`IGenerations` on SQLite."""

    sql = GENERATIONS
    standing = STANDING


@implementer(ICheckpoints)
class SQLiteCheckpoints(CheckpointsHalf):
    """`ICheckpoints` on SQLite."""

    sql = STANDING
