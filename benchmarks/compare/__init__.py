"""Two revisions of the service side by side, seen from outside: processes, HTTP, and the files that a server leaves."""
