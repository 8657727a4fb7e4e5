"""The work of PostgreSQL: the processor time of its processes, and its transactions."""

from __future__ import annotations

from attrs import frozen

from benchmarks.cores import cpu_seconds

_COMMITTED = "SELECT sum(xact_commit + xact_rollback)::bigint FROM pg_stat_database"


@frozen
class Work:
    """So far: seconds of processor time, of processes that have ended too, and transactions."""

    seconds: float
    transactions: int

    def since(self, before: Work) -> Work:
        """Return the work since an earlier reading."""
        return Work(self.seconds - before.seconds, self.transactions - before.transactions)


def work_of(pid: int, url: str) -> Work:
    """Read the work of a server by the process id of its first process, and its address."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_force_next_flush()")
        found = connection.execute(_COMMITTED).fetchone()
    assert found is not None
    return Work(cpu_seconds(pid), int(found[0]))
