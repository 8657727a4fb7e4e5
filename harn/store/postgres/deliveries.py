"""The deliveries: where each accepted event stands, its attempts, and the statements that change many together."""

# Statements are put together from constants; a value is never part of their text.
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from harn.model.delivery import LARGE_BODY
from harn.store.deliveries import DueDelivery, IDeliveries
from harn.store.executor import writes
from harn.store.postgres import claims
from harn.store.postgres.session import PostgresSession
from harn.store.postgres.settling import PostgresSettle
from harn.store.rows import DONE, SKIPPED
from harn.store.states import DeliveriesHalf, DeliveryStatements, GiveUpStatements

TABLES = """
-- An event's bytes, one row for each delivery, under its id. Never updated, while rows of `deliveries` are.
CREATE TABLE events (
    id bigint PRIMARY KEY,
    envelope bytea NOT NULL,
    body bytea NOT NULL
);
-- Not compressed: that would cost more than the disk does.
ALTER TABLE events ALTER COLUMN body SET STORAGE EXTERNAL;

-- Where each accepted delivery stands. `state`: 0 ready, 1 waiting, 2 done, 3 dead. `owner`: the server that runs it.
-- `crashes`: of servers while it ran. `ended_as`: 4 skipped, 5 discarded, 6 replayed: `state` is 2; else 0.
-- `skip_reason`: of a skipped one. `died_at`: when a discarded or replayed one became a dead letter; `settled_at` is
-- when it was discarded or replayed, and `replayed_as` the event that a replay made.
CREATE TABLE deliveries (
    id bigint PRIMARY KEY,
    event_id text NOT NULL,
    trigger_id text NOT NULL,
    version integer NOT NULL,
    provider text NOT NULL,
    kind text NOT NULL,
    owner bigint NOT NULL,
    received_at double precision NOT NULL,
    replay_of text,
    state smallint NOT NULL DEFAULT 0,
    attempts integer NOT NULL DEFAULT 0,
    passed boolean NOT NULL DEFAULT false,
    due_at double precision,
    settled_at double precision,
    dead_number bigint,
    reason text,
    error_class text,
    error text,
    result bytea,
    crashes integer NOT NULL DEFAULT 0,
    ended_as smallint NOT NULL DEFAULT 0,
    skip_reason text,
    died_at double precision,
    replayed_as text
);
CREATE INDEX deliveries_event ON deliveries (event_id);
-- What is not finished is found through these, which stay as small as it is, however many rows are done.
CREATE INDEX deliveries_ready ON deliveries (owner, id) WHERE state = 0;
CREATE INDEX deliveries_waiting ON deliveries (owner, due_at) WHERE state = 1;
CREATE INDEX deliveries_unfinished ON deliveries (trigger_id, version, state, id) WHERE state < 2;
CREATE INDEX deliveries_due ON deliveries (trigger_id, due_at) WHERE state = 1;
-- What is finished, for retention.
CREATE INDEX deliveries_finished ON deliveries (state, settled_at) WHERE state >= 2;
CREATE UNIQUE INDEX deliveries_dead ON deliveries (dead_number) WHERE dead_number IS NOT NULL;
-- For lists, newest first.
CREATE INDEX deliveries_by_trigger ON deliveries (trigger_id, id);
CREATE INDEX deliveries_by_kind ON deliveries (kind, id);
CREATE INDEX deliveries_exceptions ON deliveries ((greatest(state, ended_as)), id) WHERE state <> 2 OR ended_as > 0;
-- Dead letters in groups; it holds all that is shown of a group.
CREATE INDEX deliveries_dead_groups ON deliveries (trigger_id, reason, error_class, settled_at) WHERE state = 3;

CREATE TABLE attempts (
    id bigint PRIMARY KEY,
    delivery_id bigint NOT NULL,
    number integer NOT NULL,
    version integer NOT NULL,
    started_at double precision NOT NULL,
    completed_at double precision NOT NULL,
    outcome text NOT NULL,
    error_class text,
    error text,
    traceback text,
    output text
);
CREATE INDEX attempts_delivery ON attempts (delivery_id, id);
"""

STATE = "greatest(d.state, d.ended_as)"
"""What `NAMES` has the name of."""

COLUMNS = (
    "d.id, d.event_id, d.trigger_id, d.version, d.provider, d.kind, " + STATE + ", d.attempts, d.passed, d.crashes,"
    " d.due_at, d.received_at, d.replay_of, e.envelope, e.body"
)
"""What `stored` reads, in its order."""
WITHOUT_EVENT = COLUMNS.replace("e.envelope, e.body", "''::bytea, ''::bytea")
FROM = " FROM deliveries d JOIN events e ON e.id = d.id "
_LIGHT = COLUMNS.replace(
    "e.body", f"CASE WHEN octet_length(e.body) > {LARGE_BODY} THEN ''::bytea ELSE e.body END, octet_length(e.body)"
)
# Rows that another server locks are another's to wake.
_DUE = (
    "UPDATE deliveries d SET state = 0 FROM (SELECT id FROM deliveries WHERE state = 1 AND owner = $1::bigint"
    " AND due_at <= $2::float8 ORDER BY due_at, id LIMIT $3::bigint FOR UPDATE SKIP LOCKED) AS due"
    " WHERE d.id = due.id RETURNING d.id, d.trigger_id, d.version, d.due_at"
)
COUNTS = "count(*) FILTER (WHERE state = 0), count(*) FILTER (WHERE state = 1)"
"""Of a binding version: how many are ready, and how many wait; the end of a row for `count`."""
_UNFINISHED = (
    "state < 2 AND trigger_id = $1::text AND version {} $2::integer AND state <= $3::smallint"
    " AND attempts <= $4::bigint AND id <> ALL ($5::bigint[]) AND owner = $6::bigint"
)
DEAD_LETTER_SOME = (
    "UPDATE deliveries d SET state = 3, due_at = NULL, settled_at = ${0}::float8,"
    " dead_number = ${1}::bigint + dying.place, reason = ${2}::text, error_class = ${3}::text, error = ${4}::text{5}"
    " FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM deliveries WHERE {6}) AS dying"
    " WHERE d.id = dying.id"
)
"""Make dead letters of what a condition chooses, whose values come first; it is filled in last."""
RELEASE_SOME = claims.RELEASE.format("SELECT id FROM deliveries WHERE {}")


def _giving_up(which: str) -> GiveUpStatements:
    return GiveUpStatements(
        count="SELECT provider, " + COUNTS + " FROM deliveries WHERE " + which + " GROUP BY provider",
        release=RELEASE_SOME.format(which),
        give_up=DEAD_LETTER_SOME.format(7, 8, 9, 10, 11, "", which),
        are_owned=True,
    )


_REDRIVEN = (
    "state >= 2 AND state = 3 AND settled_at >= $1::float8 AND trigger_id = $2::text AND version = $3::integer"
    " AND reason = $4::text"
)


@implementer(IDeliveries)
class PostgresDeliveries(DeliveriesHalf):
    """`IDeliveries` on PostgreSQL."""

    unit = PostgresSettle
    sql = DeliveryStatements(
        ready=(
            "SELECT " + _LIGHT + FROM + "WHERE d.state < 2 AND d.trigger_id = $1::text AND d.version = $2::integer"
            " AND d.state = 0 AND d.owner = $3::bigint AND d.id <> ALL ($4::bigint[]) ORDER BY d.id LIMIT $5::bigint"
        ),
        next_due="SELECT min(due_at) FROM deliveries WHERE state = 1 AND owner = $1::bigint AND due_at > $2::float8",
        find="SELECT " + COLUMNS + FROM + "WHERE d.event_id = $1::text ORDER BY d.id",
        backlog="SELECT trigger_id, version, "
        + COUNTS
        + " FROM deliveries WHERE state < 2 GROUP BY trigger_id, version",
        states=(
            "SELECT d.id, " + STATE + " FROM deliveries d"
            " WHERE d.id = ANY ($1::bigint[]) AND (d.owner = $2::bigint OR d.state >= 2)"
        ),
        owners="SELECT id, owner FROM deliveries WHERE id = ANY ($1::bigint[]) AND state < 2",
        oldest=(
            "SELECT " + WITHOUT_EVENT + " FROM deliveries d WHERE d.state < 2 AND d.trigger_id = $1::text"
            " AND d.version = $2::integer ORDER BY d.id LIMIT 1"
        ),
        # The innermost query ends after so many rows, of any trigger; further columns are of the chosen ones alone.
        recent=(
            "SELECT d.event_id, d.trigger_id, d.version, d.kind, d.received_at, e.envelope, e.body,"
            " " + STATE + ", d.reason, d.passed,"
            " (SELECT outcome FROM attempts a WHERE a.delivery_id = d.id ORDER BY a.id DESC LIMIT 1),"
            " EXISTS (SELECT 1 FROM attempts a WHERE a.delivery_id = d.id AND a.outcome = 'success')"
            " FROM (SELECT id, row_number() OVER (PARTITION BY trigger_id ORDER BY id DESC) AS place"
            " FROM (SELECT id, trigger_id FROM deliveries ORDER BY id DESC LIMIT $1::bigint) AS newest"
            " WHERE trigger_id = ANY ($2::text[])) AS chosen"
            " JOIN deliveries d ON d.id = chosen.id JOIN events e ON e.id = d.id WHERE place <= $3::bigint"
            " ORDER BY d.id DESC"
        ),
        of_version=_giving_up(_UNFINISHED.format("=")),
        of_trigger=_giving_up(_UNFINISHED.format(">=")),
        unfinished="SELECT state, version FROM deliveries WHERE id = $1::bigint AND state < 2 AND owner = $2::bigint",
        skip=(
            f"UPDATE deliveries SET state = {DONE}, ended_as = {SKIPPED}, due_at = NULL, settled_at = $1::float8,"
            " skip_reason = $2::text WHERE id = $3::bigint"
        ),
        redriven_claims=claims.RETAKE.format("SELECT id FROM deliveries WHERE " + _REDRIVEN),
        redrive=(
            "UPDATE deliveries SET state = 0, version = $5::integer, owner = $6::bigint, attempts = 0, passed = false,"
            " due_at = NULL, settled_at = NULL, dead_number = NULL, reason = NULL, error_class = NULL, error = NULL"
            " WHERE " + _REDRIVEN
        ),
        advance_due="UPDATE deliveries SET due_at = due_at - $1::float8 WHERE state = 1 AND owner = $2::bigint",
    )

    @writes
    def due(self, session: PostgresSession, now: float, limit: int) -> Sequence[DueDelivery]:
        """See `IDeliveries.due`."""
        rows = session.connection.execute(_DUE, (session.incarnation, float(now), limit)).fetchall()
        return [DueDelivery(*row[:3]) for row in sorted(rows, key=lambda row: (row[3], row[0]))]
