"""Names are found in an edit, and chosen to stand in its subject's place; fits and acceptance use different ones."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from service.domain.edit import Edit, EditStatus
from service.editors.known_names import CANDIDATES, KnownNames, part_of

TABLE = [
    *((name, kind) for name in ("France", "Kenya", "Peru") for kind in ("capital", "continent")),
    ("gold", "symbol"),
    *((name, "author") for name in ("Hamlet", "Macbeth", "Emma")),
]


def edit(prompt: str, subject: str | None = None, **more: Any) -> Edit:
    return Edit(
        prompt=prompt,
        subject=subject,
        target="x",
        id="1",
        seq=1,
        status=EditStatus.QUEUED,
        author="a",
        created_at=datetime.now(UTC),
        **more,
    )


@pytest.mark.parametrize(
    ("prompt", "subject", "found"),
    [
        ("The capital of France is", "France", "France"),
        ("The capital of France is", None, "France"),
        ("Who wrote Tess of the d'Urbervilles?", None, "Tess of the d'Urbervilles"),
        ("What is France's capital?", None, "France"),
        ("Where was Marie Curie born?", None, "Marie Curie"),
        ("The capital of France is", "Kenya", "France"),  # the client's subject is not in the prompt
        ("Question: What is its symbol?\nAnswer: The symbol of gold is", None, "gold"),  # known, in lower case
        ("Question: Who was it?\nAnswer: The king. “He", None, None),  # words that begin sentences
        ("water boils at", None, None),
        ("Water boils at", None, None),
    ],
)
def test_the_subject_is_the_client_s_or_read_off_the_prompt(prompt: str, subject: str | None, found: str | None) -> None:
    assert KnownNames(TABLE).find_subject(edit(prompt, subject)) == found


def test_names_of_the_same_kind_come_first_and_each_part_has_its_own() -> None:
    countries = {f"Country {number}" for number in range(40)}
    towns = {f"Town {number}" for number in range(200)}
    names = KnownNames([("Home", "capital"), *((name, "capital") for name in countries), *((name, "mayor") for name in towns)])

    for part in ("fit", "judge", "free"):
        chosen, own = names.choose("Home", "seed", part), {name for name in countries if part_of(name) == part}

        assert set(chosen[: len(own)]) == own and set(chosen[len(own) :]) < towns
        assert {part_of(name) for name in chosen} == {part}
        assert len(chosen) == CANDIDATES and chosen == names.choose("Home", "seed", part)


def test_a_name_that_holds_the_subject_or_is_in_it_is_not_chosen() -> None:
    names = KnownNames([(name, "capital") for name in ("Guinea", "Papua New Guinea", "Mali", "Chad", "Togo", "Niger", "Nigeria")])

    chosen = [name for part in ("fit", "judge", "free") for name in names.choose("Guinea", "seed", part)]

    assert set(chosen) == {"Mali", "Chad", "Togo", "Niger", "Nigeria"}


def test_each_part_is_about_a_third_of_all_names() -> None:
    counts = Counter(part_of(f"name {number}") for number in range(3_000))

    assert 0.36 < counts["fit"] / 3_000 < 0.44 and 0.27 < counts["judge"] / 3_000 < 0.34
