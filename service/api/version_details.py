"""Fields that `/versions` and `/model` share: the retrains behind a version's tensors, and its measurements."""

from typing import Any

from sqlalchemy.engine import Connection

from service.api.schemas.versions import MeasuredOut
from service.domain.version import Version
from service.store import measurements


def read_details(connection: Connection, version: Version) -> dict[str, Any]:
    """The fields `minors`, `major_at`, `drift` and `measured` of an answer."""
    figures = measurements.read_nearest(connection, version.number)
    return {
        "minors": version.minors,
        "major_at": version.major_at,
        "drift": version.scores.get("drift"),
        "measured": {
            name: MeasuredOut(
                score=figure.score,
                n=figure.n,
                how=figure.how,
                interval=None if figure.low is None or figure.high is None else (figure.low, figure.high),
                floor=figure.floor,
                source=figure.source,
                version=figure.version,
                at=figure.at,
            )
            for name, figure in figures.items()
        },
    }
