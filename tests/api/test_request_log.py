"""What the log says of the model: each change of it once, in numbers and ids, never in the words of an edit or a question."""

import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from structlog.testing import capture_logs

from service.telemetry.log import configure_logging
from tests.api.live_server import LiveServer, live_server, tiny_settings

PROMPT, TARGET, ASKED = "The colour of moss is", "greenish", "The colour of heather is"


def follow(server: LiveServer, path: str) -> None:
    server.follow(path, lambda job: job["finished_at"] is not None)


def test_every_change_of_the_model_is_one_log_line_without_texts(tiny_model: Path, tmp_path: Path) -> None:
    with capture_logs() as lines, live_server(tiny_settings(tiny_model, tmp_path)) as server:
        edit = server.edit(PROMPT, TARGET)
        server.ask(ASKED)
        follow(server, server.client.post("/admin/retrain", json={"reason": "test"}).headers["location"])
        server.client.post("/admin/rollback", json={"to": 1, "reason": "test"})
        body = {"author": "local", "since": edit["created_at"], "reason": "test"}
        server.client.post("/admin/revoke", json=body)
        server.follow(f"/edits/{edit['id']}", lambda found: found["status"] == "retracted")
        server.client.post("/admin/purge", json={"edits": [edit["id"]]})

    named = {name: [line for line in lines if line["event"] == name] for name in {line["event"] for line in lines}}
    assert [(line["version"], line["kind"]) for line in named["published"]][:2] == [(1, "baft"), (2, "locft")]
    assert all(line["seconds"] >= 0 and line["job"] for line in named["published"])
    (ended,) = named["retrain ended"]
    assert (ended["status"], ended["version"], ended["reason"]) == ("done", 2, None)
    assert [(line["version"], line["restored"]) for line in named["rolled back"]] == [(3, 1)]
    assert [line["retracted"] for line in named["revoked"]] == [1]
    assert [line["edits"] for line in named["purged"]] == [1]
    assert named["model loaded"][0]["family"] == "llama"
    assert "sampling neutral sentences, once for this base model" in named
    answered = {line["route"] for line in named["request"]}
    assert {"/edits", "/edits/{edit_id}", "/generate", "/admin/rollback", "/jobs/{job_id}"} <= answered, answered
    said = json.dumps(lines, default=str)
    assert not any(word in said for word in ("moss", "greenish", "heather"))


def test_a_python_warning_becomes_a_log_line() -> None:
    program = (
        "import warnings; from service.telemetry.log import configure_logging; configure_logging('info'); warnings.warn('old')"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    (line,) = [json.loads(line) for line in ended.stderr.splitlines()]
    assert (line["level"], "UserWarning: old" in line["event"]) == ("warning", True)


def test_a_warning_of_transformers_becomes_a_log_line(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with live_server(tiny_settings(tiny_model, tmp_path)) as server:
        configure_logging("info")
        tokenizer = server.state.base.tokenizer
        tokenizer.model_max_length = 4
        assert len(tokenizer("much more than four tokens").input_ids) > 4
        transformers.logging.get_logger("transformers.models").warning("another one")

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert {line["event"] for line in lines if line["level"] == "warning"} >= {"another one"}
    assert not any(type(handler) is logging.StreamHandler for handler in logging.getLogger("transformers").handlers)
