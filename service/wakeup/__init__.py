"""The doorbell between those who accept edits and the worker. All of it may vanish at any moment: the table is the truth."""
