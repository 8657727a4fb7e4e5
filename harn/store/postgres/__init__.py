"""
The store on PostgreSQL: one database, one writer thread with group commit, one reader thread beside it.

Each idea of `harn.store` has a module of the same name here, as in `harn.store.sqlite`: its tables, its statements, and
one class that implements its interface. psycopg is imported with the first connection, and by
`harn.store.postgres.connection` alone. Values go to the database as binary arrays, one for each column, so that a batch
is one statement, whose plan is kept.

The writers of all servers on one database take turns: each transaction holds an advisory lock until it is committed. So
the numbers of deliveries rise with each commit, and what is read before it is changed is as it was read.
"""
