"""The only place with SQL: the two database files, their migrations, and functions over `sqlite3.Connection`.

May import `daemon.model`, settings, clock, log, lock, and what is below them. The only package that imports aiosqlite.
"""
