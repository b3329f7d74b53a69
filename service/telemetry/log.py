"""Log lines: one JSON object a line on standard error. Prompts, targets, queries and secrets are never passed to it at INFO."""

import logging
import sys

import structlog


def configure_logging(level: str) -> None:
    """Write JSON lines of at least `level`, also for the libraries that use Python's own logging."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = _Lines(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _frames_without_values,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)  # Python's own would be raw lines
    # uvicorn's access line holds the query string, and a query holds prompts: ours replaces it.
    logging.getLogger("uvicorn.access").disabled = True
    for name in ("httpx", "httpcore", "transformers", "alembic"):
        logging.getLogger(name).setLevel("WARNING")


class _Lines(logging.StreamHandler):
    """Lines to a stream that may break: a full disk, a closed pipe, a reader that went away."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop a line that cannot be written: a request is answered all the same. Faults of our own making stay loud."""
        if not (isinstance(sys.exc_info()[1], OSError) or self.stream.closed):
            super().handleError(record)


def frames_of(error: BaseException) -> list[str]:
    """Where an error was raised, innermost last, as `file:line function`; no values, because a message may hold a prompt."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return frames


def _frames_without_values(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Replace a traceback by the error's type and its frames."""
    info = event.pop("exc_info", None)
    error = info[1] if isinstance(info, tuple) else info
    if info is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        event["frames"] = frames_of(error)[-12:]
    return event
