"""What does not fit the model is refused under the name that the request gave it."""

import pytest

from service.domain.edit import AUTO, EditRequest
from service.domain.errors import Refused
from service.lifecycle.length_checks import check_lengths
from service.lm.base import build_base
from tests.builders import make_base, make_model, make_tokenizer

PLAIN = EditRequest(prompt="The colour of moss is", target="green", method=AUTO)


def field_of(refused: EditRequest, *, is_batch: bool) -> str | None:
    base = build_base(make_model(), make_tokenizer(chat=False)) if refused.surfaces else make_base()
    with pytest.raises(Refused) as caught:
        check_lengths(base, [PLAIN, refused] if is_batch else [refused], is_batch=is_batch)
    return caught.value.field


def test_a_surface_that_the_model_does_not_have_is_refused_as_surfaces() -> None:
    chat = EditRequest(prompt="The colour of moss is", target="green", method=AUTO, surfaces=("chat",))

    assert field_of(chat, is_batch=False) == "surfaces"
    assert field_of(chat, is_batch=True) == "edits[1].surfaces"


def test_an_edit_of_a_batch_is_named_by_its_position_even_if_alone() -> None:
    long = EditRequest(prompt="x" * 5000, target="green", method=AUTO)

    assert field_of(long, is_batch=True) == "edits[1].prompt"
    with pytest.raises(Refused) as caught:
        check_lengths(make_base(), [long], is_batch=True)
    assert caught.value.field == "edits[0].prompt"
