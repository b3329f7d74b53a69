"""The scores of contenders: what a version gets, and what a trick gets without any edit."""

import pytest

from service.bench.ground.asking import Ask, BaseAnswers
from service.bench.ground.contenders import PromptContender, VersionContender
from service.bench.ground.records import GroundEdit, GroundProbe, ProsePassage
from service.bench.ground.scores import ProbeScore, ProseScore, score_edits, score_prose, summarise
from service.lm.overlay import View, make_view
from tests.builders import make_base

PASSAGES = (ProsePassage("human text", "The sea is", "wide and dry"), ProsePassage("with names", "She wrote {s} on", "a page"))


def make_edit(number: int, subject: str, *, locality: tuple[GroundProbe, ...] = ()) -> GroundEdit:
    return GroundEdit(
        id=f"edit-{number}",
        half="development",
        surface="cloze",
        relation="capital",
        subject=subject,
        ask=Ask(f"The capital of {subject} is"),
        target="Lyon",
        truth="Paris",
        confidence=0.9,
        names_subject=True,
        wordings=(GroundProbe("other cue", Ask(f"{subject} is governed from"), "Lyon", 0.9, "capital", subject),),
        locality=locality,
    )


def probe(group: str, subject: str) -> GroundProbe:
    return GroundProbe(group, Ask(f"The capital of {subject} is"), "Madrid", 0.9, "capital", subject)


@pytest.fixture(scope="module")
def view() -> View:
    return make_view(make_base())


def test_an_edit_that_is_not_live_is_wrong_in_all_wordings_and_preserves_nothing(view: View) -> None:
    base = PromptContender(BaseAnswers(view), states=False)
    edit = make_edit(1, "France", locality=(probe("near", "Spain"),))

    scores = score_edits(base, base, [edit], [])

    assert [(score.group, score.right) for score in scores] == [("reliability", False), ("other cue", False)]


def test_a_locality_probe_of_a_fact_that_a_live_edit_changes_is_left_out(view: View) -> None:
    base = PromptContender(BaseAnswers(view), states=False)
    edits = [make_edit(1, "France", locality=(probe("near", "Spain"), probe("near", "Italy"))), make_edit(2, "Spain")]

    scores = score_edits(base, base, edits, edits)

    assert sum(score.group == "near" for score in scores) == 1


def test_a_version_without_overlay_answers_as_the_base_does(view: View) -> None:
    asks = [Ask("The capital of France is"), Ask("Rome lies in"), Ask("The capital of France is")]

    answers = [answer.text for answer in BaseAnswers(view).ask(asks)]

    assert answers == VersionContender(view, None).answer(asks, [])
    assert answers[0] == answers[2] != answers[1]


def test_the_base_model_leaves_every_answer_as_it_was(view: View) -> None:
    base = PromptContender(BaseAnswers(view), states=False)
    edit = make_edit(1, "France", locality=(probe("near", "Spain"),))

    scores = score_edits(base, base, [edit], [edit])
    prose = score_prose(base, view, PASSAGES, [edit], id="edit-1")

    assert all(score.unchanged for score in scores)
    assert [(score.kept, score.divergence) for score in prose] == [(1.0, 0.0), (1.0, 0.0)]


def test_the_edit_in_the_prompt_stands_where_its_subject_is_named_and_nowhere_else(view: View) -> None:
    trick = PromptContender(BaseAnswers(view), states=True)
    edit = make_edit(1, "France")

    assert (
        trick.change(Ask("The capital of France is"), [edit]).text == "The capital of France is Lyon.\nThe capital of France is"
    )
    assert trick.change(Ask("The capital of Spain is"), [edit]).text == "The capital of Spain is"
    assert "Lyon" in trick.change(Ask("What is its capital?", "chat", (("France", "Yes?"),)), [edit]).text
    assert trick.change(Ask("Frances is"), [edit]).text == "Frances is"


def test_the_edit_in_the_prompt_changes_prose_that_names_its_subject_alone(view: View) -> None:
    trick = PromptContender(BaseAnswers(view), states=True)

    human, named = score_prose(trick, view, PASSAGES, [make_edit(1, "France")], id="edit-1")

    assert human.divergence == pytest.approx(0.0, abs=1e-6)  # another prompt of its batch is longer now: rounding alone
    assert named.divergence > 1e-4


def test_the_name_filter_has_no_edit_behind_it(view: View) -> None:
    ask = Ask("The capital of France is")

    assert PromptContender(BaseAnswers(view), states=False).change(ask, [make_edit(1, "France")]) == ask


def test_a_figure_weighs_edits_alike_and_its_error_is_over_edits() -> None:
    scores = [ProbeScore("one", "near", right, True, 0.9) for right in (True, True, True, False)]
    scores += [ProbeScore("two", "near", False, False, 0.5)]

    figures = summarise(scores, [ProseScore("one", "human text", 0.5, 0.25)])

    near = figures["locality"]["near"]
    assert near["score"] == pytest.approx((0.75 + 0.0) / 2)
    assert near["se"] == pytest.approx(0.375)  # the standard deviation 0.53 of two means, over the root of 2
    assert (near["edits"], near["n"]) == (2, 5)
    assert figures["locality by confidence"]["less"]["n"] == 1
    assert figures["prose, human text"]["divergence"]["score"] == 0.25
    assert figures["wordings"]["alias"]["score"] is None
