"""Every error the service raises on purpose.

ServiceError
├── Refused        the request is at fault; nothing was changed
│   ├── TooLong    a text, a prompt or a body is over its limit
│   └── KeyReused  an idempotency key was used before with another body
├── NotFound       the resource does not exist
├── Gone           the resource existed and was collected
├── Conflict       the request is valid, but the state forbids it
│   └── Stale      a compare-and-swap failed: the head has moved
├── Unavailable    try again later
│   ├── Overloaded too many requests wait already
│   └── Unreadable this process cannot read stored bytes now; the bytes themselves may be sound
├── Uncomputable   the model fails on this request each time; repeating it does not help
└── Corrupt        stored bytes differ from what the rows say; an operator must look

A message is one sentence that a user can act on. It names the field at fault and never repeats the request's content. Only
`api/problems.py` knows HTTP status codes.
"""


class ServiceError(Exception):
    """Base of all errors raised on purpose. `field` names the part of the request at fault, or is None."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class Refused(ServiceError):
    """The request is at fault and changed nothing."""


class TooLong(Refused):
    """A prompt, a target or a body is over the limit that the message names."""


class KeyReused(Refused):
    """An idempotency key was used before by the same author for another body."""


class NotFound(ServiceError):
    """The resource that the request names does not exist."""


class Gone(ServiceError):
    """The resource that the request names existed, and its data was collected."""


class Conflict(ServiceError):
    """The request is valid, but the state of the resource forbids it."""


class Stale(Conflict):
    """The head moved between reading it and changing it."""


class Unavailable(ServiceError):
    """The service cannot do this now. `retry_after_s`: seconds until another attempt is useful."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(Unavailable):
    """Too many requests wait already."""


class Unreadable(Unavailable):
    """This process cannot read stored bytes now: a file is missing, a disk is unavailable, or too many files are open."""


class Uncomputable(ServiceError):
    """The model fails on this request each time that it is computed, also alone."""


class Corrupt(ServiceError):
    """Stored bytes were read, and they differ from what their row says."""
