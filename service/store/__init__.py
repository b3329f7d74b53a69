"""The database as the truth: tables, transactions and plain functions that read and write rows. It knows no model and no HTTP.

A function that takes a connection runs inside its caller's transaction; only `session.Store.write` commits.
"""
