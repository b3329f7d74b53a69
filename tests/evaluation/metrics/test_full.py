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
from service.evaluation.metrics import accuracy
from service.evaluation.metrics.accuracy import MOST_ALIASES
from service.evaluation.metrics.figures import ScoredQuestion, build_knowedit_figure
from service.evaluation.metrics.fluency import entropy
from service.evaluation.metrics.full import measure_full
from service.evaluation.metrics.matching import matches_field, matches_locft, normalise_squad
from service.evaluation.metrics.teacher_forcing import divergence, teacher_force
from service.evaluation.records import EvalProbe, EvalQuestion, Record
from service.lm.intervention import Adapter
from service.lm.prompts import Row, encode_prompt, encode_row
from service.lm.tokenizing import encode_text
from tests.builders import intervention_context, make_adapter, make_rows
from tests.evaluation.letter_model import LONGEST, PROMPTS, base, reference


@lru_cache(maxsize=1)
def adapter() -> Adapter:
    return make_adapter((1, 2), scale=2.0)


@torch.no_grad()
def log_probabilities(ids: Sequence[int], prompt_length: int, adapter: Adapter | None) -> Tensor:
    """Log-probabilities (T, V) of a whole sequence in one unpadded pass."""
    mask = torch.arange(len(ids))[None, :] >= max(prompt_length - 3, 1)
    with intervention_context(adapter.interventions if adapter else {}, mask):
        return reference().view.model(torch.tensor([list(ids)])).logits[0].log_softmax(-1)


def target_distributions(row: Row, adapter: Adapter | None) -> Tensor:
    """The distributions (N, V) that predict a row's target tokens."""
    return log_probabilities(row.ids, row.prompt_length, adapter)[row.prompt_length - 1 : -1]


def decode_slowly(prompt: str, adapter: Adapter | None, limit: int = LONGEST) -> list[int]:
    """The greedy answer the slow way."""
    ids = list(encode_prompt(base(), prompt))
    answer: list[int] = []
    while len(answer) < limit and (not answer or answer[-1] not in base().eos_ids):
        answer.append(int(log_probabilities([*ids, *answer], len(ids), adapter)[-1].argmax()))
    return answer


def text(ids: Sequence[int]) -> str:
    return str(base().tokenizer.decode(list(ids), skip_special_tokens=True)).lstrip()


def mean_log_probability(prompt: str, answer: str, adapter: Adapter | None) -> float:
    row = encode_row(base(), prompt, answer, eos=False)
    return float(target_distributions(row, adapter).gather(-1, torch.tensor(row.target_ids)[:, None]).mean())


def kl(before: Tensor, after: Tensor) -> float:
    return float(torch.nn.functional.kl_div(after, before, log_target=True, reduction="none").sum(-1).mean())


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def measure(records: Sequence[Record], using: Adapter | None = None, **options: Any) -> dict[str, Any]:
    result = measure_full(reference().view, using, reference(), records, surfaces=("raw",), **options)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    return result


def record(prompt: str, target: str = "Graz", **fields: Any) -> Record:
    return Record(id=prompt, prompt=prompt, target=target, **fields)


def locality_probe(prompt: str, answer: str | None = None, group: str | None = None) -> EvalProbe:
    return EvalProbe(prompt=prompt, answer=answer, group=group)


def score(figure: dict[str, Any]) -> Any:
    return figure["score"]


def build_answerable_records() -> list[Record]:
    """An edit to what the version says already and one to what the base model says, on every prompt where that is text."""
    answers = [(prompt, text(decode_slowly(prompt, using))) for prompt in PROMPTS for using in (None, adapter())]
    return [
        Record(id=f"{at}", conflict_key=f"{at}", prompt=prompt, target=answer)
        for at, (prompt, answer) in enumerate(answers)
        if answer
    ]


def test_teacher_forcing_in_any_batches_equals_that_of_single_rows() -> None:
    rows = make_rows(base(), [(3, 2), (7, 1), (4, 9), (12, 3), *[(5, 2)] * 40])

    together, otherwise = (
        teacher_force(reference().view, adapter(), rows, distributions=3, alternative=other) for other in (False, True)
    )

    for row, one, other in zip(rows, together, otherwise, strict=True):
        expected = target_distributions(row, adapter())
        labels = torch.tensor(row.target_ids)
        assert one.choices == other.choices == tuple(expected.argmax(-1).tolist())
        assert one.log_probabilities == pytest.approx(expected.gather(-1, labels[:, None])[:, 0].tolist(), abs=1e-4)
        assert one.distributions is not None and torch.allclose(one.distributions, expected[:3], atol=1e-4)
        assert other.log_probabilities == pytest.approx(one.log_probabilities, abs=1e-4)


def test_reliability_by_tokens_by_exact_answer_and_by_the_fields_text() -> None:
    records = build_answerable_records()

    result = measure(records, adapter(), live=())["reliability"]

    rows = [
        (encode_row(base(), one.prompt, one.target), encode_row(base(), one.prompt, one.target, eos=False)) for one in records
    ]
    tokens = [
        float((target_distributions(row, adapter()).argmax(-1) == torch.tensor(row.target_ids)).float().mean()) for _, row in rows
    ]
    exact = [
        float(tuple(decode_slowly(one.prompt, adapter())) == row.target_ids) for one, (row, _) in zip(records, rows, strict=True)
    ]
    texts_match = [
        float(normalise_squad(text(decode_slowly(one.prompt, adapter()))) == normalise_squad(one.target)) for one in records
    ]
    assert score(result["token_accuracy"]) == pytest.approx(mean(tokens))
    assert (score(result["exact"]), result["exact"]["n"]) == (mean(exact), len(records))
    assert score(result["field_exact"]) == mean(texts_match)
    assert 0 < mean(exact) < 1  # else this would show nothing
    assert result["exact"]["base"] > 0


def test_metrics_count_either_all_aliases_or_the_first_alone() -> None:
    [answerable, *_] = [
        one
        for one in build_answerable_records()
        if tuple(decode_slowly(one.prompt, None)) == encode_row(base(), one.prompt, one.target).target_ids
    ]
    aliased = record(answerable.prompt, "zzz", aliases=(("yyy", answerable.target), ("xxx",)))

    result = measure([aliased])["reliability"]

    assert [score(result[name]) for name in ("exact", "exact_any", "field_exact", "field_exact_any")] == [0, 1, 0, 1]
    assert score(result["token_accuracy"]) < score(result["token_accuracy_any"]) == 1.0


def test_aliases_are_tried_up_to_a_bound() -> None:
    many = record("The 是", "a", aliases=(tuple(f"b{at}" for at in range(100)),))

    assert measure([many])["reliability"]["exact_any"]["n"] == 1
    assert MOST_ALIASES < 100


def test_ends_and_continues_are_shares_of_answers_with_the_whole_target() -> None:
    ending = [
        one
        for one in build_answerable_records()
        if tuple(decode_slowly(one.prompt, None)) == encode_row(base(), one.prompt, one.target).target_ids
    ]
    prompt, longer = max(((one.prompt, one.target) for one in ending), key=lambda pair: len(pair[1]))
    cut = Record(id="cut", prompt=prompt, target=longer[:-1], conflict_key="cut")
    records = [*ending, cut, record("Here we are 在", "nothing it says")]

    result = measure(records, live=())

    assert (score(result["after_object"]["ends"]), result["after_object"]["ends"]["n"]) == (
        len(ending) / (len(ending) + 1),
        len(ending) + 1,
    )
    assert score(result["after_object"]["continues"]) == pytest.approx(1 / (len(ending) + 1))


def test_answer_lengths_and_their_difference_to_the_base_model() -> None:
    result = measure([record(prompt) for prompt in PROMPTS], adapter())["length"]["edit"]

    lengths = [
        [len([token for token in decode_slowly(prompt, using) if token not in base().eos_ids]) for prompt in PROMPTS]
        for using in (adapter(), None)
    ]
    assert score(result["tokens"]) == mean(lengths[0])
    assert result["tokens"]["base"] == mean(lengths[1])
    assert score(result["longer_by"]) == pytest.approx(mean(lengths[0]) - mean(lengths[1]))


def test_the_four_measures_of_locality_equal_plain_forward_passes() -> None:
    probes = tuple(locality_probe(prompt, "Austria") for prompt in PROMPTS)

    result = measure([record("unused", locality=probes)], adapter())["locality"]

    rows = [encode_row(base(), prompt, "Austria", eos=False) for prompt in PROMPTS]
    agree = [
        float((target_distributions(row, adapter()).argmax(-1) == target_distributions(row, None).argmax(-1)).float().mean())
        for row in rows
    ]
    same = [float(decode_slowly(prompt, adapter()) == decode_slowly(prompt, None)) for prompt in PROMPTS]
    first, change = [], []
    for prompt in PROMPTS:
        ids, answer = list(encode_prompt(base(), prompt)), decode_slowly(prompt, None)
        first.append(kl(log_probabilities(ids, len(ids), None)[-1:], log_probabilities(ids, len(ids), adapter())[-1:]))
        row = Row((*ids, *answer), len(ids))
        labels = torch.tensor(answer)[:, None]
        change.append(
            float(
                (
                    target_distributions(row, adapter()).gather(-1, labels) - target_distributions(row, None).gather(-1, labels)
                ).mean()
            )
        )
    assert score(result["token_agreement"]) == pytest.approx(mean(agree))
    assert score(result["whole_answer"]) == mean(same)
    assert score(result["first_token_kl"]) == pytest.approx(mean(first), rel=1e-3)
    assert score(result["log_probability_change"]) == pytest.approx(mean(change), rel=1e-3)
    assert mean(agree) < 1 and mean(same) < 1  # else this would show nothing


def test_the_base_model_is_within_the_noise_floor_of_locality() -> None:
    result = measure([record("unused", locality=tuple(locality_probe(prompt) for prompt in PROMPTS))])["locality"]

    assert (score(result["token_agreement"]), score(result["whole_answer"])) == (1.0, 1.0)
    for name in ("first_token_kl", "log_probability_change"):
        assert score(result[name]) == pytest.approx(0.0, abs=1e-5)
        assert result[name]["noise"] == pytest.approx(0.0, abs=1e-5)
    assert (result["token_agreement"]["noise"], result["whole_answer"]["noise"]) == (1.0, 1.0)


def test_counterfacts_probabilities_of_new_and_true_answer() -> None:
    neighbours = (locality_probe("Linz 在", "abc", "neighbourhood"), locality_probe("No 是", "abc", "attribute"))
    edit = record("Vienna 在", "xyz", ground_truth="abc", rephrases=(EvalProbe(prompt="The 是"),), locality=neighbours)

    result = measure([edit], adapter())["counterfact"]

    for name, prompt, sign in (("efficacy", "Vienna 在", 1), ("paraphrase", "The 是", 1), ("neighbourhood", "Linz 在", -1)):
        for using, key in ((adapter(), "score"), (None, "base")):
            new, true = (exp(mean_log_probability(prompt, answer, using)) for answer in ("xyz", "abc"))
            assert result[f"{name}_magnitude"][key] == pytest.approx(sign * (new - true), rel=1e-3)
            assert result[f"{name}_success"][key] == float(sign * (new - true) > 0)
        assert result[f"{name}_success"]["n"] == 1


def test_a_pair_with_equal_answers_is_left_out_and_counted() -> None:
    result = measure([record("Vienna 在", "xyz", ground_truth=" xyz"), record("The 是", "xyz", ground_truth="abc")])

    assert (result["counterfact"]["efficacy_success"]["n"], result["left_out"]["new_answer_is_the_true_one"]) == (1, 1)


def test_a_spelling_that_does_not_fit_is_left_out_alone() -> None:
    result = measure([record("Vienna 在", "Graz", aliases=(("Graz", "x" * 1000, "Gratz"),))])

    assert result["left_out"]["cannot_be_asked"] == 0
    assert result["reliability"]["exact_any"]["n"] == 1


def opinion_record(topic: str, prompt: str) -> Record:
    return record(f"answer {prompt} kindly", subject=topic, generation=(prompt,), wanted=("good",), opposite=("bad",))


def test_drawdown_is_measured_on_a_topic_that_no_live_edit_is_about() -> None:
    first, second, third = (opinion_record(topic, prompt) for topic, prompt in zip("abc", PROMPTS[:3], strict=True))

    result = measure([first, second, third], adapter(), live=[first, Record(id="x", prompt="its name", target="t", subject="b")])

    rows = [encode_row(base(), PROMPTS[2], one, eos=False) for one in ("good", "bad")]
    expected = mean([kl(target_distributions(row, None), target_distributions(row, adapter())) for row in rows])
    assert result["opinions"]["dd"]["n"] == 2  # of the first two; beside the third all topics are edited
    assert score(result["opinions"]["dd"]) == pytest.approx(expected, rel=1e-3)
    assert result["left_out"]["no_unedited_topic"] == 1
    assert measure([first, second], adapter())["left_out"]["no_unedited_topic"] == 2


def test_opinions_are_scored_on_their_topic_and_on_the_next_one() -> None:
    usual = [
        text(decode_slowly(prompt, None)) for prompt in PROMPTS[:2]
    ]  # the base model's own words, which the version finds less likely
    replies = {"wanted": tuple(usual), "opposite": ("bad",)}
    records = [record(f"edit {at}", generation=(prompt,), **replies) for at, prompt in enumerate(PROMPTS[:2])]

    result = measure(records, adapter(), live=[])["opinions"]

    success, drawdown, below = [], [], []
    for at in (0, 1):
        up, was = (
            mean([mean_log_probability(PROMPTS[at], one, using) for one in replies["wanted"]]) for using in (adapter(), None)
        )
        down = mean_log_probability(PROMPTS[at], "bad", adapter())
        below.append(up < was)
        success.append(1 / (1 + exp(down - up)) * min(1.0, exp(up - was)))
        rows = [encode_row(base(), PROMPTS[1 - at], one, eos=False) for one in (*usual, "bad")]
        drawdown.append(mean([kl(target_distributions(row, None), target_distributions(row, adapter())) for row in rows]))
    assert any(below)  # else the second factor would not show
    assert (score(result["es"]), result["es"]["n"]) == (pytest.approx(mean(success), rel=1e-3), 2)
    assert (score(result["dd"]), result["dd"]["n"]) == (pytest.approx(mean(drawdown), rel=1e-3), 2)


def test_fluency_is_the_weighted_entropy_of_pairs_and_triples() -> None:
    # Pairs: ab twice, ba, bc, each of 4. Triples: aba, bab, abc, each of 3.
    pairs, triples = -(0.5 * log2(0.5) + 2 * 0.25 * log2(0.25)), log2(3)

    assert entropy("a b a b c") == pytest.approx((2 / 3 * pairs + 4 / 3 * triples) / 2)
    assert entropy("word " * 50) == pytest.approx(0.0)
    assert entropy("") == 0.0


def test_fluency_uses_the_generation_prompts_or_the_prompt_of_the_edit() -> None:
    result = measure([record("The 是", generation=("Linz 在", "No 是")), record("Vienna 在")])["fluency"]

    limit = base().context_length
    texts = [
        f"{prompt} {text(decode_slowly(prompt, None, min(100, limit - len(encode_prompt(base(), prompt)))))}"
        for prompt in ("Linz 在", "No 是", "Vienna 在")
    ]
    assert (result["n"], result["score"]) == (3, pytest.approx(mean([entropy(one) for one in texts])))
    assert result["base"] == result["score"]


@pytest.mark.parametrize(
    ("answer", "accepted", "field", "locft"),
    [
        ("The River Thames. It flows", "river thames", True, True),
        (" Graz\nQ: next", "Graz", True, True),
        ("\nGraz", "Graz", True, False),  # LocFT's generation stops at the newline, before anything is said
        ("Graz and more", "Graz", False, False),
        ("St. Louis", "St. Louis", True, False),  # the ceiling: "." ends it before it is said
        ("St. Louis. And", "St. Louis", False, False),
        ("AN apple!", "apple", True, True),
    ],
)
def test_the_fields_exact_match_and_its_ceiling(answer: str, accepted: str, field: bool, locft: bool) -> None:
    assert (matches_field(answer, accepted), matches_locft(answer, accepted)) == (field, locft)


def test_an_answer_on_the_second_line_is_no_exact_match_of_locft(monkeypatch: pytest.MonkeyPatch) -> None:
    on_second_line = encode_text(base(), "\nGraz", field="target")
    monkeypatch.setattr(accuracy, "decode_greedily", lambda _view, _adapter, prompts, **_: [on_second_line] * len(prompts))

    result = measure([record("Vienna 在", "Graz")])["reliability"]

    assert (score(result["locft_exact"]), score(result["field_exact"])) == (0.0, 1.0)


def test_knowedits_aggregation_weighs_groups_and_cases_equally() -> None:
    def marked(case: str, group: str | None, value: float) -> ScoredQuestion:
        return ScoredQuestion(
            EvalQuestion(record=case, kind="portability", prompt="p", answer="a", surface="raw", group=group),
            {"token_accuracy": value},
        )

    questions = [
        marked("1", "a", 1),
        marked("1", "a", 0),
        marked("1", "b", 1),
        *[marked("2", "a", 0)] * 7,
        marked("3", None, 0.5),
    ]

    assert build_knowedit_figure(questions, "token_accuracy", "") == {"score": (0.75 + 0 + 0.5) / 3, "n": 3, "label": ""}


def test_portability_and_locality_are_also_reported_by_group() -> None:
    portable = tuple(EvalProbe(prompt=prompt, answer="x", group=group) for prompt, group in zip(PROMPTS[:3], "aab", strict=True))
    result = measure([record("unused", portability=portable, locality=(locality_probe(PROMPTS[4], group="near"),))])

    assert {name: group["exact"]["n"] for name, group in result["portability"]["groups"].items()} == {"a": 2, "b": 1}
    assert list(result["locality"]["groups"]) == ["near"]
    assert result["portability"]["knowedit"]["n"] == 1


def test_a_probe_that_another_live_edit_contradicts_is_left_out_and_counted() -> None:
    first = record(
        "Vienna 在",
        "Graz",
        locality=(locality_probe("Linz  在", "Bonn"), locality_probe("No 是")),
        portability=(EvalProbe(prompt="Linz 在", answer="Ulm"), EvalProbe(prompt="Linz 在", answer="ulm.")),
    )
    second = record("Linz 在", "Ulm", rephrases=(EvalProbe(prompt="Vienna 在"),))

    result = measure([first, second])

    assert (
        result["left_out"]["contradicted"] == 2
    )  # the locality question, and the rephrase that the first edit answers otherwise
    assert result["portability"]["exact"]["n"] == 2  # the other edit gives the answer they ask for
    assert result["locality"]["whole_answer"]["n"] == 1


def test_a_replaced_edit_is_not_asked_but_its_locality_probes_are() -> None:
    old = Record(
        id="old",
        prompt="p",
        target="Graz",
        subject="s",
        relation="r",
        rephrases=(EvalProbe(prompt="q"),),
        locality=(locality_probe("l"),),
    )
    new = Record(id="new", prompt="other words", target="Ulm", subject="s", relation="r")

    selection, contradicted = select_questions([old, new], ("raw",))

    assert [(ask.record, ask.kind) for _, ask in selection] == [("old", "locality"), ("new", "reliability")]
    assert contradicted == 2
    assert select_questions([old], ("raw",), live=[])[1] == 0


def test_of_live_edits_with_one_prompt_the_last_accepted_one_counts() -> None:
    live = [
        Record(id=str(at), prompt="p", target=target, conflict_key=key) for at, (key, target) in enumerate(("aX", "bY", "aZ"))
    ]
    asking = [record("q", portability=(EvalProbe(prompt="p", answer=answer),)) for answer in "YZ"]

    selection, _ = select_questions(asking, ("raw",), live=live)

    assert [ask.answer for _, ask in selection if ask.kind == "portability"] == ["Z"]


def test_a_rephrase_of_a_live_edit_contradicts_as_its_prompt_does() -> None:
    rephrased = Record(id="r", prompt="p", target="Graz", rephrases=(EvalProbe(prompt="where is it"),))
    others = [
        record("q", portability=(EvalProbe(prompt="Where is it", answer="Ulm"), EvalProbe(prompt="where  is it", answer="Ulm"))),
        record("l", locality=(locality_probe("where is it"),)),
        Record(id="same", prompt="s", target="Ulm", rephrases=(EvalProbe(prompt="where is it"),)),
    ]
    posted = [Record(id=str(at), prompt=one.prompt, target=one.target) for at, one in enumerate((rephrased, *others))]

    selection, contradicted = select_questions([rephrased, *others], ("raw",), live=posted)

    asked_kinds = [(ask.record, ask.kind) for _, ask in selection if ask.kind != "reliability"]
    assert asked_kinds == [("q", "portability")]  # in capitals it is another prompt
    assert contradicted == 4
    assert select_questions([rephrased, *others[:2]], ("raw",), live=posted[1:])[1] == 0  # it is not live


def test_repeated_edits_with_the_same_answer_contradict_nothing() -> None:
    repeated = [Record(id=str(at), prompt=prompt, target="Graz") for at, prompt in enumerate(("p", " p", "p"))]

    assert select_questions(repeated, ("raw",))[1] == 0


def test_a_question_too_long_for_the_model_is_left_out_alone_and_counted() -> None:
    result = measure([record("x" * 1000), record("The 是", locality=(locality_probe("y" * 1000),))])

    assert result["left_out"]["cannot_be_asked"] == 2
    assert result["reliability"]["exact"]["n"] == 1


def test_measuring_gives_way_between_batches_and_reports_its_moment() -> None:
    times: list[int] = []

    result = measure(
        [record(f"{prompt} {at}") for prompt in PROMPTS for at in range(9)],
        yield_to_answers=lambda: times.append(1),
        moment="after_edit",
    )

    assert len(times) >= 72 // 32 + 72 // 8  # batches of questions, and of prompts to write on from
    assert result["moment"] == "after_edit"


def test_the_score_without_questions_is_none() -> None:
    result = measure([])

    assert (result["edits"], result["questions"]) == (0, 0)
    assert (result["reliability"]["exact"]["score"], result["reliability"]["exact"]["n"]) == (None, 0)
    assert result["fluency"]["score"] is None


def test_every_figure_has_its_n_and_the_label_of_its_source() -> None:
    def walk(value: Any) -> list[dict[str, Any]]:
        if not isinstance(value, dict):
            return []
        return [value] if "score" in value else [one for inner in value.values() for one in walk(inner)]

    result = walk(measure([record("The 是", locality=(locality_probe("No 是"),))], adapter()))

    assert len(result) > 30
    assert all(isinstance(one["n"], int) and one["label"] for one in result)


def test_divergence_is_the_kullback_leibler_divergence() -> None:
    before, after = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.25, 0.75]]).log()

    assert divergence(before, after) == pytest.approx(
        0.5 * log2(2) * 0.693147 + 0.5 * torch.log(torch.tensor(2 / 3)).item(), rel=1e-4
    )
    assert divergence(before, before) == 0.0
