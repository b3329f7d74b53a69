"""The log: an error is logged without values, and a log that cannot be written fails no request."""

import io
import json
import logging
import sys

import pytest
import structlog

from service.telemetry.log import configure_logging


def test_a_line_that_cannot_be_written_raises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging("info")
    structlog.get_logger().info("first")
    stream.close()

    structlog.get_logger().info("second")
    logging.getLogger("a.library").warning("third")


@pytest.mark.parametrize(("line", "fault"), [("a number: %d", "TypeError"), ("a number: %y", "ValueError")])
def test_a_programming_error_in_a_log_call_is_printed(monkeypatch: pytest.MonkeyPatch, line: str, fault: str) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging("info")

    logging.getLogger("service").info(line, "none")

    assert fault in stream.getvalue()


def test_an_error_is_logged_by_type_and_frames_without_its_message(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logging("info")

    try:
        raise ValueError("the prompt was: secret")
    except ValueError:
        structlog.get_logger().exception("fault")

    line = json.loads(stream.getvalue())
    assert (line["event"], line["level"], line["error"]) == ("fault", "error", "ValueError")
    assert line["frames"][-1].startswith("test_log.py:")
    assert "secret" not in stream.getvalue()
