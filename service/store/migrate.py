"""Bring a database to the newest schema. Safe to run twice and concurrently. Knows no rows."""

import logging
import threading
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util import CommandError
from sqlalchemy.engine import make_url

from service.domain.errors import Refused, Unavailable
from service.store.connection_errors import NO_DRIVER, explain_connection_error, folder_error

_one_at_a_time = threading.Lock()  # alembic keeps the context of a run in module globals
CAUSES = (
    (("locked", "busy", "lock timeout"), "another process is using it; stop that one and try again"),
    (("full", "no space"), "there is no room left on its disk"),
    (("readonly", "read-only", "permission denied", "must be owner"), "this user may not write to it"),
    (("unable to open",), "its file cannot be opened"),
    (("not a database", "malformed"), "its file is damaged or no database"),
    (("already exists", "no such table", "does not exist"), "its tables are not those of the revision that it names"),
)
NEWER = "The database was made by a newer release: start that one, or restore a backup from before it."
MIGRATIONS = Path(__file__).with_name("migrations")


def upgrade(url: str) -> None:
    """Create or upgrade all tables. An advisory lock serialises upgrades on Postgres. Raises Unavailable or Refused."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        try:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise folder_error(error, "the folder of the database") from error
    logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)
    try:
        with _one_at_a_time:
            command.upgrade(configuration(url), "head")
    except sa.exc.DBAPIError as error:
        raise Unavailable(_sentence(error)) from error
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise Refused(NO_DRIVER, field="database_url") from None
    except CommandError as error:
        if not isinstance(error.__cause__, ResolutionError):
            raise
        raise Unavailable(NEWER) from error


def _sentence(error: sa.exc.DBAPIError) -> str:
    """The cause that an operator can repair. The error's text may quote rows, so at most its class is named."""
    if (cause := explain_connection_error(error.orig)) is not None:
        return f"The database cannot be reached: {cause}."
    text = str(error.orig).lower()
    for words, sentence in CAUSES:
        if any(word in text for word in words):
            return f"The database could not be brought to the newest form: {sentence}."
    if isinstance(error, sa.exc.OperationalError):
        return "The database cannot be reached."
    return f"The database could not be brought to the newest form: it answered with {type(error.orig).__name__}."


def configuration(url: str) -> Config:
    """Alembic's configuration for a database, without a file."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["url"] = url
    return config


def is_current(connection: sa.Connection) -> bool:
    """Whether the schema is the newest that this program knows. Raises Unavailable if a newer release made it."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    known = ScriptDirectory.from_config(config)
    revision = MigrationContext.configure(connection).get_current_revision()
    if revision is not None and revision not in {script.revision for script in known.walk_revisions()}:
        raise Unavailable(NEWER)
    return revision == known.get_current_head()
