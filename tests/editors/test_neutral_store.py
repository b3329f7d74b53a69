"""Neutral sentences on disk: sampled in parts that outlive the process, read again, or shipped with a model."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from service.atlas import neutral_path, weights_path
from service.editors.neutral import NeutralSentences
from service.editors.neutral_settings import NeutralSettings
from service.editors.neutral_store import NeutralPart, adopt_neutral, has_neutral, iterate_neutral, load_or_sample_neutral
from service.editors.protocol import FitCancelled, Hooks
from service.lm.base import Base, load_base
from tests.builders import make_base
from tests.editors.taught_model import taught_base

SETTINGS = NeutralSettings(sentences=40, held_out=12, tokens=10, batch=10)


def load(folder: Path, **more: Any) -> NeutralSentences:
    return load_or_sample_neutral(taught_base(), folder, settings=SETTINGS, **more)


@cache
def babbler() -> Base:
    """A random model: it hardly writes a sentence twice, so that few are needed for a first part."""
    return make_base()


def come(folder: Path, *, first: int, **more: Any) -> Iterator[NeutralPart]:
    settings = SETTINGS.model_copy(update={"first_part": first})
    return iterate_neutral(babbler(), folder, settings=settings, **more)


def interrupt(folder: Path, *, at: float) -> list[float]:
    """Sample until a share of the work is done, and end there, as a process that is stopped does."""
    shares = [0.0]
    hooks = Hooks(progress=lambda share, stage: shares.append(share), is_cancelled=lambda: shares[-1] >= at)
    with pytest.raises(FitCancelled):
        load(folder, hooks=hooks)
    return shares


def test_sampling_goes_on_where_the_last_process_stopped_to_the_same_sentences(tmp_path: Path) -> None:
    whole = load(tmp_path / "whole")
    interrupt(tmp_path / "cut", at=0.5)
    shares: list[float] = []

    rest = load(tmp_path / "cut", hooks=Hooks(progress=lambda share, stage: shares.append(share)))

    assert shares[0] > 0.3  # what was sampled is not sampled again
    assert shares == sorted(shares) and len(shares) > 20  # also between two tokens
    assert rest.sentences == whole.sentences and rest.held_out == whole.held_out
    assert [path.suffix for path in (tmp_path / "cut").iterdir()] == [".json"]


def test_the_first_part_comes_before_the_rest_is_sampled_and_is_the_beginning_of_all(tmp_path: Path) -> None:
    shares = [0.0]
    coming = come(tmp_path, first=5, hooks=Hooks(progress=lambda share, stage: shares.append(share)))

    first = next(coming)
    assert (first.is_whole, first.of, len(first.neutral.sentences)) == (False, 40, 5)
    assert max(shares) < 0.6
    (whole,) = coming

    assert whole.is_whole and len(whole.neutral.sentences) > 30
    assert whole.neutral.sentences[:5] == first.neutral.sentences == whole.neutral.first(5).sentences
    assert whole.neutral.held_out == first.neutral.held_out and len(first.neutral.held_out) == SETTINGS.held_out


def test_the_size_of_the_first_part_changes_neither_the_sentences_nor_their_file(tmp_path: Path) -> None:
    *_, in_parts = come(tmp_path / "parts", first=5)
    (at_once,) = come(tmp_path / "once", first=40)

    assert in_parts.neutral.sentences == at_once.neutral.sentences and in_parts.neutral.held_out == at_once.neutral.held_out
    (one,), (other,) = (tmp_path / "parts").iterdir(), (tmp_path / "once").iterdir()
    assert (one.name, one.read_bytes()) == (other.name, other.read_bytes())


def test_sentences_that_are_there_come_in_one_part(tmp_path: Path) -> None:
    *_, sampled = come(tmp_path, first=5)

    (part,) = come(tmp_path, first=5)

    assert part.is_whole and part.neutral.sentences == sampled.neutral.sentences


def test_after_a_restart_the_first_part_is_the_same(tmp_path: Path) -> None:
    first = next(come(tmp_path, first=5))

    again, whole = come(tmp_path, first=5)

    assert again.neutral.sentences == first.neutral.sentences and again.neutral.held_out == first.neutral.held_out
    assert whole.neutral.held_out == first.neutral.held_out


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: json.dumps(json.loads(text) | {"generator": ["AAAA"]}),
        lambda text: json.dumps(json.loads(text) | {"generator": [7]}),
        lambda text: json.dumps(json.loads(text) | {"sampled": [["x"]] * 10}),
        lambda text: json.dumps(json.loads(text) | {"sampled": [[1, 2]] * 7}),
        lambda text: "[]",
    ],
    ids=["cut off", "another state", "no text", "no ids", "no whole part", "another form"],
)
def test_a_damaged_part_is_sampled_again(tmp_path: Path, damage: Any) -> None:
    whole = load(tmp_path / "whole")
    interrupt(tmp_path / "cut", at=0.5)
    (part,) = (tmp_path / "cut").iterdir()
    part.write_text(damage(part.read_text()))

    assert load(tmp_path / "cut").sentences == whole.sentences


def test_sampling_gives_way_to_answers_between_tokens(tmp_path: Path) -> None:
    gave: list[bool] = []

    load(tmp_path, hooks=Hooks(yield_to_answers=lambda: gave.append(True)))

    assert len(gave) > 40


def test_sentences_that_came_with_the_model_are_not_sampled(tmp_path: Path) -> None:
    shipped = load(tmp_path / "shipped")

    def never(share: float, stage: str) -> None:
        raise AssertionError(f"it began with {stage}")

    found = load(tmp_path / "mine", shipped=tmp_path / "shipped", hooks=Hooks(progress=never))

    assert found.sentences == shipped.sentences
    assert not (tmp_path / "mine").exists()


def test_whether_sentences_are_there_is_known_without_sampling(tmp_path: Path) -> None:
    assert not has_neutral(taught_base(), tmp_path, settings=SETTINGS)
    load(tmp_path)

    assert has_neutral(taught_base(), tmp_path, settings=SETTINGS)
    assert has_neutral(taught_base(), tmp_path / "none", settings=SETTINGS, shipped=tmp_path)


@pytest.mark.parametrize("at", [0.5, None], ids=["a part", "all"])
def test_what_was_sampled_under_a_former_fingerprint_is_not_sampled_again(tmp_path: Path, at: float | None) -> None:
    base = taught_base()
    former = replace(base, fingerprint="f" * 64)
    if at is None:
        load_or_sample_neutral(former, tmp_path, settings=SETTINGS)
    else:
        with pytest.raises(FitCancelled):
            shares = [0.0]
            hooks = Hooks(progress=lambda share, stage: shares.append(share), is_cancelled=lambda: shares[-1] >= at)
            load_or_sample_neutral(former, tmp_path, settings=SETTINGS, hooks=hooks)

    for _ in range(2):
        adopt_neutral(former.fingerprint, base, tmp_path, settings=SETTINGS)
    begun: list[float] = []
    found = load(tmp_path, hooks=Hooks(progress=lambda share, stage: begun.append(share)))

    assert found.sentences == load(tmp_path / "whole").sentences
    assert begun == [] if at is None else begun[0] > 0.3


def test_a_damaged_file_of_a_former_fingerprint_counts_as_absent(tmp_path: Path) -> None:
    former = replace(taught_base(), fingerprint="f" * 64)
    load_or_sample_neutral(former, tmp_path, settings=SETTINGS)
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"\xff\xfe{")

    adopt_neutral(former.fingerprint, taught_base(), tmp_path, settings=SETTINGS)

    assert not has_neutral(taught_base(), tmp_path, settings=SETTINGS)


def test_the_embedded_model_ships_the_sentences_of_the_default_settings(tmp_path: Path) -> None:
    base = load_base(str(weights_path()), device="cpu")

    assert has_neutral(base, tmp_path, settings=NeutralSettings(), shipped=neutral_path())
