"""What a retrain keeps: a stretch of each neutral sentence, and questions that the base writes of itself."""

import torch

from service.editors.known_names import NO_NAMES
from service.editors.locft.dataset import build_dataset
from service.editors.locft.packed_rows import PackedRows
from service.editors.locft.settings import LocftSettings
from service.editors.protocol import Hooks
from service.lm.overlay import make_view
from service.lm.prompts import Row
from tests.editors.locft.retrains import EDITS
from tests.editors.taught_model import neutral, taught_base


def rows_with(seed: int = 1, **changes: object) -> PackedRows:
    chosen = LocftSettings(**{"wordings": 0, "contrast_weight": 0.0, "preserve_questions": 6, **changes})  # type: ignore[arg-type]
    dataset = build_dataset(
        make_view(taught_base()),
        EDITS[:2],
        (),
        settings=chosen,
        neutral=neutral(),
        names=NO_NAMES,
        generator=torch.Generator().manual_seed(seed),
        hooks=Hooks(),
    )
    return dataset.rows


def rows_of(packed: PackedRows, part: range) -> list[Row]:
    return [packed[index] for index in part]


def test_a_stretch_of_each_sentence_counts_at_a_place_drawn_by_the_seed() -> None:
    whole, short = rows_with(preserve_tokens=0), rows_with(preserve_tokens=2)
    first = 2 if whole[whole.kept.start].has_bos else 1

    sentences = rows_of(whole, whole.kept)
    assert sentences and all(row.prompt_length == first for row in sentences)
    stretches = rows_of(short, short.kept)
    assert len(stretches) == len(sentences)
    for stretch, sentence in zip(stretches, sentences, strict=True):
        assert len(stretch.target_ids) == min(2, len(sentence.target_ids))
        assert stretch.ids == sentence.ids[: len(stretch.ids)]  # nothing is kept behind it
    assert len({row.prompt_length for row in stretches}) > 1
    assert any(
        stretch.ids == sentence.ids for stretch, sentence in zip(stretches, sentences, strict=True)
    )  # up to the last token
    assert rows_of(rows_with(preserve_tokens=2), short.kept) == stretches != rows_of(rows_with(2, preserve_tokens=2), short.kept)
    assert rows_of(rows_with(preserve_tokens=1_000), whole.kept) == sentences


def test_questions_are_kept_unless_nothing_is() -> None:
    rows = rows_with(preserve_tokens=3)

    asked = rows_of(rows, rows.questions)
    assert len(asked) == 6 and all(0 < len(row.target_ids) <= 3 for row in asked)
    assert rows.questions.stop == len(rows)
    for nothing in ({"preserve_questions": 0}, {"preserve_weight": 0.0}):
        assert not rows_with(**nothing).questions
