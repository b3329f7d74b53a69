"""Whole fits with BaFT on a tiny model that has eight known answers."""

import dataclasses

import pytest
import torch

from service.editors.baft.fit import fit_baft
from service.editors.baft.forward_passes import CachedPasses, PlainPasses
from service.editors.examples import item_rows
from service.editors.locft.fit import fit_locft
from service.editors.locft.settings import LocftSettings
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitCancelled, FitFailed, FitItem, FitResult, Hooks
from service.lm.base import build_base
from service.lm.chat import template_tail
from service.lm.checkpoint import load, save
from service.lm.checkpoint_folder import CheckpointFolder
from service.lm.last_tokens import LastTokens
from service.lm.overlay import EMPTY, Overlay, compute_logits, make_view
from service.lm.prompts import collate, encode_prompt, encode_row
from service.lm.scoped_rows import acts_on
from service.lm.scoring import decode_greedily, greedy_matches, row_losses
from tests.builders import make_base, make_tokenizer
from tests.editors.taught_model import FACTS, item, neutral, settings, taught_base, view_of


def fit(
    new: list[FitItem],
    parent: Overlay = EMPTY,
    window: list[FitItem] | None = None,
    *,
    seed: int = 1,
    hooks: Hooks | None = None,
    cached: bool = True,
    **changes,
) -> FitResult:
    return fit_baft(
        taught_base(),
        view_of,
        parent,
        new,
        window or [],
        settings=settings(**changes),
        neutral=neutral(),
        seed=seed,
        hooks=hooks,
        cached=cached,
    )


def says(overlay: Overlay, prompt: str, target: str) -> bool:
    (answer,) = greedy_matches(view_of(overlay), [encode_row(taught_base(), prompt, target)], overlay.adapter)
    return answer


def tensors_of(overlay: Overlay) -> dict[str, torch.Tensor]:
    assert overlay.adapter is not None
    found = {f"{block}.{name}": t for block, each in overlay.adapter.interventions.items() for name, t in each.tensors().items()}
    return found | {f"{block}.total": each.total for block, each in overlay.adapter.balance.items()}


def same_bytes(left: Overlay, right: Overlay) -> bool:
    a, b = tensors_of(left), tensors_of(right)
    is_one_scope = left.adapter is not None and right.adapter is not None and left.adapter.scope == right.adapter.scope
    return is_one_scope and a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_taught_model_answers_its_facts_and_no_edit_yet():
    assert all(says(EMPTY, prompt, answer) for prompt, answer in FACTS.items())
    assert not says(EMPTY, "red is", "Z")


def test_an_edit_is_learned_and_answered_by_greedy_decoding():
    fitted = fit([item("red is", "Z")])
    base = taught_base()
    row = encode_row(base, "red is", "Z")
    (answer,) = decode_greedily(view_of(fitted.overlay), fitted.overlay.adapter, [row.prompt_ids], max_new_tokens=5)

    assert answer == row.target_ids
    assert fitted.lost == ()
    report = fitted.reports["red is"]
    assert (report["method"], report["taken"], report["already"]) == ("baft", True, False)
    assert report["steps"] > 0


def test_fitting_leaves_the_parent_and_the_base_as_they_were():
    base = taught_base()
    batch = collate(base, [encode_row(base, "sky is", "B")])
    before = compute_logits(view_of(EMPTY), batch)
    parent = fit([item("red is", "Z")]).overlay
    kept = {name: tensor.clone() for name, tensor in tensors_of(parent).items()}

    fit([item("sky is", "Y")], parent, [item("red is", "Z")])

    assert all(torch.equal(kept[name], tensor) for name, tensor in tensors_of(parent).items())
    assert torch.equal(compute_logits(view_of(EMPTY), batch), before)


def test_edits_made_one_by_one_are_all_kept_by_replaying_the_window():
    overlay, window = EMPTY, []
    for edit in (item("red is", "Z"), item("sky is", "Y"), item("cat is", "X")):
        fitted = fit([edit], overlay, window)
        overlay, window = fitted.overlay, [*window, edit]

    assert fitted.lost == ()
    assert fitted.scores["retention"] == 1.0
    assert says(overlay, "red is", "Z") and says(overlay, "sky is", "Y") and says(overlay, "cat is", "X")


def test_joint_edits_are_learned_together():
    fitted = fit([item("red is", "Z"), item("sky is", "Y"), item("cat is", "X")])

    assert fitted.lost == ()
    assert set(fitted.reports) == {"red is", "sky is", "cat is"}
    assert all(report["fitted_together"] == 3 for report in fitted.reports.values())


def test_the_same_job_gives_the_same_bytes():
    first = fit([item("sky is", "Y")], replay=1, seed=5)
    second = fit([item("sky is", "Y")], replay=1, seed=5)

    assert same_bytes(first.overlay, second.overlay)


def test_the_same_job_gives_the_same_bytes_on_two_threads():
    torch.set_num_threads(2)
    try:
        first, second = (fit([item("sky is", "Y")], seed=5, steps=2, attempts=1) for _ in range(2))
    finally:
        torch.set_num_threads(1)

    assert same_bytes(first.overlay, second.overlay)


def test_another_seed_gives_other_bytes():
    assert not same_bytes(fit([item("sky is", "Y")], seed=5).overlay, fit([item("sky is", "Y")], seed=6).overlay)


def test_the_cached_step_gives_what_the_plain_step_gives():
    edit = [item("red is", "Z")]
    cached, plain = fit(edit, cached=True, steps=3, attempts=1), fit(edit, cached=False, steps=3, attempts=1)
    left, right = tensors_of(cached.overlay), tensors_of(plain.overlay)

    # Adam divides by the size of the gradient, which magnifies rounding (1e-6) where a gradient is nearly zero.
    assert all(torch.allclose(left[name], right[name], atol=2e-3) for name in left)


def test_cached_and_plain_passes_agree_on_loss_and_gradient():
    base, view = taught_base(), view_of(EMPTY)
    rows = [encode_row(base, prompt, "ZZ") for prompt in ("red is", "a much longer thing that is")]
    start = fit([item("red is", "Z")]).overlay.adapter.interventions
    outcomes = []
    for kind in (CachedPasses, PlainPasses):
        passes = kind(view, rows, first_block=min(start), last=LastTokens(), hooks=Hooks())
        source = {block: each.source.clone().requires_grad_() for block, each in start.items()}
        seen = passes(
            [1, 0], {block: dataclasses.replace(each, source=source[block]) for block, each in start.items()}, record=True
        )
        seen.logits.logsumexp(-1).sum().backward()
        outcomes.append((seen, {block: each.grad for block, each in source.items()}))
    (cached, cached_grad), (plain, plain_grad) = outcomes

    assert torch.equal(cached.labels, plain.labels) and torch.equal(cached.row_of, plain.row_of)
    assert torch.allclose(cached.logits, plain.logits, atol=1e-4)
    assert all(torch.allclose(cached.weights[block], plain.weights[block], atol=1e-5) for block in start)
    assert all(torch.allclose(cached_grad[block], plain_grad[block], atol=1e-3) for block in start)


def test_each_edit_counts_once_in_the_load_and_replayed_edits_count_no_more():
    first = fit([item("red is", "Z")])
    second = fit([item("sky is", "Y", rephrases=("my sky is",)), item("cat is", "X")], first.overlay, [item("red is", "Z")])
    before, after = first.overlay.adapter.balance, second.overlay.adapter.balance

    assert {state.count for state in before.values()} == {1}
    assert {state.count for state in after.values()} == {3}
    added = [after[block].total - before[block].total for block in before]
    assert all(bool((each >= 0).all() and (each <= 2).all()) for each in added)


def test_a_fit_without_a_parent_adapter_starts_with_an_empty_load():
    first = fit([item("red is", "Z")])
    again = fit([item("sky is", "Y")], Overlay(first.overlay.tensors), [])

    assert {state.count for state in again.overlay.adapter.balance.values()} == {1}


def test_load_and_bases_survive_storing(tmp_path):
    fitted = fit([item("red is", "Z")])
    digest = save(fitted.overlay, CheckpointFolder(tmp_path), meta={})
    stored = load(CheckpointFolder(tmp_path), digest)

    assert same_bytes(stored, fitted.overlay)
    further = fit([item("sky is", "Y")], stored, [item("red is", "Z")])
    assert same_bytes(further.overlay, fit([item("sky is", "Y")], fitted.overlay, [item("red is", "Z")]).overlay)
    for each in further.overlay.adapter.interventions.values():
        identity = torch.eye(len(each.rotation), dtype=torch.float64)
        assert float((each.rotation.double() @ each.rotation.double().T - identity).abs().max()) < 1e-6


def test_each_version_acts_on_the_edits_that_it_carries_and_on_nothing_else():
    first = fit([item("red is", "Z")]).overlay
    second = fit(
        [item("sky is", "Y")], first, [item("red is", "Z"), dataclasses.replace(item("oak is", "H"), is_consolidated=True)]
    ).overlay

    prompts = [encode_prompt(taught_base(), prompt) for prompt in FACTS]
    acts = [[acts_on(taught_base(), overlay.adapter, ids) for ids in prompts] for overlay in (first, second)]
    assert acts == [[prompt in carried for prompt in FACTS] for carried in (["red is"], ["red is", "sky is"])]
    rows = [encode_row(taught_base(), prompt, answer) for prompt, answer in FACTS.items()]
    bare, scoped = (row_losses(view_of(second), rows, adapter) for adapter in (None, second.adapter))
    assert [torch.equal(one, two) for one, two in zip(bare, scoped, strict=True)] == [not each for each in acts[1]]
    assert says(second, "red is", "Z") and says(second, "sky is", "Y") and says(first, "red is", "Z")


@pytest.mark.parametrize("changes", [{"scope": "always"}, {"preset": "paper"}, {"preset": "reft"}])
def test_an_adapter_without_a_scope_acts_everywhere(changes):
    adapter = fit([item("red is", "Z")], steps=1, attempts=1, **changes).overlay.adapter

    assert adapter.scope is None and acts_on(taught_base(), adapter, encode_prompt(taught_base(), "sea is"))


def test_a_target_that_the_parent_already_answers_is_reported_as_such():
    fitted = fit([item("red is", "A")], stop_margin=0.0)

    assert fitted.reports["red is"]["already"] is True
    assert fitted.reports["red is"]["taken"] is True
    assert fitted.reports["red is"]["steps"] == 0


def test_a_fit_stops_at_numbers_that_are_not_finite_and_leaves_the_base_bit_identical():
    base = taught_base()
    batch = collate(base, [encode_row(base, "sky is", "B")])
    before, steps = compute_logits(view_of(EMPTY), batch), []

    with pytest.raises(FitFailed):
        fit([item("red is", "Z")], learning_rate=1e30, hooks=Hooks(progress=lambda share, _: steps.append(share)))

    assert len(steps) <= 2
    assert torch.equal(compute_logits(view_of(EMPTY), batch), before)


def test_a_cancelled_fit_returns_nothing():
    asked = []

    def cancelled() -> bool:
        asked.append(None)
        return len(asked) > 2

    with pytest.raises(FitCancelled):
        fit([item("red is", "Z")], hooks=Hooks(is_cancelled=cancelled))


def test_a_fit_gives_way_before_every_step():
    waits = []
    fitted = fit([item("red is", "Z")], hooks=Hooks(yield_to_answers=lambda: waits.append(None)))

    assert len(waits) >= fitted.reports["red is"]["steps"]


def test_an_edit_that_cannot_be_learned_is_reported_as_lost():
    fitted = fit([item("red is", "Z"), item("sky is", "Y")], joint_steps=1, attempts=1)

    assert set(fitted.lost) == {"red is", "sky is"}
    assert fitted.scores["retention"] == 0.0
    assert not fitted.reports["red is"]["taken"]


def test_an_unanswered_edit_gets_further_attempts():
    fitted = fit([item("red is", "Z")], steps=2, attempts=5)

    assert fitted.reports["red is"]["attempts"] > 1
    assert fitted.reports["red is"]["taken"] is True


def test_trained_rephrases_are_learned_and_others_are_ignored():
    learned = fit([item("red is", "Z", rephrases=("what colour:",))]).overlay
    unseen = fit([item("red is", "Z", rephrases=("what colour:",), train=False)])
    alone = fit([item("red is", "Z")])

    assert says(learned, "what colour:", "Z")
    assert same_bytes(unseen.overlay, alone.overlay)


def test_a_tombstone_does_not_learn_the_rephrases_of_its_edit():
    edit = item("red is", "A", rephrases=("what colour:",)).edit
    tombstone = fit([FitItem(edit, "A", is_tombstone=True)], stop_margin=0.0)

    assert tombstone.reports["red is"]["steps"] == 0


def test_trained_locality_probes_keep_their_answers():
    fitted = fit([item("red is", "Z", locality=("sky is", "sea is"))], preserve_weight=4.0)

    assert says(fitted.overlay, "sky is", "B") and says(fitted.overlay, "sea is", "C")


def test_every_surface_of_an_edit_is_fitted():
    rows = item_rows(make_base(), [item("red is", "Z")], eos=True, learn_probes=True)

    assert [row.row.ids for row in rows] == [encode_row(make_base(), "red is", "Z", surface=each).ids for each in ("raw", "chat")]


def test_an_adapter_of_another_shape_is_learned_again_with_the_window():
    first = fit([item("red is", "Z")])
    second = fit([item("sky is", "Y")], first.overlay, [item("red is", "Z")], rank=6)

    assert {each.rotation.shape[0] for each in second.overlay.adapter.interventions.values()} == {6}
    assert second.lost == ()
    assert says(second.overlay, "red is", "Z")


@pytest.mark.parametrize("at", ["text_end", "both"])
def test_a_chat_edit_is_learned_where_the_version_then_acts_and_raw_text_as_ever(at: str):
    base = build_base(taught_base().model, make_tokenizer())
    plain, chosen, empty, views = (
        settings(placement="published"),  # behind the last blocks too few are left to carry a change from the text to the answer
        settings(placement="published", positions=at),
        NeutralSentences(base, (), ()),
        lambda overlay: make_view(base, overlay.tensors),
    )
    edit = item("red is", "Z", surfaces=("chat",))

    first = fit_baft(base, views, EMPTY, [edit], [], settings=plain, neutral=empty, seed=1)
    moved = fit_baft(base, views, first.overlay, [], [edit], settings=chosen, neutral=empty, seed=1)
    again = fit_baft(base, views, EMPTY, [edit], [], settings=chosen, neutral=empty, seed=1, cached=False)

    assert first.overlay.adapter.last == LastTokens()
    assert moved.reports["red is"]["steps"] > 0  # the parent acts elsewhere: its window is learned anew
    for fitted in (moved, again):
        adapter = fitted.overlay.adapter
        assert adapter.last == LastTokens(3, at, template_tail(base)) and fitted.lost == ()
        assert greedy_matches(views(fitted.overlay), [encode_row(base, "red is", "Z", surface="chat")], adapter) == [True]
    assert same_bytes(
        *(fit([item("red is", "Z")], **place).overlay for place in ({"positions": at}, {}))
    )  # a model without a template


@pytest.mark.parametrize("preset", ["paper", "reft"])
def test_every_preset_learns_an_edit(preset):
    fitted = fit([item("red is", "Z")], preset=preset, learning_rate=2e-2)
    row = encode_row(taught_base(), "red is", "Z", eos=False)

    assert greedy_matches(view_of(fitted.overlay), [row], fitted.overlay.adapter) == [True]
    gates = {each.gate is None for each in fitted.overlay.adapter.interventions.values()}
    assert gates == {preset == "reft"}


def test_consolidated_edits_are_kept_by_fits_on_top_of_the_tensors():
    consolidated = [item(prompt, target) for prompt, target in (("red is", "Z"), ("sea is", "Y"), ("cat is", "X"))]
    choice = LocftSettings(learning_rate=2e-2, epochs=60, preserve_pool=8, preserve_rows=4)
    tensors = fit_locft(taught_base(), consolidated, settings=choice, neutral=neutral(), seed=1).overlay
    kept = [dataclasses.replace(each, is_consolidated=True) for each in consolidated]

    first = fit([item("sky is", "W")], tensors, kept)
    second = fit([item("dog is", "V")], first.overlay, [item("sky is", "W"), *kept])

    assert second.lost == ()
    assert second.scores["retention"] == 1.0
    assert all(says(second.overlay, each.edit.prompt, each.target) for each in consolidated)
    assert {state.count for state in second.overlay.adapter.balance.values()} == {2}
