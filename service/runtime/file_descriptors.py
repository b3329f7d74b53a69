"""Open files, sockets among them, against the limit of the system: a budget that is made at the start, not found out under load.

What fails when it is used up is whatever comes next: a connection, a database file, a checkpoint, a template. So connections get
what is left when the rest has its share.
"""

import resource

import structlog

from service.domain.errors import Refused
from service.settings import Settings
from service.store.database import POOL

BACKLOG = 256  # connections that wait to be accepted; asyncio accepts all of them before it lets any be closed
FILES = 128  # the model's files while they are read, checkpoints, exports, spilled activations, Redis, pipes, the log
RESERVED = FILES + BACKLOG
PER_CONNECTION = 3  # of a SQLite connection: the file, its log, the log's index
POOLS = 2  # one that reads, one that writes
FEWEST = 16  # connections with which a server is of any use
log = structlog.get_logger("errata.server")


def limit_connections(settings: Settings) -> Settings:
    """The same settings with no more connections than there are descriptors for; the soft limit is raised first, as far as the
    system allows. Raises Refused if that leaves next to none.
    """
    own = RESERVED + POOLS * POOL * PER_CONNECTION
    limit = _raised(own + settings.limits.connections)
    room = limit - own
    if room >= settings.limits.connections:
        return settings
    if room < FEWEST:
        raise Refused(
            f"the limit of open files is {limit}, and a server needs {own + FEWEST}: raise it (ulimit -n, LimitNOFILE)",
            field="limits.connections",
        )
    advice = "raise the limit of open files (ulimit -n, LimitNOFILE) or lower limits.connections"
    log.warning("fewer connections than were asked for", connections=room, asked=settings.limits.connections, advice=advice)
    return settings.model_copy(update={"limits": settings.limits.model_copy(update={"connections": room})})


def _raised(wanted: int) -> int:
    """The soft limit after it was raised to what is wanted, if it was lower and the hard limit allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
