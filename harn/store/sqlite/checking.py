"""
Whether a database is sound: its pages and indices, its schema, and what its tables say of each other; and its contents.

Reads everything, on one state of the database, and changes nothing: it may be done beside a server that runs. A backup
notes where it comes from in a table that a server's own database does not have.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from msgspec import Struct

from harn.store.backup import BackupOrigin, Contents, Finding
from harn.store.rows import NAMES
from harn.store.sqlite.connection import RESTORE_ADVICE as RESTORE
from harn.store.sqlite.connection import Session
from harn.store.sqlite.mark import Mark, shortfall
from harn.store.sqlite.migrations import SCHEMA_VERSION
from harn.store.sqlite.schema import SCHEMA

MOST_FINDINGS = 20
"""Lines of SQLite's own check that are shown."""

REINDEX = (
    "the rows themselves may be whole: stop the server, copy the state directory, rebuild the indices with"
    " harn orchestrator compact, and check again; else restore the last good backup"
)
DISCARD = "nothing that is unfinished is lost by it; restore the last good backup if you need what is missing"


class Relation(Struct, frozen=True, kw_only=True):
    """
    Something that two tables must say alike.

    :ivar query: gives the count of what does not, and one example.
    :ivar what: says it, with ``{count}`` and ``{example}``.
    """

    query: str
    what: str
    hint: str = RESTORE


_RELATIONS = (
    Relation(
        query="SELECT count(*), min(d.id) FROM deliveries d WHERE d.state < 2"
        " AND NOT EXISTS (SELECT 1 FROM events e WHERE e.id = d.id)",
        what="{count} unfinished deliveries have no event, for example delivery {example}",
    ),
    Relation(
        query="SELECT count(*), min(d.id) FROM deliveries d WHERE d.state >= 2"
        " AND NOT EXISTS (SELECT 1 FROM events e WHERE e.id = d.id)",
        what="{count} finished deliveries have no event, for example delivery {example}",
        hint=DISCARD,
    ),
    Relation(
        query="SELECT count(*), min(e.id) FROM events e WHERE NOT EXISTS"
        " (SELECT 1 FROM deliveries d WHERE d.id = e.id)",
        what="{count} events have no delivery, for example event {example}",
    ),
    Relation(
        query="SELECT count(*), min(a.id) FROM attempts a WHERE NOT EXISTS"
        " (SELECT 1 FROM deliveries d WHERE d.id = a.delivery_id)",
        what="{count} attempts have no delivery, for example attempt {example}",
        hint=DISCARD,
    ),
    Relation(
        query="SELECT count(*), min(id) FROM deliveries WHERE state = 3 AND dead_number IS NULL",
        what="{count} dead letters have no number, for example delivery {example}",
    ),
    Relation(
        query="SELECT count(*), min(id) FROM deliveries WHERE state >= 2 AND settled_at IS NULL",
        what="{count} finished deliveries do not say when they ended, for example delivery {example}",
        hint=DISCARD,
    ),
    Relation(
        query="SELECT count(*), min(number) FROM generations g WHERE adopted_at IS NOT NULL AND manifest_digest <> ''"
        " AND (NOT EXISTS (SELECT 1 FROM manifests m WHERE m.digest = g.manifest_digest)"
        " OR NOT EXISTS (SELECT 1 FROM bundles b WHERE b.bundle_id = g.bundle_id))",
        what="{count} generations have lost their manifest or code, for example generation {example}",
        hint="they cannot be rolled back to; a reload of the files makes a new generation that can",
    ),
    Relation(
        query="SELECT count(*), min(b.trigger_id || '@v' || b.version) FROM binding_versions b"
        " WHERE NOT EXISTS (SELECT 1 FROM bundles u WHERE u.bundle_id = b.bundle_id)",
        what="{count} binding versions have lost their code, for example {example}",
        hint="deliveries that are pinned to them go to the newest version; a changed trigger is recorded again",
    ),
)


def check_database(connection: sqlite3.Connection, noted: Mark | None = None) -> list[Finding]:
    """
    Return everything that is wrong with a database, within one transaction.

    :param noted: how far it had come, as its mark says; read before the transaction began.
    :raises sqlite3.Error: it cannot even be read.
    """
    findings = [*(_damages(connection) or _schema_differences(connection))]
    if findings:
        return findings  # what a damaged table says of others means little
    if noted is not None:
        findings += _losses(connection, noted)
    for relation in _RELATIONS:
        count, example = connection.execute(relation.query).fetchone()
        if count:
            findings.append(Finding(what=relation.what.format(count=count, example=example), hint=relation.hint))
    return findings


def look_at_database(connection: sqlite3.Connection, noted: Mark | None, *, with_pages: bool) -> list[Finding]:
    """
    Return the findings of a check that takes moments however large a database is; see `check_database`.

    :param with_pages: read all pages, too, but compare no indices with their tables.
    :raises sqlite3.Error: it cannot even be read.
    """
    findings = [*(_damages(connection, "quick_check") if with_pages else ()), *_schema_differences(connection)]
    if findings:
        return findings
    if noted is not None:
        findings += _losses(connection, noted)
    count, example = connection.execute(_NEWEST).fetchone()
    if count:
        what = f"{count} of the newest {MOST_LOOKED_AT} deliveries have no event, for example delivery {example}"
        findings.append(Finding(what=what, hint=RESTORE))
    return findings


MOST_LOOKED_AT = 1000
_NEWEST = (
    f"SELECT count(*), min(d.id) FROM (SELECT id FROM deliveries ORDER BY id DESC LIMIT {MOST_LOOKED_AT}) d"  # noqa: S608 - a constant
    " WHERE NOT EXISTS (SELECT 1 FROM events e WHERE e.id = d.id)"
)


def _damages(connection: sqlite3.Connection, pragma: str = "integrity_check") -> list[Finding]:
    """Return the findings of SQLite: pages, cells and the entries of indices."""
    found = [line for (line,) in connection.execute(f"PRAGMA {pragma}({MOST_FINDINGS})")]
    if found == ["ok"]:
        return []
    only_indices = all(line.startswith(("row ", "wrong # of entries in index", "non-unique entry")) for line in found)
    hint = REINDEX if only_indices else RESTORE
    return [Finding(what=f"SQLite: {line}".rstrip(), hint=hint, is_damage=True) for line in found]


def _schema_differences(connection: sqlite3.Connection) -> Iterator[Finding]:
    """Yield the tables, columns and indices of this version's schema that are not there."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    there = _described(connection)
    for name, columns in expected_schema().items():
        if name not in there:
            if version >= SCHEMA_VERSION or not _comes_with_a_migration(name):
                is_table = name.startswith("table ")
                yield Finding(what=f"{name} is missing", hint=RESTORE if is_table else REINDEX, is_damage=is_table)
        elif version >= SCHEMA_VERSION and not columns <= there[name]:
            missing = ", ".join(sorted(columns - there[name]))
            yield Finding(what=f"{name} has no column {missing}", hint=RESTORE, is_damage=True)


def _comes_with_a_migration(name: str) -> bool:
    """Return whether an older schema may lack it; the tables that hold deliveries were in the first."""
    return name not in {f"table {table}" for table in ("deliveries", "events", "attempts", "log", "generations")}


def expected_schema() -> dict[str, frozenset[str]]:
    """Return the tables and indices of this version's schema, with the columns of each."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.executescript(SCHEMA)
        return _described(connection)
    finally:
        connection.close()


def _described(connection: sqlite3.Connection) -> dict[str, frozenset[str]]:
    names = connection.execute(
        "SELECT type, name FROM sqlite_master WHERE type IN ('table', 'index') AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    found: dict[str, frozenset[str]] = {}
    for kind, name in names:
        columns = "table_info" if kind == "table" else "index_info"
        rows = connection.execute(f"SELECT name FROM pragma_{columns}(?)", (name,)).fetchall()  # noqa: S608
        found[f"{kind} {name}"] = frozenset(column for (column,) in rows)
    return found


def _losses(connection: sqlite3.Connection, noted: Mark) -> Iterator[Finding]:
    """Yield the records that were on disk once and are not there."""
    short = shortfall(noted, Mark.found(connection, Session(connection, 0).numbers))
    if short:
        yield Finding(what=f"what was on disk once is missing: {', '.join(short)}", hint=RESTORE)


TABLE = "backup"
"""Of names and values; dropped when the backup is restored."""

_DELIVERIES = "SELECT max(state, ended_as), count(*) FROM deliveries GROUP BY 1"
_DELIVERIES_BEFORE = "SELECT state, count(*) FROM deliveries GROUP BY 1"  # of schemas below 4
_GENERATIONS = "SELECT coalesce(max(number), 0), count(*) FROM generations WHERE adopted_at IS NOT NULL"


def read_contents(connection: sqlite3.Connection) -> Contents:
    """
    Count the rows of a database of harn's; reads the whole of some tables.

    :raises sqlite3.Error: it cannot be read.
    """
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    generation, generations = connection.execute(_GENERATIONS).fetchone()
    counted = connection.execute(_DELIVERIES if schema >= 4 else _DELIVERIES_BEFORE).fetchall()
    (records,) = connection.execute("SELECT count(*) FROM log").fetchone()
    newest = connection.execute("SELECT received_at FROM deliveries ORDER BY id DESC LIMIT 1").fetchone()
    return Contents(
        schema=schema,
        generation=generation,
        generations=generations,
        deliveries={NAMES[number]: count for number, count in counted},
        records=records,
        last_received_at=None if newest is None else newest[0],
    )


def write_origin(connection: sqlite3.Connection, origin: BackupOrigin) -> None:
    """Write into a copy of a database where it comes from; replaces what an earlier backup noted."""
    connection.execute(f"DROP TABLE IF EXISTS {TABLE}")
    connection.execute(f"CREATE TABLE {TABLE} (name TEXT PRIMARY KEY, value)")
    values = (
        ("made_at", origin.made_at),
        ("harn_version", origin.harn_version),
        ("host", origin.host),
        ("digest_key", origin.digest_key),
    )
    connection.executemany(f"INSERT INTO {TABLE} VALUES (?, ?)", values)  # noqa: S608 - a constant


def read_origin(connection: sqlite3.Connection) -> BackupOrigin | None:
    """Return where a backup comes from; None for a database that `write_origin` was not called for."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (TABLE,)).fetchone()
    if found is None:
        return None
    values = dict(connection.execute(f"SELECT name, value FROM {TABLE}").fetchall())  # noqa: S608 - a constant
    return BackupOrigin(
        made_at=values["made_at"],
        harn_version=values["harn_version"],
        host=values["host"],
        digest_key=values["digest_key"],
    )


def remove_origin(connection: sqlite3.Connection) -> None:
    """Make a backup a server's own database again."""
    connection.execute(f"DROP TABLE IF EXISTS {TABLE}")
