"""The HTTP client of the commands and benchmarks: a local server, waiting for edits and jobs, repeated requests."""
