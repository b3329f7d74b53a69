"""Errors of a call to a server: a problem that the server reports, and a server that cannot be reached."""

from collections.abc import Sequence

from service.client.shapes import FaultData
from service.domain.errors import ServiceError, Unavailable


class ServerProblem(ServiceError):
    """An answer that reports a problem (RFC 9457).

    `status` is the HTTP status; `type` and `title` name the kind of problem; `detail` is one sentence about this request;
    `fields` are the fields at fault, each with its sentence. `field` is the first of them.
    """

    def __init__(
        self, status: int, detail: str, *, type: str = "about:blank", title: str = "", fields: Sequence[FaultData] = ()
    ) -> None:
        super().__init__(detail, field=fields[0]["field"] if fields else None)
        self.status, self.type, self.title, self.detail, self.fields = status, type, title, detail, tuple(fields)


class TimedOut(Unavailable):
    """What was waited for did not end within the time that the caller gave."""


class Unreachable(Unavailable):
    """No answer came: the server cannot be reached, or the connection was cut. `cause` names the network's error."""

    def __init__(self, cause: str) -> None:
        super().__init__(f"the server cannot be reached ({cause})")
        self.cause = cause
