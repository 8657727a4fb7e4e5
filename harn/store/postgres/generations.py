"""Generations, binding versions, bundles and manifests; and checkpoints, in the table ``standing``."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from zope.interface import implementer

from harn.store.checkpoints import CheckpointsHalf, ICheckpoints, StandingStatements
from harn.store.generations import GENERATION_COLUMNS, GenerationsHalf, GenerationStatements, IGenerations

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

_SELECT = "SELECT " + GENERATION_COLUMNS + " FROM generations"
_KEPT = "number >= $1::bigint OR number = ANY ($2::bigint[])"

GENERATIONS = GenerationStatements(
    last=_SELECT + " ORDER BY number DESC LIMIT 1",
    generation=_SELECT + " WHERE number = $1::bigint AND adopted_at IS NOT NULL",
    history=_SELECT + " WHERE adopted_at IS NOT NULL ORDER BY number DESC LIMIT $1::bigint",
    latest_bindings=(
        "SELECT DISTINCT ON (trigger_id) trigger_id, version, fingerprint, bundle_id FROM binding_versions"
        " ORDER BY trigger_id, version DESC"
    ),
    bindings_at=(
        "SELECT DISTINCT ON (trigger_id) trigger_id, version, fingerprint, bundle_id FROM binding_versions"
        " WHERE generation = $1::bigint OR (generation < $1::bigint"
        " AND generation NOT IN (SELECT number FROM generations WHERE adopted_at IS NULL))"
        " ORDER BY trigger_id, version DESC"
    ),
    bindings=(
        "SELECT b.trigger_id, b.version, b.fingerprint, b.generation, b.bundle_id, b.spec"
        " FROM unnest($1::text[], $2::integer[]) WITH ORDINALITY AS wanted (trigger_id, version, place)"
        " JOIN binding_versions b ON b.trigger_id = wanted.trigger_id AND b.version = wanted.version ORDER BY place"
    ),
    manifest="SELECT data FROM manifests WHERE digest = $1::text",
    has_manifest="SELECT 1 FROM manifests WHERE digest = $1::text",
    bundle="SELECT data FROM bundles WHERE bundle_id = $1::text",
    has_bundle="SELECT 1 FROM bundles WHERE bundle_id = $1::text",
    adopted_at="SELECT adopted_at FROM generations WHERE number = $1::bigint",
    unreserve=(
        "DELETE FROM binding_versions WHERE generation = $1::bigint",
        "DELETE FROM generations WHERE number = $1::bigint AND adopted_at IS NULL",
    ),
    insert=(
        "INSERT INTO generations (" + GENERATION_COLUMNS + ") VALUES ($1::bigint, $2::text, $3::text, $4::text,"
        " $5::text, $6::float8, $7::bytea, $8::text, $9::bigint, $10::text, $11::bytea)"
    ),
    insert_bindings=(
        "INSERT INTO binding_versions (trigger_id, version, fingerprint, generation, bundle_id, spec)"
        " SELECT * FROM unnest($1::text[], $2::integer[], $3::text[], $4::bigint[], $5::text[], $6::bytea[])"
        " ON CONFLICT (trigger_id, version) DO UPDATE SET fingerprint = excluded.fingerprint,"
        " generation = excluded.generation, bundle_id = excluded.bundle_id, spec = excluded.spec"
        " WHERE (SELECT adopted_at FROM generations WHERE number = binding_versions.generation) IS NULL"
    ),
    # A restart that continues a generation does not adopt it again: its history says since when it has been served.
    adopt=(
        "UPDATE generations SET adopted_at = coalesce(adopted_at, $1::float8)"
        " WHERE number = $2::bigint AND digest <> ''"
    ),
    insert_bundle="INSERT INTO bundles (bundle_id, data) VALUES ($1::text, $2::bytea) ON CONFLICT DO NOTHING",
    insert_manifest="INSERT INTO manifests (digest, data) VALUES ($1::text, $2::bytea) ON CONFLICT DO NOTHING",
    floor=(
        "SELECT min(number) FROM"
        " (SELECT number FROM generations WHERE adopted_at IS NOT NULL ORDER BY number DESC LIMIT $1::bigint) AS newest"
    ),
    # Kept: a trigger's newest version (numbers never go back) and the newest that is known to have served, what an
    # unfinished delivery names, and what the policy does.
    old_versions=(
        "DELETE FROM binding_versions WHERE ctid = ANY (ARRAY("
        "SELECT b.ctid FROM binding_versions b WHERE b.generation < $1::bigint AND b.generation <> ALL ($2::bigint[])"
        " AND EXISTS (SELECT 1 FROM binding_versions n WHERE n.trigger_id = b.trigger_id AND n.version > b.version"
        " AND n.generation NOT IN (SELECT number FROM generations WHERE adopted_at IS NULL))"
        " AND NOT EXISTS (SELECT 1 FROM deliveries d"
        " WHERE d.state < 2 AND d.trigger_id = b.trigger_id AND d.version = b.version)"
        " AND NOT EXISTS (SELECT 1 FROM unnest($4::text[], $5::integer[]) AS kept (trigger_id, version)"
        " WHERE kept.trigger_id = b.trigger_id AND kept.version = b.version)"
        " ORDER BY b.generation, b.trigger_id, b.version LIMIT $3::bigint))"
    ),
    old=(
        "DELETE FROM generations WHERE number IN (SELECT number FROM generations WHERE NOT (" + _KEPT + ")"
        " ORDER BY number LIMIT $3::bigint)",
        "DELETE FROM bundles WHERE bundle_id IN (SELECT bundle_id FROM bundles WHERE bundle_id NOT IN"
        " (SELECT bundle_id FROM generations WHERE " + _KEPT + " UNION SELECT bundle_id FROM binding_versions)"
        " ORDER BY bundle_id LIMIT $3::bigint)",
        "DELETE FROM manifests WHERE digest IN (SELECT digest FROM manifests WHERE digest NOT IN"
        " (SELECT manifest_digest FROM generations WHERE " + _KEPT + ") ORDER BY digest LIMIT $3::bigint)",
    ),
)
STANDING = StandingStatements(
    put=(
        "INSERT INTO standing (name, value) VALUES ($1::text, $2::bytea)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    ),
    remove="DELETE FROM standing WHERE name = $1::text",
    get="SELECT value FROM standing WHERE name = $1::text",
    beginning="SELECT name, value FROM standing WHERE name >= $1::text AND name < $2::text ORDER BY name",
)


@implementer(IGenerations)
class PostgresGenerations(GenerationsHalf):
    """`IGenerations` on PostgreSQL."""

    sql = GENERATIONS
    standing = STANDING


@implementer(ICheckpoints)
class PostgresCheckpoints(CheckpointsHalf):
    """`ICheckpoints` on PostgreSQL."""

    sql = STANDING
