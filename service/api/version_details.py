"""How a version came to its tensors, and how well it does: what `/versions` and `/model` say alike."""

from typing import Any

from sqlalchemy.engine import Connection

from service.api.schemas.versions import MeasuredOut
from service.domain.version import Version
from service.store import measurements


def read_details(connection: Connection, version: Version) -> dict[str, Any]:
    """The fields `minors`, `major_at`, `drift` and `measured` of an answer."""
    known = measurements.read_nearest(connection, version.number)
    return {
        "minors": version.minors,
        "major_at": version.major_at,
        "drift": version.scores.get("drift"),
        "measured": {
            name: MeasuredOut(score=one.score, n=one.n, how=one.how, source=one.source, version=one.version, at=one.at)
            for name, one in known.items()
        },
    }
