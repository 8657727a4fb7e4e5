"""Keep a mirror of GitHub's issues in PostgreSQL; `schema.sql` has the table."""

from typing import Any

from harn.handlers import Context, TriggerEvent

UPSERT = """
INSERT INTO issues (id, repository, number, title, state, deleted, updated_at)
VALUES (%(id)s, %(repository)s, %(number)s, %(title)s, %(state)s, %(deleted)s, %(updated_at)s)
ON CONFLICT (id) DO UPDATE SET
    repository = excluded.repository, number = excluded.number, title = excluded.title, state = excluded.state,
    deleted = excluded.deleted, updated_at = excluded.updated_at
WHERE excluded.updated_at >= issues.updated_at AND NOT issues.deleted
"""
"""
One statement, so that it does not matter how often an event is handled, or in which order: an older state never
replaces a newer one (GitHub's times are ISO 8601 in UTC, which sort as texts), and what was deleted stays so.
"""


def mirror(event: TriggerEvent, context: Context) -> dict:
    """Write the issue of the event."""
    row = row_of(event)
    with connect(context.secret_sync("postgresql/url")) as connection:
        written = connection.execute(UPSERT, row).rowcount
    if not written:
        context.log.info("an older event, nothing to change", issue=row["number"])
    return {"issue": row["number"], "written": bool(written)}


def row_of(event: TriggerEvent) -> dict[str, Any]:
    """Return the values of the issue's row."""
    body = event.provider_payload["raw"]
    issue = body["issue"]
    return {
        "id": issue["id"],
        "repository": body["repository"]["full_name"],
        "number": issue["number"],
        "title": issue["title"],
        "state": issue["state"],
        "deleted": body["action"] in ("deleted", "transferred"),
        "updated_at": issue["updated_at"],
    }


def connect(url: str) -> Any:
    """Connect; the block commits at its end, or rolls back. Imported here, so that tests need no driver."""
    import psycopg

    return psycopg.connect(url, connect_timeout=5)
