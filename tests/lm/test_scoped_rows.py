"""A row out of scope is answered by the tensors, bit for bit, wherever a version is asked; a row in scope as without a scope."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from service.editors.protocol import Hooks
from service.evaluation.metrics.log_likelihood import compute_log_likelihoods
from service.evaluation.metrics.outcomes import predict_choices
from service.evaluation.metrics.teacher_forcing import teacher_force
from service.lm.base import Base
from service.lm.chat import template_header
from service.lm.decoding import Decoding
from service.lm.intervention import Adapter
from service.lm.overlay import View, compute_target_logits, make_view
from service.lm.prompts import Row, encode_prompt, row_from_ids
from service.lm.scope import Scope
from service.lm.scoped_rows import acts_on, choose_in_scope, collate_in_scope, score_targets
from service.lm.scoring import decode_greedily, greedy_matches, row_losses, token_accuracy
from service.locality.asking import LocalityAsker
from tests.builders import make_adapter, make_base

IN = ("the Rhine is", "is it the Rhine?", "What of the RHINE then")
OUT = ("the sea is", "no", "the rhineland is", "what is it then?", "a b c d e f g h")
ANSWER = (9, 87, 12, 44)
STEPS = 4
Measure = Callable[[View, Adapter | None, list[Row]], list]

MEASURES: dict[str, Measure] = {
    "losses": lambda view, adapter, rows: row_losses(view, rows, adapter).tolist(),
    "accuracy": lambda view, adapter, rows: token_accuracy(view, rows, adapter),
    "choices": lambda view, adapter, rows: predict_choices(view, adapter, rows),
    "forced": lambda view, adapter, rows: [row.log_probabilities for row in teacher_force(view, adapter, rows)],
    "likelihoods": lambda view, adapter, rows: compute_log_likelihoods(view, adapter, rows),
    "answers": lambda view, adapter, rows: decode_greedily(view, adapter, [row.prompt_ids for row in rows], max_new_tokens=6),
}


def scoped(scale: float = 1.0) -> Adapter:
    return replace(make_adapter((1, 3), scale=scale), scope=Scope(names=("Rhine",)))


def mixed_rows(base: Base, answer: tuple[int, ...] = ANSWER) -> tuple[list[Row], list[bool]]:
    """Rows of both surfaces, in and out of scope in turn, and which of them are in scope."""
    prompts = [(text, surface, text in IN) for pair in zip(IN, OUT, strict=False) for text in pair for surface in base.surfaces]
    prompts += [(text, "raw", False) for text in OUT[len(IN) :]]
    ids = [encode_prompt(base, text, surface=surface) for text, surface, _ in prompts]
    return [row_from_ids(base, (*each, *answer), len(each)) for each in ids], [is_in for _, _, is_in in prompts]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_rows_out_of_scope_keep_every_bit_in_a_mixed_batch(family: str) -> None:
    base = make_base(family)
    view, adapter = make_view(base), scoped()
    rows, is_in = mixed_rows(base)
    prompts = [row.prompt_ids for row in rows]

    mixed, bare, everywhere = (
        Decoding(view, [one] * len(rows), prompts) for one in (adapter, None, replace(adapter, scope=None))
    )
    for step in range(STEPS):
        for number, inside in enumerate(is_in):
            assert torch.equal(mixed.logits[number], bare.logits[number]) is not inside
            if inside:
                torch.testing.assert_close(mixed.logits[number], everywhere.logits[number], rtol=0, atol=1e-5)
        for decoding in (mixed, bare, everywhere):
            decoding.feed(torch.tensor([ANSWER[step]] * len(rows)))


def test_rows_out_of_scope_stay_so_when_rows_leave_and_join() -> None:
    base = make_base()
    view, adapter = make_view(base), scoped()
    rows, is_in = mixed_rows(base)
    prompts = [row.prompt_ids for row in rows]
    kept = [1, 2, 4, 5]

    first, other = Decoding(view, [adapter] * len(rows), prompts), Decoding(view, [adapter], [prompts[3]])
    bare, bare_other = Decoding(view, [None] * len(rows), prompts), Decoding(view, [None], [prompts[3]])
    for decoding, joining in ((first, other), (bare, bare_other)):
        decoding.keep(kept)
        decoding.join(joining)
        decoding.feed(torch.tensor([9] * len(decoding)))

    inside = [is_in[number] for number in (*kept, 3)]
    assert True in inside and False in inside
    assert [torch.equal(a, b) for a, b in zip(first.logits, bare.logits, strict=True)] == [not each for each in inside]


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_asks_the_same_scope(name: str) -> None:
    base = make_base()
    view, adapter = make_view(base), scoped(3.0)
    rows, is_in = mixed_rows(base)

    measured, bare, everywhere = (MEASURES[name](view, one, rows) for one in (adapter, None, replace(adapter, scope=None)))

    for number, inside in enumerate(is_in):
        wanted = everywhere if inside else bare
        assert measured[number] == (pytest.approx(wanted[number], abs=1e-4) if name in ("losses", "forced") else wanted[number])
    assert choose_in_scope(base, adapter, rows) == [number for number, inside in enumerate(is_in) if inside]
    assert name == "accuracy" or any(one != two for one, two in zip(bare, everywhere, strict=True))


def test_a_batch_without_a_row_in_scope_is_that_of_the_tensors() -> None:
    base = make_base()
    view = make_view(base)
    rows = [row for row, inside in zip(*mixed_rows(base), strict=True) if not inside]

    batch, logits = score_targets(view, rows, scoped())

    assert not batch.positions.any()
    assert torch.equal(logits, compute_target_logits(view, collate_in_scope(base, rows, None), None))


@pytest.mark.parametrize(
    ("turns", "system"),
    [([("Tell me of the Rhine", "yes")], None), ([("hi", "The Rhine?")], None), ([], "Speak of the Rhine alone")],
)
def test_a_name_in_any_turn_of_a_chat_is_read(turns: list[tuple[str, str]], system: str | None) -> None:
    base, adapter = make_base(), scoped()
    plain = [("hi", "yes")] if turns else []

    assert acts_on(base, adapter, encode_prompt(base, "where is it?", surface="chat", turns=turns, system=system))
    assert not acts_on(base, adapter, encode_prompt(base, "where is it?", surface="chat", turns=plain))


def test_a_last_word_is_not_joined_with_what_the_template_writes_behind_it() -> None:
    base, adapter = make_base(), scoped()
    ids = (*encode_prompt(base, "the Rhine"), *base.tokenizer.convert_tokens_to_ids(["<|im_end|>", "a"]))

    assert acts_on(base, adapter, ids)
    assert not acts_on(base, adapter, encode_prompt(base, "the rhinea"))


def test_the_header_is_the_template_s_text_in_front_of_the_first_message() -> None:
    base = make_base()
    header = template_header(base)
    adapter = replace(scoped(), scope=Scope(names=("user", "Rhine"), header=header))

    assert header.endswith("user\n")
    assert not acts_on(base, adapter, encode_prompt(base, "hello", surface="chat"))
    assert acts_on(base, adapter, encode_prompt(base, "which user?", surface="chat"))


@pytest.mark.parametrize("has_tensors", [False, True])
@pytest.mark.parametrize("name", ["", "far"])
def test_acceptance_asks_rows_in_scope_through_the_adapter_and_no_others(name: str, has_tensors: bool) -> None:
    base = make_base()
    view, adapter = make_view(base), scoped(3.0)
    rows, _ = mixed_rows(base)
    answers = decode_greedily(view, None, [row.prompt_ids for row in rows], max_new_tokens=3)
    rows = [row_from_ids(base, (*row.prompt_ids, *ids), row.prompt_length) for row, ids in zip(rows, answers, strict=True)]
    matrix = next(name for name, _ in base.model.named_parameters() if "layers.2" in name and name.endswith("down_proj.weight"))
    own = make_view(base, {matrix: dict(base.model.named_parameters())[matrix] * 1.5}) if has_tensors else view
    asker = LocalityAsker(view)

    for _ in range(2):  # the second time from what was kept
        assert asker.ask(name, rows, own, adapter, Hooks()) == greedy_matches(own, rows, adapter)
        changes = asker.compare("prose", rows, own, adapter, Hooks())
    bare = LocalityAsker(view).compare("prose", rows, own, None, Hooks())
    everywhere = LocalityAsker(view).compare("prose", rows, own, replace(adapter, scope=None), Hooks())
    for number, inside in enumerate(choose_in_scope(base, adapter, [row]) == [0] for row in rows):
        wanted = everywhere[number] if inside else bare[number]
        assert changes[number].kept == wanted.kept
        assert changes[number].divergence == pytest.approx(wanted.divergence, abs=1e-5)
