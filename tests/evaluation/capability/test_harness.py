"""lm-evaluation-harness over a live version: its figures beside our own log-likelihoods, taken from single rows."""

import json
from functools import lru_cache
from pathlib import Path

import pytest
import torch

pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: pip install 'errata-server[eval]'")

from lm_eval.api.instance import Instance
from typer.testing import CliRunner

from service.cli.main import app
from service.domain.errors import Refused, TooLong
from service.evaluation.capability.harness import LiveModel, run_harness
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import View, make_view
from service.lm.prompts import encode_prompt
from service.lm.scoring import decode_greedily
from service.lm.tokenizing import decode_answer, encode_text
from tests.builders import CONTEXT, intervention_context, make_adapter, make_base, save_model

TASK = """\
task: local_colours
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list:
  - metric: acc
  - metric: acc_norm
"""
DOCS = [
    {"question": f"Which is {number}?", "choices": ["snow", "fire", "a long rain"], "answer": number % 3} for number in range(6)
]


@lru_cache(maxsize=2)
def base(bos: bool = True) -> Base:
    return make_base(bos=bos)


@lru_cache(maxsize=2)
def on(bos: bool = True) -> View:
    return make_view(base(bos))


def adapter() -> Adapter:
    return make_adapter((1, 2), scale=2.0)


def model(bos: bool = True) -> LiveModel:
    return LiveModel(on(bos), adapter())


def instance(*arguments: object) -> Instance:
    return Instance(request_type="loglikelihood", doc={}, arguments=arguments, idx=0)


@torch.no_grad()
def naive(ids: tuple[int, ...], prompt: int, *, bos: bool = True) -> float:
    """log p of everything after the prompt, by one forward pass, intervened on as generation is."""
    mask = torch.arange(len(ids))[None, :] >= max(prompt - 3, 1 if bos else 0)
    with intervention_context(adapter().interventions, mask):
        logs = on(bos).model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(logs[at - 1, ids[at]]) for at in range(prompt, len(ids)))


@pytest.mark.parametrize("bos", [True, False])
def test_the_likelihood_of_a_continuation_equals_that_of_a_single_row(bos: bool) -> None:
    pairs = [("Snow is", " white"), ("Snow", " is white and cold"), ("A longer context, then snow is ", "white")]

    results = model(bos).loglikelihood([instance(*pair) for pair in pairs])

    for (context, continuation), (total, _) in zip(pairs, results, strict=True):
        before = encode_text(base(bos), context.rstrip(), field="context")
        whole = encode_text(base(bos), context + continuation, field="context")
        start = (base(bos).bos_id,) if bos else ()
        assert total == pytest.approx(naive((*start, *whole), len(start) + len(before), bos=bos), rel=1e-5)


def test_a_continuation_is_greedy_exactly_when_generation_gives_it() -> None:
    contexts = [f"Snow {number} is" for number in range(40)]
    answers = decode_greedily(on(), adapter(), [encode_prompt(base(), context) for context in contexts], max_new_tokens=1)
    answer_of = {context: base().tokenizer.decode(ids) for context, ids in zip(contexts, answers, strict=True)}
    plain = [
        context for context in contexts if answer_of[context].isascii() and answer_of[context].isalpha()
    ]  # text that is one token
    assert plain

    results = model().loglikelihood([instance(context, end) for context in plain for end in (answer_of[context], "#")])

    assert [is_greedy for _, is_greedy in results] == [True, False] * len(plain)


def test_an_empty_context_is_the_start_token() -> None:
    ids = encode_text(base(), "Snow", field="x")

    assert model().loglikelihood([instance("", "Snow")])[0][0] == pytest.approx(naive((0, *ids), 1), rel=1e-5)


def test_a_long_context_loses_its_beginning_and_a_continuation_nothing() -> None:
    short, long = "b" * (CONTEXT - 1 - 2), "a" * 50 + "b" * (CONTEXT - 1 - 2)

    results = model().loglikelihood([instance(short, " x"), instance(long, " x")])

    assert results[0] == pytest.approx(results[1])
    with pytest.raises(TooLong):
        model().loglikelihood([instance("a", "b" * CONTEXT)])


def test_a_rolling_likelihood_predicts_every_token_once() -> None:
    short, long = "Snow is white", "snow and rain " * 20
    ids = encode_text(base(), long, field="x")
    width = CONTEXT - 1

    results = model().loglikelihood_rolling([instance(short), instance(long), instance("")])

    assert results[0] == pytest.approx(naive((0, *encode_text(base(), short, field="x")), 1), rel=1e-5)
    first = naive((0, *ids[:width]), 1)
    middle = naive(tuple(ids[width - 1 : 2 * width]), 1, bos=False)
    rest = naive(tuple(ids[len(ids) - width - 1 :]), 2 * width - (len(ids) - width - 1), bos=False)
    assert 2 * width < len(ids) < 3 * width
    assert results[1] == pytest.approx(first + middle + rest, rel=1e-5)
    assert results[2] == 0


def test_generation_equals_that_of_the_service_up_to_a_stop_string() -> None:
    contexts = ["Snow is", "Rain", "What is fire?"]
    prompts = [encode_prompt(base(), context) for context in contexts]
    whole = [decode_answer(base(), ids) for ids in decode_greedily(on(), adapter(), prompts, max_new_tokens=6)]

    results = model().generate_until([instance(context, {"until": [], "max_gen_toks": 6}) for context in contexts])
    longest = max(range(3), key=lambda at: len(results[at]))
    stop = results[longest][-1]
    cut = model().generate_until([instance(contexts[longest], {"until": [stop], "max_gen_toks": 6})])

    assert [text.lstrip() for text in results] == whole
    assert cut == [results[longest].split(stop)[0]] != [results[longest]]


def test_a_task_that_samples_is_refused() -> None:
    with pytest.raises(Refused):
        model().generate_until([instance("Snow", {"do_sample": True, "temperature": 0.7})])


def test_text_never_becomes_a_control_token() -> None:
    assert encode_text(base(), " </s>", field="x") != (base().eos_ids[0],)
    results = model().loglikelihood([instance("Snow is", " </s>")])[0][0]

    ids = (0, *encode_text(base(), "Snow is </s>", field="x"))
    assert results == pytest.approx(naive(ids, 1 + len(encode_text(base(), "Snow is", field="x"))), rel=1e-5)


def test_the_harness_scores_a_users_own_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    data, folder = tmp_path / "docs.jsonl", tmp_path / "tasks"
    data.write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    folder.mkdir()
    (folder / "colours.yaml").write_text(TASK.format(data=data))
    turns: list[int] = []

    results = run_harness(on(), adapter(), ["local_colours"], include_path=folder, yield_to_answers=lambda: turns.append(1))

    right = 0
    for doc in DOCS:
        prompt = encode_prompt(base(), f"Question: {doc['question']}\nAnswer:")
        sums = [
            naive((0, *encode_text(base(), f"Question: {doc['question']}\nAnswer: {choice}", field="x")), len(prompt))
            for choice in doc["choices"]
        ]
        right += sums.index(max(sums)) == doc["answer"]
    assert results["results"]["local_colours"]["acc,none"] == pytest.approx(right / len(DOCS))
    assert results["results"]["local_colours"]["acc_stderr,none"] >= 0
    assert results["n-samples"]["local_colours"]["effective"] == len(DOCS)
    assert turns


def test_the_command_prints_the_results_of_the_harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("os.nice", lambda _: None)  # for good, in a process that tests more than this
    data, folder = tmp_path / "docs.jsonl", tmp_path / "tasks"
    data.write_text("".join(json.dumps(doc) + "\n" for doc in DOCS))
    folder.mkdir()
    (folder / "colours.yaml").write_text(TASK.format(data=data))
    model = save_model(tmp_path / "tiny", "llama")
    options = ["--harness", "local_colours", "--include-path", folder, "--limit", 4, "--out", tmp_path / "report.json"]

    result = CliRunner().invoke(app, ["eval", *map(str, options), "--model", str(model), "--data-dir", str(tmp_path / "new")])

    assert result.exit_code == 0, result.output
    assert "local_colours" in result.stdout and "acc_norm" in result.stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["version"], report["n-samples"]["local_colours"]["effective"]) == (0, 4)
    assert not (tmp_path / "new").exists()


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(Refused):
        run_harness(on(), adapter(), ["no such task"])
    with pytest.raises(Refused):
        run_harness(on(), adapter(), [])
