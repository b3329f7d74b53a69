"""kill -9 at every named point of one story, for real: a forked process dies there, and another one finishes what was begun.

The oracle is the same story told without a death: the same edits in the same states, the same answers, the same bytes.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pytest

from service.domain.edit import EditRequest
from service.lifecycle import crash_points
from service.store import jobs
from service.store.migrate import upgrade
from tests.lifecycle.local_service import LocalService, new_local_service
from tests.servers import postgres_database
from tests.submission import submit

Story = tuple[tuple[str, ...], tuple[str, ...], str | None]
STORY = [(("a", "1"), ("b", "2")), (("c", "3"),), (("a", "4"),)]
ELSEWHERE = ("context.", "purge.", "rebase.", "revoke.")  # these have tests of their own
POINTS = sorted(point for point in crash_points.POINTS if not point.startswith(ELSEWHERE))
LATER = ["submit.after_commit:2", "publish.before_commit:2", "publish.after_commit:3", "publish.after_save:3", "fit.middle:3"]


def tell(local: LocalService) -> Story:
    """Submit, apply, retrain, roll back, each step only if it was not done before; then what came of it."""
    for number, facts in enumerate(STORY):
        requests = [EditRequest(prompt=prompt, target=target) for prompt, target in facts]
        submit(local.store, requests, author="ann", idempotency_key=str(number), body_hash="1")
        local.worker.drain()
        if number == 1 and not retrained(local):
            local.retrain()
            local.worker.drain()
    if not any(version.kind == "rollback" for version in local.versions()):
        retrain = next(version for version in local.versions() if version.kind == "locft")
        local.roll_back(retrain.number)
    local.worker.drain()
    numbers = [version.number for version in local.versions()]
    assert numbers == list(range(len(numbers)))
    assert [version.parent for version in local.versions()[1:]] == numbers[:-1]
    answers = tuple(local.says(name) for name in "abc")
    return tuple(edit.status for edit in local.all_edits()), answers, local.head.digest


def retrained(local: LocalService) -> bool:
    with local.store.read() as connection:
        return bool(jobs.read_page(connection, limit=1, kind="retrain"))


@lru_cache(maxsize=1)
def undisturbed() -> Story:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        local = new_local_service(Path(folder))
        told = tell(local)
        local.close()
    return told


def dies_telling(make: Callable[[], LocalService], point: str) -> bool:
    """Tell the story in a process that kills itself at a point; whether it got there."""
    child = os.fork()
    if child == 0:
        try:
            crash_points.arm(point)
            tell(make())
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@contextmanager
def services(kind: str, folder: Path) -> Iterator[Callable[[], LocalService]]:
    """Makes services over one new database, one after the other."""
    if kind == "sqlite":
        new_local_service(folder).close()
        yield lambda: LocalService(f"sqlite:///{folder / 'errata.db'}", folder / "checkpoints")
    else:
        with postgres_database() as url:
            upgrade(url)
            yield lambda: LocalService(url, folder / "checkpoints")


@pytest.mark.parametrize(
    ("kind", "point"),
    [("sqlite", point) for point in POINTS + LATER] + [("postgres", point) for point in POINTS if "commit" in point],
)
def test_a_process_killed_at_a_point_leaves_nothing_undone(kind: str, point: str, tmp_path: Path) -> None:
    with services(kind, tmp_path) as make:
        assert dies_telling(make, point), "the story never came to this point"

        local = make()
        told = tell(local)
        local.close()

    assert told == undisturbed()


def test_an_unknown_point_is_refused() -> None:
    with pytest.raises(ValueError, match="fault_point"):
        crash_points.arm("somewhere")
    crash_points.arm(None)
    crash_points.crash_point("submit.before_commit")
