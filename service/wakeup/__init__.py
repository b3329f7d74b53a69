"""The doorbell between the processes that accept edits and the worker. A ring may be lost: the rows of the database decide."""
