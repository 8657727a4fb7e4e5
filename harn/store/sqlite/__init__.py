"""
The store on SQLite: one file, one writer thread with group commit, one reader thread beside it.

The SQL is plain, through the standard library's `sqlite3`, and all of it is in this package. A layer between
(SQLAlchemy Core was measured) costs 13 % of the rate of durable accepts and 150 ms of import in each process, the
command line's too; another database gets a package of its own with the same interfaces, and its own best SQL.
"""
