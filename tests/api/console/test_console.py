"""The page in a real browser, in front of a real server. Skipped where there is no Chromium."""

import shutil
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.domain.acceptance import Decision
from service.lifecycle import apply
from service.lifecycle.job_hooks import JobHooks
from service.store import jobs
from tests.api.live_server import LiveServer


def seen_by(server: LiveServer, profile: Path) -> str:
    """The page as it stands after its first look at the server."""
    program = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    ways = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={profile}")
    command = [program, *ways, "--virtual-time-budget=2000", "--dump-dom", f"http://127.0.0.1:{server.port}/"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def rows_of(page: str, table: str) -> list[str]:
    body = page.split(f'<tbody id="{table}">')[1].split("</tbody>")[0]
    return body.split("</tr>")[:-1]


def test_a_retrain_that_runs_is_shown_with_its_stage_however_many_edits_came_since(
    fresh: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh.edit("The colour of moss is", "<b>green</b>")
    began, go_on = threading.Event(), threading.Event()
    keep_progress = JobHooks._progress

    def held_up(hooks: JobHooks, share: float, stage: str) -> None:
        keep_progress(hooks, share, stage)
        if threading.current_thread().name == "errata-retrain":
            began.set()
            assert go_on.wait(120)

    monkeypatch.setattr(JobHooks, "_progress", held_up)
    asked = fresh.client.post("/admin/retrain", json={"reason": "test", "mode": "major"}).json()
    assert began.wait(30)
    try:
        with fresh.state.store.write() as connection:
            for _ in range(9):
                job = jobs.insert(connection, "apply", reason=None, author="local", now=datetime.now(UTC))
                jobs.finish(connection, job.id, now=datetime.now(UTC))
        page = seen_by(fresh, tmp_path)
    finally:
        go_on.set()

    (row,) = rows_of(page, "jobs")
    assert asked["id"] in row
    assert "major retrain" in row
    assert "running" in row
    (edit,) = rows_of(page, "edits")
    assert "&lt;b&gt;green&lt;/b&gt;" in edit
    numbers = [row.split("<td")[1].split(">", 1)[1].removesuffix("</td>") for row in rows_of(page, "versions")]
    assert numbers[0].endswith("(answers)")
    assert numbers[-1] == "0"
    assert 'id="unreached" class="bad" role="alert"></p>' in page


def test_a_deferred_edit_says_why_and_when_it_is_tried_next_and_a_forced_one_that_it_is(
    fresh: LiveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = Decision(False, ("locality would fall",), {}, is_about_locality=True)
    monkeypatch.setattr(apply.acceptance, "judge_scores", lambda *given, **named: refused)
    fresh.edit("The colour of moss is", "green")
    fresh.edit("The colour of coal is", "black", accept="anyway")

    page = seen_by(fresh, tmp_path)

    forced, deferred = rows_of(page, "edits")
    assert (
        "deferred: locality would fall, also with the rest held more firmly; it waits for the next retrain (tried 1 time). Next: "
        in deferred
    )
    assert "applied, accepted anyway" in forced
    assert "baft, accepted anyway" in rows_of(page, "versions")[0]
