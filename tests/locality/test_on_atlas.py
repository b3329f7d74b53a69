"""Acceptance on a model that knows facts: it passes what does no harm, and refuses what changes other answers."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

from service.atlas import neutral_path, weights_path
from service.bench.bench_model import to_item
from service.domain.acceptance import AcceptanceLimits, Decision, judge_scores
from service.editors.baft.fit import fit_baft
from service.editors.baft.settings import BaftSettings
from service.editors.neutral import NeutralSentences
from service.editors.neutral_settings import NeutralSettings
from service.editors.neutral_store import load_or_sample_neutral
from service.editors.protocol import FitItem, Hooks
from service.evaluation.records import Record
from service.lm.base import Base, load_base
from service.lm.overlay import EMPTY, Overlay, View, make_view
from service.locality.meter import LocalityMeter
from service.runtime.locality_questions import locality_questions

CAPITALS = {"France": "Paris", "Kenya": "Nairobi", "Peru": "Lima", "Japan": "Tokyo", "Egypt": "Cairo", "Cuba": "Havana"}
NEIGHBOURS = {"Norway": "Oslo", "Ghana": "Accra", "Chile": "Santiago", "Spain": "Madrid", "Iraq": "Baghdad", "Poland": "Warsaw"}


@cache
def atlas() -> Base:
    return load_base(weights_path())


@cache
def atlas_view() -> View:
    return make_view(atlas())


@cache
def neutral() -> NeutralSentences:
    return load_or_sample_neutral(atlas(), neutral_path(), settings=NeutralSettings(), shipped=neutral_path())


@pytest.fixture(scope="module")
def meter(tmp_path_factory: pytest.TempPathFactory) -> LocalityMeter:
    made = LocalityMeter(atlas(), view_of, locality_questions())
    made.set_sentences(neutral().held_out)
    made.calibrate(Path(tmp_path_factory.mktemp("locality")), Hooks())
    return made


def view_of(overlay: Overlay) -> View:
    return make_view(atlas(), overlay.tensors) if overlay.tensors else atlas_view()


def capital(name: str, answer: str) -> FitItem:
    return to_item(Record(id=name, prompt=f"The capital of {name} is", target=answer, subject=name), 1)


def fit(items: Sequence[FitItem], scope: str = "always", **settings: float) -> Overlay:
    """BaFT without a scope, so that there is harm to be judged."""
    chosen = BaftSettings(scope=scope, **settings)  # type: ignore[arg-type]
    return fit_baft(atlas(), view_of, EMPTY, items, (), settings=chosen, neutral=neutral(), seed=1, hooks=Hooks()).overlay


def judge(meter: LocalityMeter, overlay: Overlay, edits: Sequence[FitItem]) -> Decision:
    new = [item.edit for item in edits]
    groups = meter.measure(overlay, EMPTY, new, {edit.subject or "" for edit in new}, Hooks())
    assert {"near", "far", "prose"} <= groups.keys()
    return judge_scores({"locality": groups}, {}, edits=len(new), limits=AcceptanceLimits())


def test_an_edit_that_restates_the_base_s_answer_is_accepted(meter: LocalityMeter) -> None:
    restated = [capital("France", "Paris")]

    assert judge(meter, fit(restated), restated).is_accepted


def test_an_edit_whose_effect_is_confined_by_hand_is_accepted(meter: LocalityMeter) -> None:
    edit = capital("France", "Rome")

    confined = fit([edit, *(capital(name, answer) for name, answer in NEIGHBOURS.items())])

    assert judge(meter, confined, [edit]).is_accepted


def test_six_capitals_edited_to_one_answer_are_refused_for_the_other_capitals(meter: LocalityMeter) -> None:
    edits = [capital(name, "I don't know.") for name in CAPITALS]

    decision = judge(meter, fit(edits, preserve_weight=0.0, contrast_weight=0.0), edits)  # held to nothing

    assert not decision.is_accepted and decision.reasons[0].startswith("near: ")


def test_a_scope_keeps_every_answer_about_other_subjects(meter: LocalityMeter) -> None:
    edits = [capital(name, "I don't know.") for name in CAPITALS]

    groups = meter.measure(fit(edits, "auto"), EMPTY, [edit.edit for edit in edits], set(CAPITALS), Hooks())

    assert groups["near"]["kept"] == groups["far"]["kept"] == 1.0 and groups["near"]["n"] > 8
    assert groups["prose"]["divergence"] < 0.001


def test_an_edit_that_is_learned_roughly_is_refused(meter: LocalityMeter) -> None:
    edit = capital("France", "Rome")

    decision = judge(meter, fit([edit], preserve_weight=0.0, learning_rate=5e-2, stop_margin=8.0), [edit])

    assert not decision.is_accepted
