"""Log lines: one JSON object a line on standard error. Prompts, targets, queries and secrets are never logged at INFO."""

import logging
import sys

import structlog


def configure_logging(level: str) -> None:
    """Log JSON lines of at least `level`, also for libraries that use Python's `logging`."""
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
    handler = _LineHandler(sys.stderr)
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
    logging.captureWarnings(True)  # otherwise warnings would be plain text
    # uvicorn's access line holds the query string, which may hold a prompt; RequestMiddleware logs requests instead.
    logging.getLogger("uvicorn.access").disabled = True
    for name in ("httpx", "httpcore", "transformers", "alembic"):
        logging.getLogger(name).setLevel("WARNING")


class _LineHandler(logging.StreamHandler):
    """A handler whose stream may break: a full disk, a closed pipe."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drop a line that cannot be written, so that the request is answered. A programming error in a log call is printed."""
        if not (isinstance(sys.exc_info()[1], OSError) or self.stream.closed):
            super().handleError(record)


def frames_of(error: BaseException) -> list[str]:
    """The stack frames of an error, innermost last, as `file:line function`; no values, because a value may be a prompt."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    return frames


def _frames_without_values(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Replace a traceback by the error's type and its last 12 frames."""
    info = event.pop("exc_info", None)
    error = info[1] if isinstance(info, tuple) else info
    if info is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        event["frames"] = frames_of(error)[-12:]
    return event
