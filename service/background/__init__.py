"""What moves no head and runs beside the edits: evaluations, exports, the monitor, collecting, purging."""
