"""Neutral sentences, those that are held out, and the rows a fit takes from an item."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from service.editors.baft.basis_report import basis_report, running_mean_report, squared_variation
from service.editors.baft.fit import fit_baft
from service.editors.examples import add_prefix, item_rows, locality_rows, make_mention_test
from service.editors.neutral import NeutralSentences, cuts_of
from service.editors.neutral_settings import NeutralSettings
from service.editors.neutral_store import load_or_sample_neutral
from service.editors.protocol import FitItem
from service.lm.intervention import Adapter, Balance
from service.lm.overlay import EMPTY, View, make_view
from service.lm.prompts import encode_row
from tests.builders import make_adapter, make_base
from tests.editors.taught_model import item, neutral, settings, taught_base, view_of

SETTINGS = NeutralSettings(sentences=100, held_out=12, tokens=10)


def load(folder: Path, chosen: NeutralSettings = SETTINGS) -> NeutralSentences:
    return load_or_sample_neutral(taught_base(), folder, settings=chosen)


def test_neutral_sentences_are_sampled_once_and_then_read(tmp_path):
    first = load(tmp_path)
    (path,) = tmp_path.iterdir()
    written = path.stat().st_mtime_ns
    second = load(tmp_path)

    assert second.sentences == first.sentences
    assert second.held_out == first.held_out
    assert path.stat().st_mtime_ns == written


def test_a_damaged_file_is_sampled_again_to_the_same_sentences(tmp_path):
    first = load(tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text('{"sentences": [[1, "x"]], "held_out": []}')

    assert load(tmp_path).sentences == first.sentences
    assert json.loads(path.read_text())["sentences"]


def test_other_settings_have_a_file_of_their_own(tmp_path):
    load(tmp_path)
    load(tmp_path, SETTINGS.model_copy(update={"seed": 1}))

    assert len(list(tmp_path.iterdir())) == 2


def test_no_sentence_that_is_held_out_is_learned(tmp_path):
    drawn = load(tmp_path)

    assert len(drawn.held_out) == SETTINGS.held_out
    assert not {sentence.ids for sentence in drawn.sentences} & {sentence.ids for sentence in drawn.held_out}
    assert len({sentence.ids for sentence in drawn.sentences}) == len(drawn.sentences)


def test_sentences_are_cut_before_a_word_and_never_before_the_start_or_the_end():
    base = taught_base()
    ids = encode_row(base, "the red sky is", "here").ids
    pieces = base.tokenizer.convert_ids_to_tokens(list(ids))

    cuts = cuts_of(base, ids)

    assert all(pieces[cut].startswith("Ġ") for cut in cuts)
    assert all(1 < cut < len(ids) - 1 for cut in cuts)
    assert len(cuts) == 4


def test_drawing_omits_sentences_that_mention_an_edit():
    everything = neutral().draw(100, torch.Generator().manual_seed(0))
    none = neutral().draw(100, torch.Generator().manual_seed(0), mentions_edit=lambda _: True)

    assert len(everything) == len(neutral().sentences)
    assert none == []


def test_a_sentence_mentions_an_edit_if_it_holds_its_subject_or_its_prompt():
    mentions = make_mention_test([item("The capital of X is", "Y", subject="X (country)"), item("red is", "Z")])

    assert mentions("They went to X (country) again.")
    assert mentions("we say red is nice")
    assert not mentions("The sky is blue.")
    assert not make_mention_test([])("anything")


def test_rows_of_an_item_are_its_surfaces_and_trained_rephrases():
    base = taught_base()
    given = item("red is", "Z", rephrases=("what colour:",), surfaces=("raw",))

    assert [row.is_literal for row in item_rows(base, [given], eos=True, learn_probes=True)] == [True, False]
    assert [row.is_literal for row in item_rows(base, [given], eos=True, learn_probes=False)] == [True]
    assert [
        row.is_literal for row in item_rows(base, [FitItem(given.edit, "A", is_tombstone=True)], eos=True, learn_probes=True)
    ] == [True]


def test_an_edit_without_surfaces_has_a_row_for_every_surface_of_the_base():
    base = make_base()

    assert base.surfaces == ("raw", "chat")
    assert len(item_rows(base, [item("red is", "Z")], eos=True, learn_probes=True)) == 2


def test_locality_rows_hold_the_unedited_answers_and_omit_changed_prompts():
    base = taught_base()
    given = [item("red is", "Z", locality=("sky is", "sea is")), item("sea is", "Y")]

    (row,) = locality_rows(base, view_of(EMPTY), given)

    assert row.ids == encode_row(base, "sky is", "B").ids


def test_locality_probes_without_train_give_no_rows():
    assert locality_rows(taught_base(), view_of(EMPTY), [item("red is", "Z", locality=("sky is",), train=False)]) == []


def test_a_prefix_stands_between_bos_and_the_prompt():
    base = taught_base()
    (asked,) = item_rows(base, [item("red is", "Z")], eos=True, learn_probes=True)

    copy = add_prefix(base, asked, (50, 51))

    assert copy is not None
    assert copy.row.ids == (asked.row.ids[0], 50, 51, *asked.row.ids[1:])
    assert copy.row.target_ids == asked.row.target_ids
    assert add_prefix(base, asked, (50,) * base.context_length) is None


def test_the_report_on_bases_gives_every_block_and_kind_of_prompt():
    base = taught_base()
    given = item("red is", "Z")
    fitted = fit_baft(base, view_of, EMPTY, [given], [], settings=settings(), neutral=neutral(), seed=1)

    prompts = {"edits": [encode_row(base, "red is", "Z")], "rephrases": [], "unrelated": [encode_row(base, "sky is", "B")]}
    report = basis_report(view_of(EMPTY), fitted.overlay.adapter, prompts)

    assert [each["block"] for each in report["blocks"]] == sorted(fitted.overlay.adapter.interventions)
    for each in report["blocks"]:
        assert len(each["mean_gate"]["edits"]) == 4
        assert each["mean_gate"]["rephrases"] is None
        assert all(0 <= weight <= 1 for weight in each["mean_gate"]["unrelated"])
        assert each["running_mean"] == pytest.approx(each["mean_gate"]["edits"], abs=1e-4)
        assert each["final_squared_variation"] == pytest.approx(each["running_squared_variation"], abs=1e-4)
        assert each["edits"] == 1
    json.dumps(report)


def test_later_fits_move_the_final_gates_of_an_edit_and_leave_the_running_mean_of_its_fit():
    base, rows = taught_base(), [encode_row(taught_base(), "red is", "Z")]
    fitted = fit_baft(base, view_of, EMPTY, [item("red is", "Z")], [], settings=settings(), neutral=neutral(), seed=1)
    adapter = fitted.overlay.adapter
    assert adapter is not None
    blocks = adapter.interventions
    moved = Adapter(
        {number: replace(each, gate=each.gate + 1.0) for number, each in blocks.items() if each.gate is not None},
        adapter.balance,
    )

    before, after = (basis_report(view_of(EMPTY), each, {"edits": rows})["blocks"] for each in (adapter, moved))

    for old, new in zip(before, after, strict=True):
        assert new["running_squared_variation"] == old["running_squared_variation"]
        assert abs(new["final_squared_variation"] - old["final_squared_variation"]) > 2e-5
        assert new["final_squared_variation"] == squared_variation(torch.tensor(new["mean_gate"]["edits"]))


def test_the_running_mean_is_reported_with_its_variation_and_the_share_of_active_bases():
    report = running_mean_report(Balance(torch.tensor([2.0, 2.0, 2.0, 0.2]), 2))

    # Mean 0.775; deviations 0.225 three times and -0.675: their squares sum to 0.6075, over 3 and 0.775² that is 0.3372.
    assert report["running_squared_variation"] == pytest.approx(0.6075 / 3 / 0.775**2, abs=1e-5)
    assert report["active_share"] == 0.75
    assert running_mean_report(None)["running_mean"] is None


def test_an_adapter_without_a_running_mean_is_reported_with_null():
    base = taught_base()
    adapter = Adapter(make_adapter((1,), scale=0.1).interventions, {})
    shown: View = make_view(base)

    prompts = {"edits": [], "rephrases": [encode_row(base, "sky is", "B")]}
    (block,) = basis_report(shown, adapter, prompts)["blocks"]

    assert (block["running_mean"], block["running_squared_variation"]) == (None, None)
    assert (block["mean_gate"]["edits"], block["final_squared_variation"]) == (None, None)
