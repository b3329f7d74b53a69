"""The database holds the state: tables, transactions and plain functions that read and write rows. Knows no model and no HTTP.

A function that takes a connection runs inside its caller's transaction. Only `database.Store.write` commits.
"""
