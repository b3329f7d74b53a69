"""The reservoir: a uniform sample of bounded size, the same for the same lots, and nothing at all when it is off."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from service.background.prompt_reservoir import MAX_CHARACTERS, PromptReservoir
from service.domain.errors import Unavailable
from service.store import reservoir
from service.store.database import Store
from service.store.wording_search import Match, Wordings
from tests.store.store_kinds import KINDS, new_store

NOW = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture(scope="module", params=KINDS)
def a_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with new_store(request.param, tmp_path_factory.mktemp("store")) as made:
        yield made


@pytest.fixture
def store(a_store: Store) -> Store:
    with a_store.write() as connection:
        reservoir.clear(connection)
    return a_store


def seeded(seed: int) -> Callable[[], int]:
    chance = random.Random(seed)
    return lambda: chance.randrange(reservoir.LOTS)


def filled(store: Store, size: int, prompts: list[str], *, seed: int = 0) -> list[str]:
    """What a reservoir keeps of prompts that were all written before it is asked."""
    kept = PromptReservoir(store, size, draw=seeded(seed), clock=lambda: NOW)
    kept.start()
    for prompt in prompts:
        kept.offer(prompt)
    kept.close()
    return list(kept.sample())


def stored(store: Store) -> list[str]:
    with store.read() as connection:
        return reservoir.sample(connection, 1_000)


def test_never_more_than_the_size_is_kept(store: Store) -> None:
    prompts = [f"prompt {number}" for number in range(200)]

    kept = filled(store, 10, prompts)

    assert len(kept) == len(set(kept)) == 10
    assert set(kept) <= set(prompts)
    assert stored(store) == kept


def test_the_reservoir_keeps_the_lowest_lots(store: Store) -> None:
    prompts = [f"prompt {number}" for number in range(200)]
    draw = seeded(7)
    lots = sorted((draw(), prompt) for prompt in prompts)

    assert filled(store, 10, prompts, seed=7) == [prompt for _, prompt in lots[:10]]


def test_the_reservoir_stays_one_sample_over_a_restart(store: Store) -> None:
    prompts = [f"prompt {number}" for number in range(100)]
    draw = seeded(3)
    for begin in (0, 50):
        again = PromptReservoir(store, 5, draw=draw, clock=lambda: NOW)
        again.start()
        for prompt in prompts[begin : begin + 50]:
            again.offer(prompt)
        again.close()
    draw = seeded(3)
    lots = sorted((draw(), prompt) for prompt in prompts)

    assert stored(store) == [prompt for _, prompt in lots[:5]]


def test_every_prompt_has_the_same_chance_whenever_it_came(store: Store) -> None:
    counted: Counter[str] = Counter()
    for seed in range(120):
        with store.write() as connection:
            reservoir.clear(connection)
        counted.update(filled(store, 5, [str(number) for number in range(20)], seed=seed))

    # 120 draws of 5 out of 20: 30 expected each, standard deviation 4.7; five of them on either side.
    assert set(counted) == {str(number) for number in range(20)}
    assert all(6 < count < 54 for count in counted.values())


def test_a_disabled_reservoir_keeps_nothing_and_removes_old_prompts(store: Store) -> None:
    filled(store, 5, ["a", "b"])

    off = PromptReservoir(store, 0)
    off.start()
    off.offer("c")

    assert off._waiting.empty()  # nor is anything held in memory
    off.close()
    assert off.sample() == ()
    assert stored(store) == []


def test_a_smaller_size_takes_effect_at_the_next_start(store: Store) -> None:
    before = filled(store, 8, [str(number) for number in range(8)])

    assert filled(store, 3, []) == before[:3]


def test_an_unusual_prompt_is_not_kept(store: Store) -> None:
    assert filled(store, 5, ["x" * (MAX_CHARACTERS + 1)]) == []


def test_prompts_that_hold_a_wording_are_forgotten_and_others_not(store: Store) -> None:
    filled(
        store, 9, ["The capital of  Australia is", "Tell me: the CAPITAL of Australia is", "The capital of Austria is", "100% _"]
    )

    with store.write() as connection:
        found = reservoir.find_matches(connection, Wordings(["The capital of Australia is", "of Austria"]))
        assert reservoir.remove(connection, [lot for lot, match in found.items() if match is Match.YES]) == 2

    assert list(found.values()).count(Match.PERHAPS) == 1
    assert sorted(stored(store)) == ["100% _", "The capital of Austria is"]


def test_offering_neither_waits_for_the_database_nor_fails_with_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = PromptReservoir(store, 5, draw=seeded(0), clock=lambda: NOW)
    kept.start()
    entered, away = threading.Event(), threading.Event()
    write = store.write

    def frozen() -> object:
        entered.set()
        assert away.wait(20)
        raise Unavailable("The database cannot be reached.")

    monkeypatch.setattr(store, "write", frozen)
    kept.offer("lost")
    assert entered.wait(20)
    kept.offer("kept")  # returns although the thread that writes is held up
    monkeypatch.setattr(store, "write", write)
    away.set()
    kept.close()

    assert stored(store) == ["kept"]
