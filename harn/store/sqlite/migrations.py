"""
The steps of the schema: for each version, the statements that make it out of the previous one.

A step only adds columns with a default and tables, so that a server with an older schema can still write to the
database. `harn.store.sqlite.schema` runs the steps: indices and changes of rows in small transactions.
"""

from __future__ import annotations

STEPS: dict[int, tuple[str, ...]] = {
    # 2: what a generation was made of, so that it can be shown and recalled; values that outlive a restart.
    2: (
        "ALTER TABLE generations ADD COLUMN manifest_digest TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE generations ADD COLUMN recalled INTEGER",
        "ALTER TABLE generations ADD COLUMN reason TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE generations ADD COLUMN summary BLOB NOT NULL DEFAULT x'7b7d'",
        "CREATE TABLE manifests (digest TEXT PRIMARY KEY, data BLOB NOT NULL)",
        "CREATE TABLE standing (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
    ),
    # 3: whose a claim is, so that a dead letter releases it; crashes of servers while a delivery ran.
    3: (
        "ALTER TABLE deliveries ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE claims ADD COLUMN delivery_id INTEGER",
        "CREATE INDEX claims_delivery ON claims (delivery_id) WHERE delivery_id IS NOT NULL",
    ),
    # 4: deliveries that were skipped, discarded or replayed, which older servers read as done; lists of deliveries
    # and of dead letters; what a failed attempt raised and printed; totals of triggers.
    4: (
        "ALTER TABLE deliveries ADD COLUMN ended_as INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE deliveries ADD COLUMN skip_reason TEXT",
        "ALTER TABLE deliveries ADD COLUMN died_at REAL",
        "ALTER TABLE deliveries ADD COLUMN replayed_as TEXT",
        "ALTER TABLE attempts ADD COLUMN traceback TEXT",
        "ALTER TABLE attempts ADD COLUMN output TEXT",
        # So far a delivery was done without a result when its predicate had refused it.
        "UPDATE deliveries SET ended_as = 4, skip_reason = 'predicate'"
        " WHERE id BETWEEN ? AND ? AND state = 2 AND result IS NULL",
        "CREATE INDEX deliveries_by_trigger ON deliveries (id / 1024, trigger_id)",
        "CREATE INDEX deliveries_by_kind ON deliveries (id / 1024, kind)",
        "CREATE INDEX deliveries_exceptions ON deliveries (state, ended_as)"
        " WHERE state = 1 OR state = 3 OR ended_as > 0",
        "CREATE INDEX deliveries_failed ON deliveries (trigger_id, state, ended_as) WHERE state = 3 OR ended_as > 4",
        "CREATE INDEX deliveries_dead_groups ON deliveries (trigger_id, reason, error_class, settled_at)"
        " WHERE state = 3",
        # Which dead letter a delivery repeats; jobs of operators.
        "ALTER TABLE claims ADD COLUMN predecessor INTEGER",
        "CREATE INDEX claims_predecessor ON claims (predecessor) WHERE predecessor IS NOT NULL",
        "CREATE TABLE jobs (id INTEGER PRIMARY KEY AUTOINCREMENT, operation TEXT NOT NULL, actor TEXT NOT NULL,"
        " filter BLOB NOT NULL, rate REAL, state TEXT NOT NULL, created_at REAL NOT NULL, ended_at REAL,"
        " cursor INTEGER NOT NULL, is_selected INTEGER NOT NULL, matched INTEGER NOT NULL DEFAULT 0,"
        " changed INTEGER NOT NULL DEFAULT 0, skipped INTEGER NOT NULL DEFAULT 0)",
        "CREATE INDEX jobs_unfinished ON jobs (id) WHERE ended_at IS NULL",
        "CREATE INDEX jobs_ended ON jobs (ended_at) WHERE ended_at IS NOT NULL",
        "CREATE TABLE job_items (job_id INTEGER NOT NULL, delivery_id INTEGER NOT NULL,"
        " outcome INTEGER NOT NULL DEFAULT 0, event_id TEXT, replayed_as TEXT, reason TEXT,"
        " PRIMARY KEY (job_id, delivery_id)) WITHOUT ROWID",
        "CREATE INDEX job_items_pending ON job_items (job_id, delivery_id) WHERE outcome = 0",
        "CREATE INDEX deliveries_due ON deliveries (trigger_id, due_at) WHERE state = 1",
        "CREATE TABLE trigger_totals (trigger_id TEXT PRIMARY KEY, accepted INTEGER NOT NULL, refused INTEGER NOT NULL,"
        " last_success REAL, last_failure REAL) WITHOUT ROWID",
        "CREATE TABLE refusals (minute INTEGER NOT NULL, trigger_id TEXT NOT NULL, reason TEXT NOT NULL,"
        " count INTEGER NOT NULL, PRIMARY KEY (minute, trigger_id, reason)) WITHOUT ROWID",
    ),
}
"""By version. An UPDATE is of a range of ids; a new database is made from the tables of each idea's module."""

SCHEMA_VERSION = max(STEPS)
"""The version that this program reads and writes."""

OLDEST = 2
"""The oldest schema whose servers can write to a database of the newest: a step that does not only add raises it."""
