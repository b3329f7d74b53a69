"""The doorbell between those who accept edits and the worker. Everything here may vanish at any moment: the table is the truth."""
