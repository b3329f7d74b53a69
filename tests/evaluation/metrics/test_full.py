"""The figures of the field, each beside a plain re-statement: one row at a time, no padding, no code of ours but encoding."""

import json
from collections.abc import Sequence
from functools import lru_cache
from math import exp, log2
from typing import Any

import pytest
import torch
from torch import Tensor

from service.evaluation.contradictions import select_questions
from service.evaluation.metrics.accuracy import MOST_ALIASES
from service.evaluation.metrics.figures import ScoredQuestion, build_knowedit_figure
from service.evaluation.metrics.fluency import entropy
from service.evaluation.metrics.full import measure_full
from service.evaluation.metrics.matching import matches_field, matches_locft, normalise_squad
from service.evaluation.metrics.teacher_forcing import divergence, teacher_force
from service.evaluation.records import EvalProbe, EvalQuestion, Record
from service.lm.intervention import Adapter
from service.lm.prompts import Row, encode_prompt, encode_row
from tests.builders import intervention_context, make_adapter, make_rows
from tests.evaluation.letter_model import LONGEST, PROMPTS, base, reference


@lru_cache(maxsize=1)
def adapter() -> Adapter:
    return make_adapter((1, 2), scale=2.0)


@torch.no_grad()
def plain(ids: Sequence[int], prompt_length: int, adapter: Adapter | None) -> Tensor:
    """Log-probabilities (T, V) of a whole sequence in one unpadded pass."""
    mask = torch.arange(len(ids))[None, :] >= max(prompt_length - 3, 1)
    with intervention_context(adapter.interventions if adapter else {}, mask):
        return reference().view.model(torch.tensor([list(ids)])).logits[0].log_softmax(-1)


def along(row: Row, adapter: Adapter | None) -> Tensor:
    """The distributions (N, V) that predict a row's target tokens."""
    return plain(row.ids, row.prompt_length, adapter)[row.prompt_length - 1 : -1]


def said(prompt: str, adapter: Adapter | None, limit: int = LONGEST) -> list[int]:
    """The greedy answer the slow way."""
    ids = list(encode_prompt(base(), prompt))
    answer: list[int] = []
    while len(answer) < limit and (not answer or answer[-1] not in base().eos_ids):
        answer.append(int(plain([*ids, *answer], len(ids), adapter)[-1].argmax()))
    return answer


def text(ids: Sequence[int]) -> str:
    return str(base().tokenizer.decode(list(ids), skip_special_tokens=True)).lstrip()


def mean_log_probability(prompt: str, answer: str, adapter: Adapter | None) -> float:
    row = encode_row(base(), prompt, answer, eos=False)
    return float(along(row, adapter).gather(-1, torch.tensor(row.target_ids)[:, None]).mean())


def kl(before: Tensor, after: Tensor) -> float:
    return float(torch.nn.functional.kl_div(after, before, log_target=True, reduction="none").sum(-1).mean())


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def full(records: Sequence[Record], using: Adapter | None = None, **options: Any) -> dict[str, Any]:
    found = measure_full(reference().view, using, reference(), records, surfaces=("raw",), **options)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    return found


def record(prompt: str, target: str = "Graz", **fields: Any) -> Record:
    return Record(id=prompt, prompt=prompt, target=target, **fields)


def local(prompt: str, answer: str | None = None, group: str | None = None) -> EvalProbe:
    return EvalProbe(prompt=prompt, answer=answer, group=group)


def score(figure: dict[str, Any]) -> Any:
    return figure["score"]


def answerable() -> list[Record]:
    """An edit to what the version says already and one to what the base model says, on every prompt where that is text."""
    answers = [(prompt, text(said(prompt, using))) for prompt in PROMPTS for using in (None, adapter())]
    return [
        Record(id=f"{at}", conflict_key=f"{at}", prompt=prompt, target=answer)
        for at, (prompt, answer) in enumerate(answers)
        if answer
    ]


def test_teacher_forcing_in_batches_is_that_of_single_rows_and_other_batches_change_rounding_only() -> None:
    rows = make_rows(base(), [(3, 2), (7, 1), (4, 9), (12, 3), *[(5, 2)] * 40])

    together, otherwise = (
        teacher_force(reference().view, adapter(), rows, distributions=3, alternative=other) for other in (False, True)
    )

    for row, one, other in zip(rows, together, otherwise, strict=True):
        expected = along(row, adapter())
        labels = torch.tensor(row.target_ids)
        assert one.choices == other.choices == tuple(expected.argmax(-1).tolist())
        assert one.log_probabilities == pytest.approx(expected.gather(-1, labels[:, None])[:, 0].tolist(), abs=1e-4)
        assert one.distributions is not None and torch.allclose(one.distributions, expected[:3], atol=1e-4)
        assert other.log_probabilities == pytest.approx(one.log_probabilities, abs=1e-4)


def test_reliability_by_tokens_by_exact_answer_and_by_the_fields_text() -> None:
    records = answerable()

    found = full(records, adapter(), live=())["reliability"]

    rows = [
        (encode_row(base(), one.prompt, one.target), encode_row(base(), one.prompt, one.target, eos=False)) for one in records
    ]
    tokens = [float((along(row, adapter()).argmax(-1) == torch.tensor(row.target_ids)).float().mean()) for _, row in rows]
    exact = [float(tuple(said(one.prompt, adapter())) == row.target_ids) for one, (row, _) in zip(records, rows, strict=True)]
    told = [float(normalise_squad(text(said(one.prompt, adapter()))) == normalise_squad(one.target)) for one in records]
    assert score(found["token_accuracy"]) == pytest.approx(mean(tokens))
    assert (score(found["exact"]), found["exact"]["n"]) == (mean(exact), len(records))
    assert score(found["field_exact"]) == mean(told)
    assert 0 < mean(exact) < 1  # else this would show nothing
    assert found["exact"]["base"] > 0


def test_any_alias_will_do_where_aliases_count_and_the_first_alone_where_they_do_not() -> None:
    [known, *_] = [
        one for one in answerable() if tuple(said(one.prompt, None)) == encode_row(base(), one.prompt, one.target).target_ids
    ]
    aliased = record(known.prompt, "zzz", aliases=(("yyy", known.target), ("xxx",)))

    found = full([aliased])["reliability"]

    assert [score(found[name]) for name in ("exact", "exact_any", "field_exact", "field_exact_any")] == [0, 1, 0, 1]
    assert score(found["token_accuracy"]) < score(found["token_accuracy_any"]) == 1.0


def test_aliases_are_tried_up_to_a_bound() -> None:
    many = record("The 是", "a", aliases=(tuple(f"b{at}" for at in range(100)),))

    assert full([many])["reliability"]["exact_any"]["n"] == 1
    assert MOST_ALIASES < 100


def test_what_follows_the_object_is_told_among_answers_that_give_it() -> None:
    ending = [
        one for one in answerable() if tuple(said(one.prompt, None)) == encode_row(base(), one.prompt, one.target).target_ids
    ]
    prompt, longer = max(((one.prompt, one.target) for one in ending), key=lambda pair: len(pair[1]))
    cut = Record(id="cut", prompt=prompt, target=longer[:-1], conflict_key="cut")
    records = [*ending, cut, record("Here we are 在", "nothing it says")]

    found = full(records, live=())

    assert (score(found["after_object"]["ends"]), found["after_object"]["ends"]["n"]) == (
        len(ending) / (len(ending) + 1),
        len(ending) + 1,
    )
    assert score(found["after_object"]["continues"]) == pytest.approx(1 / (len(ending) + 1))


def test_answer_lengths_and_how_much_longer_than_the_base_models_they_are() -> None:
    found = full([record(prompt) for prompt in PROMPTS], adapter())["length"]["edit"]

    lengths = [
        [len([token for token in said(prompt, using) if token not in base().eos_ids]) for prompt in PROMPTS]
        for using in (adapter(), None)
    ]
    assert score(found["tokens"]) == mean(lengths[0])
    assert found["tokens"]["base"] == mean(lengths[1])
    assert score(found["longer_by"]) == pytest.approx(mean(lengths[0]) - mean(lengths[1]))


def test_locality_four_ways() -> None:
    probes = tuple(local(prompt, "Austria") for prompt in PROMPTS)

    found = full([record("unused", locality=probes)], adapter())["locality"]

    rows = [encode_row(base(), prompt, "Austria", eos=False) for prompt in PROMPTS]
    agree = [float((along(row, adapter()).argmax(-1) == along(row, None).argmax(-1)).float().mean()) for row in rows]
    same = [float(said(prompt, adapter()) == said(prompt, None)) for prompt in PROMPTS]
    first, change = [], []
    for prompt in PROMPTS:
        ids, answer = list(encode_prompt(base(), prompt)), said(prompt, None)
        first.append(kl(plain(ids, len(ids), None)[-1:], plain(ids, len(ids), adapter())[-1:]))
        row = Row((*ids, *answer), len(ids))
        labels = torch.tensor(answer)[:, None]
        change.append(float((along(row, adapter()).gather(-1, labels) - along(row, None).gather(-1, labels)).mean()))
    assert score(found["token_agreement"]) == pytest.approx(mean(agree))
    assert score(found["whole_answer"]) == mean(same)
    assert score(found["first_token_kl"]) == pytest.approx(mean(first), rel=1e-3)
    assert score(found["log_probability_change"]) == pytest.approx(mean(change), rel=1e-3)
    assert mean(agree) < 1 and mean(same) < 1  # else this would show nothing


def test_the_noise_floor_stands_beside_and_the_base_model_does_not_exceed_it() -> None:
    found = full([record("unused", locality=tuple(local(prompt) for prompt in PROMPTS))])["locality"]

    assert (score(found["token_agreement"]), score(found["whole_answer"])) == (1.0, 1.0)
    for name in ("first_token_kl", "log_probability_change"):
        assert score(found[name]) == pytest.approx(0.0, abs=1e-5)
        assert found[name]["noise"] == pytest.approx(0.0, abs=1e-5)
    assert (found["token_agreement"]["noise"], found["whole_answer"]["noise"]) == (1.0, 1.0)


def test_counterfacts_probabilities_of_new_and_true_answer() -> None:
    neighbours = (local("Linz 在", "abc", "neighbourhood"), local("No 是", "abc", "attribute"))
    edit = record("Vienna 在", "xyz", ground_truth="abc", rephrases=(EvalProbe(prompt="The 是"),), locality=neighbours)

    found = full([edit], adapter())["counterfact"]

    for name, prompt, sign in (("efficacy", "Vienna 在", 1), ("paraphrase", "The 是", 1), ("neighbourhood", "Linz 在", -1)):
        for using, key in ((adapter(), "score"), (None, "base")):
            new, true = (exp(mean_log_probability(prompt, answer, using)) for answer in ("xyz", "abc"))
            assert found[f"{name}_magnitude"][key] == pytest.approx(sign * (new - true), rel=1e-3)
            assert found[f"{name}_success"][key] == float(sign * (new - true) > 0)
        assert found[f"{name}_success"]["n"] == 1


def test_a_pair_whose_new_answer_is_the_true_one_is_left_out_and_counted() -> None:
    found = full([record("Vienna 在", "xyz", ground_truth=" xyz"), record("The 是", "xyz", ground_truth="abc")])

    assert (found["counterfact"]["efficacy_success"]["n"], found["left_out"]["new_answer_is_the_true_one"]) == (1, 1)


def test_a_spelling_that_does_not_fit_costs_no_other_and_not_the_question() -> None:
    found = full([record("Vienna 在", "Graz", aliases=(("Graz", "x" * 1000, "Gratz"),))])

    assert found["left_out"]["cannot_be_asked"] == 0
    assert found["reliability"]["exact_any"]["n"] == 1


def opinion(topic: str, prompt: str) -> Record:
    return record(f"answer {prompt} kindly", subject=topic, generation=(prompt,), wanted=("good",), opposite=("bad",))


def test_drawdown_is_taken_on_a_topic_that_no_live_edit_is_about() -> None:
    first, second, third = (opinion(topic, prompt) for topic, prompt in zip("abc", PROMPTS[:3], strict=True))

    found = full([first, second, third], adapter(), live=[first, Record(id="x", prompt="its name", target="t", subject="b")])

    rows = [encode_row(base(), PROMPTS[2], one, eos=False) for one in ("good", "bad")]
    expected = mean([kl(along(row, None), along(row, adapter())) for row in rows])
    assert found["opinions"]["dd"]["n"] == 2  # of the first two; beside the third all topics are edited
    assert score(found["opinions"]["dd"]) == pytest.approx(expected, rel=1e-3)
    assert found["left_out"]["no_unedited_topic"] == 1
    assert full([first, second], adapter())["left_out"]["no_unedited_topic"] == 2


def test_opinions_are_scored_on_their_topic_and_on_the_next_one() -> None:
    usual = [
        text(said(prompt, None)) for prompt in PROMPTS[:2]
    ]  # the base model's own words, which the version finds less likely
    replies = {"wanted": tuple(usual), "opposite": ("bad",)}
    records = [record(f"edit {at}", generation=(prompt,), **replies) for at, prompt in enumerate(PROMPTS[:2])]

    found = full(records, adapter(), live=[])["opinions"]

    success, drawdown, below = [], [], []
    for at in (0, 1):
        up, was = (
            mean([mean_log_probability(PROMPTS[at], one, using) for one in replies["wanted"]]) for using in (adapter(), None)
        )
        down = mean_log_probability(PROMPTS[at], "bad", adapter())
        below.append(up < was)
        success.append(1 / (1 + exp(down - up)) * min(1.0, exp(up - was)))
        rows = [encode_row(base(), PROMPTS[1 - at], one, eos=False) for one in (*usual, "bad")]
        drawdown.append(mean([kl(along(row, None), along(row, adapter())) for row in rows]))
    assert any(below)  # else the second factor would not show
    assert (score(found["es"]), found["es"]["n"]) == (pytest.approx(mean(success), rel=1e-3), 2)
    assert (score(found["dd"]), found["dd"]["n"]) == (pytest.approx(mean(drawdown), rel=1e-3), 2)


def test_fluency_is_the_weighted_entropy_of_pairs_and_triples() -> None:
    # Pairs: ab twice, ba, bc, each of 4. Triples: aba, bab, abc, each of 3.
    pairs, triples = -(0.5 * log2(0.5) + 2 * 0.25 * log2(0.25)), log2(3)

    assert entropy("a b a b c") == pytest.approx((2 / 3 * pairs + 4 / 3 * triples) / 2)
    assert entropy("word " * 50) == pytest.approx(0.0)
    assert entropy("") == 0.0


def test_fluency_is_taken_on_the_prompts_to_write_on_from_and_else_on_the_edits_own() -> None:
    found = full([record("The 是", generation=("Linz 在", "No 是")), record("Vienna 在")])["fluency"]

    limit = base().context_length
    texts = [
        f"{prompt} {text(said(prompt, None, min(100, limit - len(encode_prompt(base(), prompt)))))}"
        for prompt in ("Linz 在", "No 是", "Vienna 在")
    ]
    assert (found["n"], found["score"]) == (3, pytest.approx(mean([entropy(one) for one in texts])))
    assert found["base"] == found["score"]


@pytest.mark.parametrize(
    ("answer", "accepted", "field", "locft"),
    [
        ("The River Thames. It flows", "river thames", True, True),
        (" Graz\nQ: next", "Graz", True, True),
        ("Graz and more", "Graz", False, False),
        ("St. Louis", "St. Louis", True, False),  # the ceiling: "." ends it before it is said
        ("St. Louis. And", "St. Louis", False, False),
        ("AN apple!", "apple", True, True),
    ],
)
def test_the_fields_exact_match_and_its_ceiling(answer: str, accepted: str, field: bool, locft: bool) -> None:
    assert (matches_field(answer, accepted), matches_locft(answer, accepted)) == (field, locft)


def test_knowedits_aggregation_weighs_groups_and_cases_alike_whatever_their_number_of_probes() -> None:
    def marked(case: str, group: str | None, value: float) -> ScoredQuestion:
        return ScoredQuestion(
            EvalQuestion(record=case, kind="portability", prompt="p", answer="a", surface="raw", group=group),
            {"token_accuracy": value},
        )

    given = [marked("1", "a", 1), marked("1", "a", 0), marked("1", "b", 1), *[marked("2", "a", 0)] * 7, marked("3", None, 0.5)]

    assert build_knowedit_figure(given, "token_accuracy", "") == {"score": (0.75 + 0 + 0.5) / 3, "n": 3, "label": ""}


def test_portability_and_locality_come_by_group_as_well() -> None:
    portable = tuple(EvalProbe(prompt=prompt, answer="x", group=group) for prompt, group in zip(PROMPTS[:3], "aab", strict=True))
    found = full([record("unused", portability=portable, locality=(local(PROMPTS[4], group="near"),))])

    assert {name: group["exact"]["n"] for name, group in found["portability"]["groups"].items()} == {"a": 2, "b": 1}
    assert list(found["locality"]["groups"]) == ["near"]
    assert found["portability"]["knowedit"]["n"] == 1


def test_a_probe_whose_prompt_another_live_edit_answers_is_left_out_and_counted() -> None:
    first = record(
        "Vienna 在",
        "Graz",
        locality=(local("Linz  在", "Bonn"), local("No 是")),
        portability=(EvalProbe(prompt="Linz 在", answer="Ulm"), EvalProbe(prompt="Linz 在", answer="ulm.")),
    )
    second = record("Linz 在", "Ulm", rephrases=(EvalProbe(prompt="Vienna 在"),))

    found = full([first, second])

    assert found["left_out"]["contradicted"] == 2  # the locality question, and the rephrase that the first edit answers otherwise
    assert found["portability"]["exact"]["n"] == 2  # the other edit gives the answer they ask for
    assert found["locality"]["whole_answer"]["n"] == 1


def test_an_edit_that_a_newer_one_replaced_is_not_asked_for_but_its_neighbours_are() -> None:
    old = Record(
        id="old", prompt="p", target="Graz", subject="s", relation="r", rephrases=(EvalProbe(prompt="q"),), locality=(local("l"),)
    )
    new = Record(id="new", prompt="other words", target="Ulm", subject="s", relation="r")

    kept, contradicted = select_questions([old, new], ("raw",))

    assert [(ask.record, ask.kind) for _, ask in kept] == [("old", "locality"), ("new", "reliability")]
    assert contradicted == 2
    assert select_questions([old], ("raw",), live=[])[1] == 0


def test_of_live_edits_with_one_prompt_the_one_accepted_last_is_the_answer() -> None:
    live = [
        Record(id=str(at), prompt="p", target=target, conflict_key=key) for at, (key, target) in enumerate(("aX", "bY", "aZ"))
    ]
    asking = [record("q", portability=(EvalProbe(prompt="p", answer=answer),)) for answer in "YZ"]

    kept, _ = select_questions(asking, ("raw",), live=live)

    assert [ask.answer for _, ask in kept if ask.kind == "portability"] == ["Z"]


def test_a_rephrase_of_a_live_edit_contradicts_as_its_prompt_does() -> None:
    rephrased = Record(id="r", prompt="p", target="Graz", rephrases=(EvalProbe(prompt="where is it"),))
    others = [
        record("q", portability=(EvalProbe(prompt="Where is it", answer="Ulm"), EvalProbe(prompt="where  is it", answer="Ulm"))),
        record("l", locality=(local("where is it"),)),
        Record(id="same", prompt="s", target="Ulm", rephrases=(EvalProbe(prompt="where is it"),)),
    ]
    posted = [Record(id=str(at), prompt=one.prompt, target=one.target) for at, one in enumerate((rephrased, *others))]

    kept, contradicted = select_questions([rephrased, *others], ("raw",), live=posted)

    asked = [(ask.record, ask.kind) for _, ask in kept if ask.kind != "reliability"]
    assert asked == [("q", "portability")]  # in capitals it is another prompt
    assert contradicted == 4
    assert select_questions([rephrased, *others[:2]], ("raw",), live=posted[1:])[1] == 0  # it is not live


def test_edits_that_come_again_with_the_same_answer_contradict_nobody() -> None:
    again = [Record(id=str(at), prompt=prompt, target="Graz") for at, prompt in enumerate(("p", " p", "p"))]

    assert select_questions(again, ("raw",))[1] == 0


def test_a_question_that_the_model_cannot_be_asked_is_counted_and_costs_no_other() -> None:
    found = full([record("x" * 1000), record("The 是", locality=(local("y" * 1000),))])

    assert found["left_out"]["cannot_be_asked"] == 2
    assert found["reliability"]["exact"]["n"] == 1


def test_the_traffic_is_let_by_between_batches_and_the_moment_is_named() -> None:
    times: list[int] = []

    found = full(
        [record(f"{prompt} {at}") for prompt in PROMPTS for at in range(9)],
        yield_to_answers=lambda: times.append(1),
        moment="after_edit",
    )

    assert len(times) >= 72 // 32 + 72 // 8  # batches of questions, and of prompts to write on from
    assert found["moment"] == "after_edit"


def test_nothing_is_the_score_of_nothing() -> None:
    found = full([])

    assert (found["edits"], found["questions"]) == (0, 0)
    assert (found["reliability"]["exact"]["score"], found["reliability"]["exact"]["n"]) == (None, 0)
    assert found["fluency"]["score"] is None


def test_every_figure_has_its_n_and_says_whose_it_is() -> None:
    def walk(value: Any) -> list[dict[str, Any]]:
        if not isinstance(value, dict):
            return []
        return [value] if "score" in value else [one for inner in value.values() for one in walk(inner)]

    found = walk(full([record("The 是", locality=(local("No 是"),))], adapter()))

    assert len(found) > 30
    assert all(isinstance(one["n"], int) and one["label"] for one in found)


def test_divergence_is_kullback_and_leiblers() -> None:
    before, after = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()

    assert divergence(before, after) == pytest.approx(
        0.5 * log2(2) * 0.693147 + 0.5 * torch.log(torch.tensor(2 / 3)).item(), rel=1e-4
    )
    assert divergence(before, before) == 0.0
