"""kill -9 of a real server at some moments of its work, on SQLite and Postgres; `python -m benchmarks.kill9` does many more."""

import contextlib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from benchmarks.crash_trials import CrashTrials, KillMoment
from benchmarks.kill9 import engine_url
from benchmarks.servers import Zygote, run_server
from tests.servers import postgres_database

ON_SQLITE = (
    KillMoment("edits", "publish.before_commit:2"),
    KillMoment("rollback", "rollback.after_commit"),
    KillMoment("retrain", "retrain.middle"),
    KillMoment("edits", within_s=0.6),
)
ON_POSTGRES = (KillMoment("edits", "publish.after_commit"), KillMoment("edits", "submit.before_commit:2"))


def bodies() -> Iterator[dict[str, Any]]:
    for number in count():
        yield {"prompt": f"Line {number} says", "target": f"{'abcdefgh'[number % 8]}{number}"}


@pytest.mark.parametrize(("database", "moments"), [("sqlite", ON_SQLITE), ("postgres", ON_POSTGRES)], ids=["sqlite", "postgres"])
def test_a_killed_server_restarts_with_everything_it_acknowledged(
    zygote: Zygote, tiny: dict[str, Any], neutral_cache: Path, database: str, moments: tuple[KillMoment, ...]
) -> None:
    with contextlib.ExitStack() as opened:
        url = opened.enter_context(postgres_database()) if database == "postgres" else None
        process = opened.enter_context(run_server(zygote, cache=neutral_cache, **tiny, **({"database_url": url} if url else {})))
        crashes = CrashTrials(process, bodies(), engine_url(url, process), seed=0)
        opened.callback(crashes.close)

        faults = [fault for moment in moments for fault in crashes.run_trial(moment)]

    assert faults == []
