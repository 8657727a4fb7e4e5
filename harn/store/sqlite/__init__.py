"""
The store on SQLite: one file, one writer thread with group commit, one reader thread beside it.

Each idea of `harn.store` has a module of the same name here: its tables, its statements, and one class that implements
its interface, each method marked with `harn.store.executor.reads` or `writes`. Shared are the writer and its
batches, the workers, connections, the schema and retention.

The SQL is plain, through the standard library's `sqlite3`, and all of it is in this package. A layer between
(SQLAlchemy Core was measured) costs 13 % of the rate of durable accepts and 150 ms of import in each process, the
command line's too; another database gets a package of its own with the same modules, and its own best SQL.
"""
