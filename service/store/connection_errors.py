"""Why a database cannot be opened, as a sentence that an operator can act on. The driver's own text may hold names and rows, so
it is only matched against known causes and never repeated.
"""

import os
import re

from service.domain.errors import Unavailable

# The first match decides. All are errors of connecting: later "does not exist" is about tables.
CONNECTION_ERRORS = (
    (
        r'database ".*" does not exist',
        "the database that database_url names does not exist: make it with `createdb`, or name another",
    ),
    (
        r'role ".*" does not exist|authentication failed|no password supplied|no pg_hba\.conf entry|denied for database',
        "its server refuses the user or the password of database_url, or connections from this machine",
    ),
    (r"resolve host|name or service not known|no address associated|name resolution", "the host of database_url is not known"),
    (r"connection refused|no route to host|network is unreachable|no such file or directory", "nothing listens at database_url"),
    (r"timeout expired|timed out|did not answer", "its server does not answer"),
    (r"too many clients|too many connections|connection slots are reserved", "its server has no connection left"),
    (r"is starting up|is shutting down|in recovery mode", "its server is starting or stopping: try again in a moment"),
    (r"invalid (connection option|uri query parameter|dsn|integer value)", "database_url has an option that is not known"),
)
NO_DRIVER = "database_url is of Postgres, and its driver is not installed: pip install 'errata-server[postgres]'"


def explain_connection_error(error: BaseException | None) -> str | None:
    """Why no connection was made; None if the driver's error has another cause."""
    text = str(error).lower()
    return next((sentence for words, sentence in CONNECTION_ERRORS if re.search(words, text)), None)


def folder_error(error: OSError, what: str) -> Unavailable:
    """An error for a part of the data folder that cannot be written or created."""
    cause = os.strerror(error.errno).lower() if error.errno else "it is not there"
    return Unavailable(f"{what} cannot be written to: {cause}; see that it may be, or give another data_dir")
