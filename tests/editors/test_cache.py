"""What fits share: made once, kept while it is in use, and never waited for by who wants something else."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.editors.cache import KeyedCache

LONG_S = 30.0  # only a failing test takes so long


class Maker:
    """Makes `what` when it is let, and says when it has begun."""

    def __init__(self, what: object) -> None:
        self.what, self.times = what, 0
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self) -> object:
        self.times += 1
        self.has_begun.set()
        assert self.may_end.wait(LONG_S)
        if isinstance(self.what, Exception):
            raise self.what
        return self.what


def held(shelf: KeyedCache, *names: str) -> list[str]:
    """Which names need no making."""
    return [name for name in names if shelf.ready(("kind", name), lambda: None, keep=100) == name]


def put(shelf: KeyedCache, name: str, *, keep: int = 2, ahead: bool = False) -> None:
    assert shelf.ready(("kind", name), lambda: name, keep=keep, ahead=ahead) == name


def test_while_one_thing_is_made_another_of_its_kind_is_looked_up_and_made():
    shelf, slow = KeyedCache(), Maker("slow")
    put(shelf, "there")
    with ThreadPoolExecutor(2) as threads:
        making = threads.submit(shelf.ready, ("kind", "slow"), slow, keep=2)
        assert slow.has_begun.wait(LONG_S)
        try:
            other = threads.submit(lambda: [put(shelf, "there"), put(shelf, "new", keep=3)])

            assert other.result(LONG_S) == [None, None]
            assert not making.done()
        finally:
            slow.may_end.set()


def test_who_asks_for_what_is_being_made_gets_that():
    shelf, slow = KeyedCache(), Maker(object())
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(shelf.ready, ("kind", "slow"), slow, keep=2) for _ in range(2)]
        assert slow.has_begun.wait(LONG_S)
        slow.may_end.set()

        assert [each.result(LONG_S) for each in both] == [slow.what, slow.what]
    assert slow.times == 1


def test_what_one_failed_to_make_the_next_who_asks_makes():
    shelf, failing = KeyedCache(), Maker(ValueError())
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(shelf.ready, ("kind", "name"), failing, keep=2)
        assert failing.has_begun.wait(LONG_S)
        second = threads.submit(shelf.ready, ("kind", "name"), lambda: "made", keep=2)
        failing.may_end.set()

        assert second.result(LONG_S) == "made"
        with pytest.raises(ValueError):
            first.result(LONG_S)
    assert shelf.ready(("kind", "name"), lambda: "again", keep=2) == "made"


def test_the_longest_unused_of_a_kind_leaves_first():
    shelf = KeyedCache()
    for name in ("first", "second", "first", "third"):
        put(shelf, name)
    shelf.ready(("other kind", "fourth"), lambda: "fourth", keep=2)

    assert held(shelf, "first", "third", "second") == ["first", "third"]


def test_what_was_made_ahead_and_never_used_leaves_before_what_is_in_use():
    shelf = KeyedCache()
    put(shelf, "head")
    for name in ("unpublished", "unpublished too", "published"):
        put(shelf, name, ahead=True)

    assert held(shelf, "head", "published", "unpublished", "unpublished too") == ["head", "published"]


def test_what_was_made_ahead_stays_once_it_is_used():
    shelf = KeyedCache()
    put(shelf, "old head")
    put(shelf, "head", ahead=True)
    put(shelf, "head")
    put(shelf, "next", ahead=True)

    assert held(shelf, "head", "next", "old head") == ["head", "next"]
