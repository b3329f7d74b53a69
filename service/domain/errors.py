"""Every error the service raises on purpose.

ServiceError
├── Refused        the request is at fault; nothing was changed
│   ├── TooLong    a text, a prompt or a body is over its limit
│   └── KeyReused  an idempotency key came again with another body
├── NotFound       what the request names does not exist
├── Gone           it existed and was collected
├── Conflict       the request is sound but the state forbids it
│   └── Stale      a compare-and-swap lost: the head has moved
├── Unavailable    try again later
│   └── Unreadable stored bytes cannot be read by this process now, which says nothing about the bytes
└── Corrupt        stored bytes are not what the rows say; somebody must look

A message is one sentence a user can act on. It names the field at fault and never repeats what was sent. Status codes are the
business of `api/problems.py` alone.
"""


class ServiceError(Exception):
    """Base of all errors raised on purpose; `field` names the part of the request at fault, if one is."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class Refused(ServiceError):
    """The request is at fault and changed nothing."""


class TooLong(Refused):
    """A prompt, a target or a body is longer than the limit that the message names."""


class KeyReused(Refused):
    """An idempotency key was used before by the same author for another body."""


class NotFound(ServiceError):
    """What the request names does not exist."""


class Gone(ServiceError):
    """What the request names existed, and its data was collected."""


class Conflict(ServiceError):
    """The request is sound, but the state of what it names forbids it."""


class Stale(Conflict):
    """The head moved between reading it and changing it."""


class Unavailable(ServiceError):
    """The service cannot do this now; `retry_after_s` says when to ask again."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Unreadable(Unavailable):
    """This process cannot read stored bytes now: a file is missing, a disk is away, too many files are open."""


class Corrupt(ServiceError):
    """Stored bytes were read, and they are not what their row says."""
