"""What a model writes behind "Question:" is kept, the same for the same model, and without what an edit is about."""

from functools import cache

import pytest
import torch

from service.atlas import weights_path
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitCancelled, Hooks
from service.editors.written_questions import LEAD, written_questions
from service.lm.base import load_base
from service.lm.overlay import View, make_view
from service.lm.prompts import Row, encode_prompt
from service.lm.scoring import sample_behind
from service.lm.tokenizing import decode_ids
from tests.builders import make_base

COUNT = 70  # more than one batch


@cache
def atlas() -> View:
    return make_view(load_base(weights_path()))


def write(neutral: NeutralSentences | None = None, *, without: str = "nothing", hooks: Hooks | None = None) -> list[Row]:
    view = atlas()
    neutral = neutral or NeutralSentences(view.base, (), ())
    return written_questions(view, COUNT, neutral, hooks or Hooks(), mentions_edit=lambda text: without in text)


def test_every_text_goes_on_the_lead_and_is_kept_behind_it() -> None:
    lead, rows = encode_prompt(atlas().base, LEAD), write()

    assert len(rows) == COUNT and len({row.ids for row in rows}) > COUNT / 2
    assert all(row.prompt_ids == lead and 1 <= len(row.target_ids) <= 32 for row in rows)


def test_the_same_model_writes_the_same_and_what_an_edit_is_about_is_left_out() -> None:
    one = NeutralSentences(atlas().base, (), ())
    rows = write(one)
    word = decode_ids(atlas().base, rows[0].target_ids).split()[0]

    assert write(one) == write() == rows
    left = write(one, without=word)
    assert left == [row for row in rows if word not in decode_ids(atlas().base, row.ids)] and len(left) < COUNT


def test_texts_are_samples_at_temperature_one_in_batches() -> None:
    lead = encode_prompt(atlas().base, LEAD)
    generator = torch.Generator().manual_seed(0)

    def sampled(count: int) -> list[tuple[int, ...]]:
        return sample_behind(atlas(), lead, count, generator, max_new_tokens=32, temperature=1.0)

    assert [row.target_ids for row in write()] == [*sampled(64), *sampled(COUNT - 64)]


def test_writing_can_be_cancelled_and_is_begun_anew() -> None:
    neutral, calls = NeutralSentences(atlas().base, (), ()), 0

    def is_over() -> bool:
        nonlocal calls
        calls += 1
        return calls > 3

    with pytest.raises(FitCancelled):
        write(neutral, hooks=Hooks(is_cancelled=is_over))
    assert write(neutral) == write()


def test_a_model_without_room_behind_the_lead_writes_none() -> None:
    base = make_base(max_position_embeddings=16)  # the lead and what follows do not fit

    assert written_questions(make_view(base), 4, NeutralSentences(base, (), ()), Hooks(), mentions_edit=lambda text: False) == []
