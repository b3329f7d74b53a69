"""Comparison of two revisions of the service from outside: by processes, HTTP, and the files that a server writes."""
