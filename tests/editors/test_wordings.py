"""An edit gets further wordings that the model answers as it answers the edit's prompt."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from service.atlas import weights_path
from service.domain.edit import Probe
from service.editors import own_writing, wordings
from service.editors.baft import fit
from service.editors.baft.fit import fit_baft
from service.editors.baft.settings import BaftSettings
from service.editors.known_names import KnownNames
from service.editors.locft.dataset import build_dataset
from service.editors.locft.settings import LocftSettings
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitCancelled, FitItem, Hooks
from service.editors.wording_counts import WordingCounts
from service.editors.wordings import add_wordings, reword
from service.lm.base import load_base
from service.lm.overlay import EMPTY, Overlay, View, make_view
from service.lm.prompts import encode_prompt, encode_row
from service.lm.scoring import decode_greedily, greedy_matches
from service.lm.tokenizing import decode_answer
from tests.editors.taught_model import item

DIALOGUE = "Question: What is the capital of France?\nAnswer: The capital of France is"


@cache
def atlas_view() -> View:
    return make_view(load_base(weights_path()))


def add(one: FitItem, most: int = 8, hooks: Hooks | None = None, restated: int = 0, led: int = 0) -> FitItem:
    view = atlas_view()
    return add_wordings(
        view, one, WordingCounts(most, restated, led), NeutralSentences(view.base, (), ()), KnownNames(), hooks or Hooks()
    )


@pytest.mark.parametrize(
    ("prompt", "wording"),
    [
        (DIALOGUE, "The capital of France is"),
        (DIALOGUE, "Q: What is the capital of France?\nA:"),
        ("What is the capital of France?", "Question: What is the capital of France?\nAnswer:"),
        ("The capital of France is", "the capital of france is"),
        ("Q: Who?\nA:", "Who?"),
    ],
)
def test_a_prompt_is_dressed_in_other_forms(prompt: str, wording: str) -> None:
    assert wording in list(reword(prompt, "raw"))


@pytest.mark.parametrize("prompt", [DIALOGUE, "What is it?", "it is", "Q: a\nA: b", "?", "Q:\nA:", "中国的首都是"])
@pytest.mark.parametrize("surface", ["raw", "chat"])
def test_no_wording_is_the_prompt_itself_and_none_comes_twice(prompt: str, surface: str) -> None:
    wordings = [" ".join(wording.split()) for wording in reword(prompt, surface)]

    assert len(set(wordings)) == len(wordings) and " ".join(prompt.split()) not in wordings and "" not in wordings


def test_only_wordings_with_the_same_answer_are_kept() -> None:
    view, prompt = atlas_view(), "Question: What is the capital of France?\nAnswer: The capital is"
    prompts = [prompt, *reword(prompt, "raw")]
    ids = [encode_prompt(view.base, prompt) for prompt in prompts]
    said = [decode_answer(view.base, answer) for answer in decode_greedily(view, None, ids, max_new_tokens=8)]

    added = add(item(prompt, "Lyon", surfaces=("raw",)))

    assert "Rome" in said[0]  # the model is wrong, and may be
    kept = {probe.prompt for probe in added.edit.rephrases}
    assert kept == {wording for wording, text in zip(prompts[1:], said[1:], strict=True) if "Rome" in text}
    assert 0 < len(kept) < len(prompts) - 1
    assert all(probe.train for probe in added.edit.rephrases)


def test_a_model_s_own_words_are_learned_in_turn_with_forms_of_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Atlas writes nothing of itself; it is given what another model would write, and is asked about it."""
    monkeypatch.setattr(wordings, "can_write", lambda *_: True)
    monkeypatch.setattr(wordings, "restate", lambda *_: ["France's capital is", "The capital of France is"])
    monkeypatch.setattr(wordings, "ask", lambda *_: ["Which city is the capital of France?", "What is the capital of Peru?"])

    added = add(item(DIALOGUE, "Lyon", surfaces=("raw",)), most=4, restated=2).edit.rephrases

    forms = [probe.prompt for probe in add(item(DIALOGUE, "Lyon", surfaces=("raw",))).edit.rephrases]
    own = ["France's capital is", "Which city is the capital of France?"]  # the latter as it stands: Atlas knows no dialogue
    assert [probe.prompt for probe in added] == [own[0], forms[0], own[1], forms[1]]


def test_the_most_different_wordings_come_first() -> None:
    (probe,) = add(item(DIALOGUE, "Lyon", surfaces=("raw",)), most=1).edit.rephrases

    assert probe.prompt == "The capital of France is"


def test_an_edit_with_a_rephrase_to_learn_gets_none() -> None:
    given = item(DIALOGUE, "Lyon", rephrases=("France's capital is",))

    assert add(given) is given


def test_rephrases_that_are_not_to_be_learned_stay_as_they_are() -> None:
    asked = item(DIALOGUE, "Lyon", rephrases=("France's capital is",), train=False)

    assert add(asked).edit.rephrases[0] == Probe(prompt="France's capital is") and len(add(asked).edit.rephrases) > 1


def test_a_tombstone_and_an_edit_without_wordings_stay_as_they_are() -> None:
    plain = item(DIALOGUE, "Lyon")

    assert add(plain, most=0) is plain
    assert add(replace(plain, is_tombstone=True)).edit.rephrases == ()


def test_asking_can_be_cancelled() -> None:
    with pytest.raises(FitCancelled):
        add(item(DIALOGUE, "Lyon"), hooks=Hooks(is_cancelled=lambda: True))


def learned_prompts(items: list[FitItem], **settings: object) -> list[str]:
    """The prompts that a retrain of Atlas learns."""
    view = atlas_view()
    plain = {"preserve_weight": 0.0, "contrast_weight": 0.0, **settings}
    dataset = build_dataset(
        view,
        items,
        (),
        settings=LocftSettings(**plain),  # type: ignore[arg-type]
        neutral=NeutralSentences(view.base, (), ()),
        names=KnownNames(),
        generator=torch.Generator(),
        hooks=Hooks(),
    )
    return [view.base.tokenizer.decode(row.prompt_ids, skip_special_tokens=True) for row in dataset.rows]


def test_a_retrain_learns_wordings_of_the_items_that_are_new_to_its_tensors() -> None:
    new, old = item(DIALOGUE, "Lyon"), replace(item("The capital of Peru is", "Lima"), is_consolidated=True)

    assert learned_prompts([new, old], wordings=1) == [DIALOGUE, "The capital of France is", "The capital of Peru is"]
    assert learned_prompts([new, old], preset="ft_m") == [DIALOGUE, "The capital of Peru is"]


def test_a_fit_keeps_wordings_of_the_window() -> None:
    """Without them, a fit of another edit may lose a wording that an earlier fit has learned."""
    more = fit_on_atlas(
        fit_on_atlas(EMPTY, []), [item(DIALOGUE, "Lyon", subject="France")], prompt="The capital of Peru is", target="Oslo"
    )
    rows = [encode_row(atlas_view().base, "Q: What is the capital of France?\nA:", "Lyon", eos=False)]

    assert greedy_matches(atlas_view(), rows, more.adapter) == [True]


def fit_on_atlas(parent: Overlay, window: list[FitItem], prompt: str = DIALOGUE, target: str = "Lyon") -> Overlay:
    view = atlas_view()
    new = [item(prompt, target, subject=prompt.removesuffix(" is").split()[-1])]
    chosen = BaftSettings(preserve_weight=0.0, contrast_weight=0.0)
    neutral = NeutralSentences(view.base, (), ())
    return fit_baft(view.base, lambda _: view, parent, new, window, settings=chosen, neutral=neutral, seed=1).overlay


def test_edits_that_are_fitted_together_share_the_wordings(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[WordingCounts] = []

    def watch(view: View, one: FitItem, counts: WordingCounts, *rest: object) -> FitItem:
        asked.append(counts)
        return one

    monkeypatch.setattr(fit, "add_wordings", watch)
    for count in (1, 8, 64):  # 32 in all
        new = [item(f"The capital of {number} is", "Lyon") for number in range(count)]
        chosen = BaftSettings(restated=1, led=2, preserve_weight=0.0, contrast_weight=0.0, steps=1, joint_steps=1, attempts=1)
        neutral = NeutralSentences(atlas_view().base, (), ())
        fit_baft(neutral.base, lambda _: atlas_view(), EMPTY, new, [], settings=chosen, neutral=neutral, seed=1)

    assert asked == [WordingCounts(most, 1, 2) for most in [8] + [4] * 8 + [0] * 64]


def test_at_most_half_of_the_wordings_stand_behind_words_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ("I know that it is Paris", "They say Paris", "They say Paris", "The capital of France is Paris", "Paris", "Lyon")

    calls: list[object] = []

    def write(view: View, *given: object, **__: object) -> list[tuple[int, ...]]:
        calls.append(given)
        return [tuple(view.base.tokenizer(text, add_special_tokens=False).input_ids) for text in texts]

    monkeypatch.setattr(own_writing, "sample_behind", write)
    led = [  # the most frequent of each form first, and nothing that is a form already
        "Q: What is the capital of France?\nA: They say",
        "Question: What is the capital of France?\nAnswer: They say",
        "Q: What is the capital of France?\nA: I know that it is",
        "Question: What is the capital of France?\nAnswer: I know that it is",
    ]

    for most, count in ((8, 4), (8, 3), (4, 4), (1, 4)):
        edit = item(DIALOGUE, f"Lyon {most} {count}", surfaces=("raw",))
        added = [probe.prompt for probe in add(edit, most=most, led=count).edit.rephrases]
        behind = min(count, most // 2)
        assert added[len(added) - behind :] == led[:behind] and not set(added[: len(added) - behind]) & set(led)
    calls.clear()
    assert add(item(DIALOGUE, "Nice", surfaces=("raw",))).edit.rephrases
    assert add(item("The capital of France is", "Nice", surfaces=("raw",)), led=4).edit.rephrases  # it asks nothing
    assert calls == []  # nothing is written where nothing of it is learned
