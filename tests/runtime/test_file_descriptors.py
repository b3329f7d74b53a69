"""Connections get the descriptors that the rest of the server leaves."""

import resource
from collections.abc import Callable

import pytest

from service.domain.errors import Refused
from service.runtime import file_descriptors
from service.runtime.file_descriptors import FEWEST, POOL, RESERVED, limit_connections
from service.settings import Settings

OWN = RESERVED + 2 * POOL * 3


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], list[tuple[int, int]]]:
    """A system with other limits; what they were set to."""

    def limit(soft: int, hard: int) -> list[tuple[int, int]]:
        made = [(soft, hard)]
        monkeypatch.setattr(file_descriptors.resource, "getrlimit", lambda _: made[-1])
        monkeypatch.setattr(file_descriptors.resource, "setrlimit", lambda _, pair: made.append(pair))
        return made

    return limit


def test_the_soft_limit_is_raised_as_far_as_the_system_allows(limited: Callable[[int, int], list[tuple[int, int]]]) -> None:
    made = limited(1024, 100_000)

    assert limit_connections(Settings()).limits.connections == 2_000
    assert made[-1] == (OWN + 2_000, 100_000)


def test_where_that_is_not_enough_there_are_fewer_connections(limited: Callable[[int, int], list[tuple[int, int]]]) -> None:
    limited(1024, 1024)

    assert limit_connections(Settings()).limits.connections == 1024 - OWN


def test_a_limit_under_which_nobody_could_connect_is_refused_with_the_figures(
    limited: Callable[[int, int], list[tuple[int, int]]],
) -> None:
    limited(160, 160)

    with pytest.raises(Refused, match=rf"the limit of open files is 160, and a server needs {OWN + FEWEST}"):
        limit_connections(Settings())


def test_without_a_limit_nothing_changes(limited: Callable[[int, int], list[tuple[int, int]]]) -> None:
    made = limited(resource.RLIM_INFINITY, resource.RLIM_INFINITY)

    assert limit_connections(Settings()).limits.connections == 2_000
    assert len(made) == 1
