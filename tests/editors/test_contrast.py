"""Contrast rows are made from an edit alone, hold what the model says without it, and keep it."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from service.editors import contrast, own_writing
from service.editors.baft.editor import BaftEditor
from service.editors.baft.fit import fit_baft
from service.editors.baft.settings import BaftSettings
from service.editors.clauses import first_clause
from service.editors.contrast import ContrastPrompts, contrast_rows
from service.editors.contrast_counts import ContrastCounts
from service.editors.examples import item_rows
from service.editors.known_names import KnownNames, part_of
from service.editors.locft.fit import fit_locft
from service.editors.locft.settings import LocftSettings
from service.editors.neutral import NeutralSentences
from service.editors.protocol import EditorContext, FitCancelled, FitItem, FitResult, Hooks
from service.lm.overlay import EMPTY, Overlay
from service.lm.prompts import encode_prompt
from service.lm.scoring import decode_greedily, row_losses
from service.lm.tokenizing import decode_ids
from tests.editors.taught_model import FACTS, item, neutral, settings, taught_base, view_of

COUNTS = ContrastCounts(others=3, mentions=2, own=2)
COLOURS = [
    f"{word} thing" for word in ("amber", "azure", "beige", "black", "brown", "coral", "cream", "green", "grey", "ivory", "lilac")
]
NAMES = KnownNames((name, "colour") for name in [*COLOURS, "red", "sky"])
OF_FITS = {name for name in COLOURS if part_of(name) == "fit"}


def prompts_of(*items: FitItem) -> ContrastPrompts:
    return ContrastPrompts(("raw",), items, NAMES)


def rows_of(items: Sequence[FitItem], counts: ContrastCounts = COUNTS) -> list[Any]:
    return contrast_rows(view_of(EMPTY), prompts_of(*items), 0, counts, neutral(), Hooks())


def test_an_edit_is_asked_about_other_subjects_alone_and_behind_the_edit() -> None:
    red = item("red is", "Z", subject="red")
    prompts, rows = [text for text, _ in prompts_of(red).about_others(0, 5)], rows_of([red], ContrastCounts(3, 2, 0))

    assert len(OF_FITS) > 4 and {text.removesuffix(" is") for text in prompts} <= OF_FITS
    asked = [*prompts[:3], *(f"red is Z.\n\n{text}" for text in prompts[3:])]
    assert [row.prompt_ids for row in rows] == [encode_prompt(taught_base(), text) for text in asked]


def test_an_edit_is_asked_about_other_subjects_behind_a_sentence_about_its_own_too() -> None:
    red, base = item("my red", "Z", subject="red"), taught_base()
    rows = rows_of([red], ContrastCounts(0, 3, 2))
    written = [decode_ids(base, row.ids).strip().splitlines()[0].split(". ")[0].rstrip(".") for row in rows[3:]]
    others = [text for text, _ in prompts_of(red).about_others(0, 3)]

    leads = ["my red Z.\n\n", f"{written[0]}. ", f"{written[1]}. "]
    assert len(written) == 2 and all(text.startswith("red") for text in written)
    asked = [lead + text for lead, text in zip(leads, others, strict=True)]
    assert [row.prompt_ids for row in rows[:3]] == [encode_prompt(base, text) for text in asked]


def test_a_trained_rephrase_is_asked_about_other_subjects_too() -> None:
    prompts = [text for text, _ in prompts_of(item("red is", "Z", subject="red", rephrases=("so red is",))).about_others(0, 3)]

    assert [text.startswith("so ") for text in prompts] == [False, True, False]


def test_a_subject_that_another_edit_is_about_is_no_contrast() -> None:
    taken = sorted(OF_FITS)[0]

    prompts = [text for text, _ in prompts_of(item("red is", "Z"), item(f"{taken} is", "Y")).about_others(0, 32)]

    assert len(prompts) == len({*OF_FITS, "sky"}) - 1 and not any(taken in text for text in prompts)


def test_a_prompt_that_names_no_subject_has_no_contrast_rows() -> None:
    assert rows_of([item("water boils at", "Z")]) == []


def test_rows_hold_what_the_model_says_without_the_edit() -> None:
    rows, base = rows_of([item("red is", "Z")]), taught_base()
    beside = list(prompts_of(item("red is", "Z")).about_others(0, COUNTS.others))

    for row, (text, surface) in zip(rows[: COUNTS.others], beside, strict=True):
        prompt = encode_prompt(base, text, surface=surface)
        (answer,) = decode_greedily(view_of(EMPTY), None, [prompt], max_new_tokens=8)
        assert row.ids == (*prompt, *answer)
    assert len(rows) >= 5 and all(row.prompt_ids == encode_prompt(base, "red") for row in rows[5:])


def test_a_text_that_states_what_the_edit_changes_is_not_kept() -> None:
    base, asked = taught_base(), item("red is", "Z", subject="red")
    prompts = ContrastPrompts(("raw",), [asked], KnownNames())

    rows = contrast_rows(view_of(EMPTY), prompts, 0, ContrastCounts(0, 0, 8), neutral(), Hooks())

    assert all(base.tokenizer.decode(row.ids, skip_special_tokens=True) != "red is A" for row in rows) and len(rows) < 8


def test_questions_about_the_subject_are_kept_unless_they_ask_for_what_the_edit_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = item("The colour of red is", "Z", subject="red")
    written = ["Where is red?", "Which colour is red?", "Who is red?", "How is red?"]
    answers = {"Where is red?": "in it", "Who is red?": "surely A", "How is red?": "well"}
    monkeypatch.setattr(contrast, "can_write", lambda *_: True)
    monkeypatch.setattr(contrast, "ask_about", lambda *_: written)
    base = taught_base()

    def answer(view: object, adapter: object, prompts: Sequence[Sequence[int]], **_: object) -> list[tuple[int, ...]]:
        texts = [decode_ids(base, ids).removeprefix("Question: ").removesuffix("\nAnswer:") for ids in prompts]
        return [tuple(base.tokenizer(answers.get(text, "A"), add_special_tokens=False).input_ids) for text in texts]

    monkeypatch.setattr(contrast, "decode_greedily", answer)

    rows = rows_of([asked], ContrastCounts(0, 2, 0, questions=3))

    mentions, said = ([decode_ids(base, row.ids) for row in part] for part in (rows[:2], rows[2:]))
    assert said == [f"Question: {question}\nAnswer:{answers[question]}" for question in ("Where is red?", "How is red?")]
    assert [text.split("\n\n")[0] for text in mentions] == ["The colour of red is Z.", "Question: Where is red?\nAnswer: in it"]


def test_passages_that_name_the_subject_are_kept_unless_they_are_near_the_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    base, seen = taught_base(), list[bool]()

    def passages(_neutral: object, subject: str, count: int, *, is_left_out: Callable[[str], bool]) -> list[tuple[str, str]]:
        seen.extend(is_left_out(text) for text in ("we saw the sea", "it is A now", "any colour will do"))
        return [(f"we saw {subject} and", "went home again soon")][:count]

    monkeypatch.setattr(contrast, "passages_about", passages)

    (row,) = rows_of([item("The colour of red is", "Z", subject="red")], ContrastCounts(0, 0, 0, passages=2))

    assert (
        decode_ids(base, row.prompt_ids) == "we saw red and"
        and decode_ids(base, row.target_ids).strip() == "went home again soon"
    )
    assert seen == [False, said_of("The colour of red is") == "A", True]


def test_an_answer_is_kept_up_to_the_token_that_ends_its_first_clause(monkeypatch: pytest.MonkeyPatch) -> None:
    base = taught_base()

    def answer(_view: object, _adapter: object, prompts: Sequence[Sequence[int]], **_: object) -> list[tuple[int, ...]]:
        return [tuple(base.tokenizer(text, add_special_tokens=False).input_ids) for text in _in_turn(len(prompts))]

    monkeypatch.setattr(contrast, "decode_greedily", answer)

    rows = rows_of([item("red is", "Z", subject="red")], ContrastCounts(3, 0, 0))

    assert [decode_ids(base, row.target_ids).strip() for row in rows] == ["so it is,", "so it is", "so it."]


def _in_turn(count: int) -> list[str]:
    texts = ["changed", " so it is, and", " so it is", "\nso it. and"]
    return [texts[number % len(texts)] for number in range(count)]


def said_of(prompt: str) -> str:
    (answer,) = decode_greedily(view_of(EMPTY), None, [encode_prompt(taught_base(), prompt)], max_new_tokens=8)
    return first_clause(decode_ids(taught_base(), answer))


def test_a_model_that_writes_no_questions_is_asked_once_and_not_for_every_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, sentences = list[str](), NeutralSentences(taught_base(), (), ())
    monkeypatch.setattr(own_writing, "ask_about", lambda view, subject, *_: asked.append(subject) or [])
    for prompt in ("red is", "sky is"):
        prompts = prompts_of(item(prompt, "Z"))
        contrast_rows(view_of(EMPTY), prompts, 0, ContrastCounts(0, 0, 0, questions=3), sentences, Hooks())

    assert asked == ["Ada Lovelace"]


def test_the_same_edit_has_the_same_rows_in_every_process() -> None:
    fresh = contrast_rows(view_of(EMPTY), prompts_of(item("red is", "Z")), 0, COUNTS, neutral().first(99), Hooks())

    assert fresh == rows_of([item("red is", "Z")])


def test_asking_can_be_cancelled() -> None:
    hooks = Hooks(is_cancelled=lambda: True)

    with pytest.raises(FitCancelled):
        contrast_rows(view_of(EMPTY), prompts_of(item("dog is", "Z", subject="dog")), 0, COUNTS, neutral(), hooks)


def loss_of_neighbours(overlay: Overlay) -> float:
    """The mean loss of the taught facts but "red is" under an overlay."""
    others = [item(prompt, answer) for prompt, answer in FACTS.items() if prompt != "red is"]
    rows = [row.row for row in item_rows(taught_base(), others, eos=False, learn_probes=False)]
    return float(row_losses(view_of(overlay), rows, overlay.adapter).mean())


TAUGHT_NAMES = KnownNames((prompt.removesuffix(" is"), "fact") for prompt in FACTS)
PLAIN = {"preserve_weight": 0.0}
EARLY = {"placement": "published"}  # blocks where a fit changes more beside an edit


def test_a_fit_with_contrast_rows_keeps_more_neighbours() -> None:
    def fit(weight: float) -> Overlay:
        chosen = settings(**PLAIN, contrast_weight=weight, scope="always")
        new = [item("red is", "Z", subject="red")]
        return fit_baft(
            taught_base(), view_of, EMPTY, new, [], settings=chosen, neutral=neutral(), seed=1, names=TAUGHT_NAMES
        ).overlay

    assert loss_of_neighbours(fit(12.0)) < loss_of_neighbours(fit(0.0))


def test_a_firmer_fit_keeps_more_and_still_answers() -> None:
    context = EditorContext(taught_base(), view_of, neutral(), names=TAUGHT_NAMES)
    editor = BaftEditor(context, settings(**PLAIN, **EARLY, contrast_weight=0.3, stop_margin=2.0, scope="always"))

    def fit(firmness: int) -> FitResult:
        return editor.fit(EMPTY, [item("red is", "Z", subject="red")], [], seed=1, hooks=Hooks(), firmness=firmness)

    fits = [fit(firmness) for firmness in range(editor.firmest + 1)]

    assert len(fits) == 3 and not any(each.lost for each in fits)
    losses = [loss_of_neighbours(each.overlay) for each in fits]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] - 0.01


def test_an_editor_that_holds_nothing_has_no_firmer_fit() -> None:
    context = EditorContext(taught_base(), view_of, neutral())

    assert BaftEditor(context, BaftSettings(preset="paper")).firmest == 0


def test_a_retrain_with_contrast_rows_keeps_more_neighbours_and_is_repeatable() -> None:
    def fit(weight: float) -> Overlay:
        chosen = LocftSettings(**PLAIN, position="published", contrast_weight=weight, learning_rate=5e-3, cooldown=0)
        new = [item("red is", "Z", subject="red")]
        return fit_locft(taught_base(), new, settings=chosen, neutral=neutral(), seed=1, names=TAUGHT_NAMES).overlay

    kept = fit(12.0)

    assert loss_of_neighbours(kept) < 0.75 * loss_of_neighbours(fit(0.0))
    assert kept.tensors_digest == fit(12.0).tensors_digest
    assert all(bool(torch.isfinite(tensor).all()) for tensor in kept.tensors.values())  # type: ignore[arg-type]
