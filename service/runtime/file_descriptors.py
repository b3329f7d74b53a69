"""A budget of file descriptors, made at the start: connections get the descriptors that the rest of the server leaves.

Without a budget, any next open fails when the descriptors are used up: a connection, a database file, a checkpoint, a template.
"""

import resource

import structlog

from service.domain.errors import Refused
from service.settings import Settings
from service.store.database import POOL

BACKLOG = 256  # connections that wait to be accepted; asyncio accepts all of them before it closes any
FILES = 128  # of the model while it is loaded, checkpoints, exports, spilled activations, Redis, pipes, the log
RESERVED = FILES + BACKLOG
HEALTH_CONNECTIONS = 64  # to the port for health checks; as many may wait to be accepted
PER_CONNECTION = 3  # a SQLite connection opens the file, its log and the log's index
POOLS = 2  # of database connections: one for reading, one for writing
MIN_CONNECTIONS = 16  # with fewer a server is of no use
log = structlog.get_logger("errata.server")


def limit_connections(settings: Settings) -> Settings:
    """The settings with at most as many connections as descriptors remain. The soft limit is raised first, as far as the system
    allows. Raises Refused if fewer than 16 connections remain.
    """
    of_health_checks = 0 if settings.health_port is None else 2 * HEALTH_CONNECTIONS
    own = RESERVED + POOLS * POOL * PER_CONNECTION + of_health_checks
    limit = _raise_soft_limit(own + settings.limits.connections)
    remaining = limit - own
    if remaining >= settings.limits.connections:
        return settings
    if remaining < MIN_CONNECTIONS:
        raise Refused(
            f"the limit of open files is {limit}, and a server needs {own + MIN_CONNECTIONS}: raise it (ulimit -n, LimitNOFILE)",
            field="limits.connections",
        )
    advice = "raise the limit of open files (ulimit -n, LimitNOFILE) or lower limits.connections"
    log.warning("fewer connections than were asked for", connections=remaining, asked=settings.limits.connections, advice=advice)
    return settings.model_copy(update={"limits": settings.limits.model_copy(update={"connections": remaining})})


def _raise_soft_limit(target: int) -> int:
    """Raise the soft limit to `target`, or to the hard limit if that is lower; the soft limit afterwards."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return target
    if soft < target:
        soft = target if hard == resource.RLIM_INFINITY else min(target, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft
