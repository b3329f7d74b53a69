"""The keyed cache: one computation per key, eviction of the least recently used, no waiting between keys."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.editors.cache import KeyedCache

LONG_S = 30.0  # only a failing test takes so long


class Maker:
    """Computes `value` when `may_end` is set, and sets `has_begun` at the start."""

    def __init__(self, value: object) -> None:
        self.value, self.times = value, 0
        self.has_begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self) -> object:
        self.times += 1
        self.has_begun.set()
        assert self.may_end.wait(LONG_S)
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def cached_names(cache: KeyedCache, *names: str) -> list[str]:
    """The names whose values are in the cache."""
    return [name for name in names if cache.get_or_make(("kind", name), lambda: None, keep=100) == name]


def put(cache: KeyedCache, name: str, *, keep: int = 2, ahead: bool = False) -> None:
    assert cache.get_or_make(("kind", name), lambda: name, keep=keep, ahead=ahead) == name


def test_a_computation_does_not_block_other_keys_of_its_kind():
    cache, slow = KeyedCache(), Maker("slow")
    put(cache, "there")
    with ThreadPoolExecutor(2) as threads:
        making = threads.submit(cache.get_or_make, ("kind", "slow"), slow, keep=2)
        assert slow.has_begun.wait(LONG_S)
        try:
            other = threads.submit(lambda: [put(cache, "there"), put(cache, "new", keep=3)])

            assert other.result(LONG_S) == [None, None]
            assert not making.done()
        finally:
            slow.may_end.set()


def test_concurrent_requests_for_one_key_share_one_computation():
    cache, slow = KeyedCache(), Maker(object())
    with ThreadPoolExecutor(2) as threads:
        both = [threads.submit(cache.get_or_make, ("kind", "slow"), slow, keep=2) for _ in range(2)]
        assert slow.has_begun.wait(LONG_S)
        slow.may_end.set()

        assert [each.result(LONG_S) for each in both] == [slow.value, slow.value]
    assert slow.times == 1


def test_after_a_failure_the_next_request_computes_again():
    cache, failing = KeyedCache(), Maker(ValueError())
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(cache.get_or_make, ("kind", "name"), failing, keep=2)
        assert failing.has_begun.wait(LONG_S)
        second = threads.submit(cache.get_or_make, ("kind", "name"), lambda: "made", keep=2)
        failing.may_end.set()

        assert second.result(LONG_S) == "made"
        with pytest.raises(ValueError):
            first.result(LONG_S)
    assert cache.get_or_make(("kind", "name"), lambda: "again", keep=2) == "made"


def test_the_least_recently_used_of_a_kind_is_evicted_first():
    cache = KeyedCache()
    for name in ("first", "second", "first", "third"):
        put(cache, name)
    cache.get_or_make(("other kind", "fourth"), lambda: "fourth", keep=2)

    assert cached_names(cache, "first", "third", "second") == ["first", "third"]


def test_unused_values_made_ahead_are_evicted_before_used_values():
    cache = KeyedCache()
    put(cache, "head")
    for name in ("unpublished", "unpublished too", "published"):
        put(cache, name, ahead=True)

    assert cached_names(cache, "head", "published", "unpublished", "unpublished too") == ["head", "published"]


def test_a_value_made_ahead_stays_after_its_first_use():
    cache = KeyedCache()
    put(cache, "old head")
    put(cache, "head", ahead=True)
    put(cache, "head")
    put(cache, "next", ahead=True)

    assert cached_names(cache, "head", "next", "old head") == ["head", "next"]
