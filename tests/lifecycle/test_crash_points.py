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
from service.domain.version import VersionKind
from service.lifecycle import crash_points
from service.lifecycle.submit import submit
from service.store import jobs
from service.store.migrate import upgrade
from tests.lifecycle.local_store import House, new_house
from tests.servers import postgres_database

Story = tuple[tuple[str, ...], tuple[str, ...], str | None]
STORY = [(("a", "1"), ("b", "2")), (("c", "3"),), (("a", "4"),)]
ELSEWHERE = ("purge.", "revoke.")  # these have tests of their own
POINTS = sorted(point for point in crash_points.POINTS if not point.startswith(ELSEWHERE))
LATER = ["submit.after_commit:2", "publish.before_commit:2", "publish.after_commit:3", "publish.after_save:3", "fit.middle:3"]


def tell(house: House) -> Story:
    """Submit, apply, retrain, roll back, each step only if it was not done before; then what came of it."""
    for number, facts in enumerate(STORY):
        requests = [EditRequest(prompt=prompt, target=target) for prompt, target in facts]
        submit(house.store, requests, author="ann", idempotency_key=str(number), body_hash="1")
        house.worker.drain()
        if number == 1 and not retrained(house):
            house.retrain()
            house.worker.drain()
    if not any(version.kind is VersionKind.ROLLBACK for version in house.versions()):
        retrain = next(version for version in house.versions() if version.kind is VersionKind.LOCFT)
        house.roll_back(retrain.number)
    house.worker.drain()
    numbers = [version.number for version in house.versions()]
    assert numbers == list(range(len(numbers)))
    assert [version.parent for version in house.versions()[1:]] == numbers[:-1]
    answers = tuple(house.says(name) for name in "abc")
    return tuple(edit.status for edit in house.all_edits()), answers, house.head.digest


def retrained(house: House) -> bool:
    with house.store.read() as connection:
        return bool(jobs.page(connection, limit=1, kind="retrain"))


@lru_cache(maxsize=1)
def undisturbed() -> Story:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        house = new_house(Path(folder))
        told = tell(house)
        house.close()
    return told


def dies_telling(make: Callable[[], House], point: str) -> bool:
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
def houses(kind: str, folder: Path) -> Iterator[Callable[[], House]]:
    """Makes houses over one new database, one after the other."""
    if kind == "sqlite":
        new_house(folder).close()
        yield lambda: House(f"sqlite:///{folder / 'errata.db'}", folder / "checkpoints")
    else:
        with postgres_database() as url:
            upgrade(url)
            yield lambda: House(url, folder / "checkpoints")


@pytest.mark.parametrize(
    ("kind", "point"),
    [("sqlite", point) for point in POINTS + LATER] + [("postgres", point) for point in POINTS if "commit" in point],
)
def test_a_process_killed_at_a_point_leaves_nothing_undone(kind: str, point: str, tmp_path: Path) -> None:
    with houses(kind, tmp_path) as make:
        assert dies_telling(make, point), "the story never came to this point"

        house = make()
        told = tell(house)
        house.close()

    assert told == undisturbed()


def test_an_unknown_point_is_refused() -> None:
    with pytest.raises(ValueError, match="fault_point"):
        crash_points.arm("somewhere")
    crash_points.arm(None)
    crash_points.crash_point("submit.before_commit")
