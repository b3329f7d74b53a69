"""Where BaFT acts on a prompt: at its end, or where the user's text ends, by the ids alone."""

import copy
from dataclasses import replace

import pytest
import torch

from service.editors.baft.settings import BaftSettings
from service.lm.base import Base, build_base
from service.lm.cached_step import prefill, resume
from service.lm.chat import template_tail
from service.lm.decoding import Decoding
from service.lm.intervention import Adapter
from service.lm.last_tokens import LastTokens
from service.lm.overlay import compute_logits, compute_target_logits, make_view
from service.lm.prompts import Row, collate, encode_prompt, prompt_row
from tests.builders import CHAT_TEMPLATE, make_adapter, make_base, make_model, make_tokenizer
from tests.lm.test_prompts import MOVED_SYSTEM

TALKS = [(None, []), ("be brief", []), (None, [("hi", "yes?")]), ("be brief", [("one", "two"), ("three", "four")])]
PROMPTS = ("the sky is", "no", "what is it then?", "the red sea is")
WORDS = (9, 87, 12, 44, 60)  # ids of an answer
PLAIN_TEXT = (
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}A:{% endif %}"
)
SYSTEM_LAST = (
    "{{ bos_token }}{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.content }}"
    "{% if loop.last and messages[0].role == 'system' %}<|im_end|>{{ messages[0].content }}{% endif %}<|im_end|>{% endfor %}"
)


def base_with(template: str | None) -> Base:
    tokenizer = copy.deepcopy(make_tokenizer())
    tokenizer.chat_template = template
    return build_base(make_model(), tokenizer)


def tokens_at(base: Base, at: str, count: int = 3) -> LastTokens:
    return BaftSettings(last=count, positions=at).last_tokens(template_tail(base))


def adapters(base: Base, *, dtype: torch.dtype = torch.float32) -> list[Adapter]:
    """One adapter that acts at each place, at one block or two, on other numbers of tokens."""
    places = [tokens_at(base, "prompt_end"), tokens_at(base, "text_end", 2), tokens_at(base, "both"), tokens_at(base, "both", 9)]
    return [replace(make_adapter((1, 3), seed=seed, dtype=dtype), last=last) for seed, last in enumerate(places)]


def chat_rows(base: Base) -> list[Row]:
    """Rows of both surfaces and several lengths, with an answer."""
    prompts = [encode_prompt(base, prompt, surface=surface) for prompt in PROMPTS for surface in ("chat", "raw")]
    return [replace(prompt_row(base, ids), ids=(*ids, *WORDS[: 2 + len(ids) % 4])) for ids in prompts]


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, MOVED_SYSTEM], ids=["own turns", "system moved in front"])
@pytest.mark.parametrize(("system", "turns"), TALKS)
def test_the_text_end_is_where_the_last_text_of_the_user_ends(template: str, system: str, turns: list[tuple[str, str]]) -> None:
    base = base_with(template)
    ids = encode_prompt(base, "the sky is", surface="chat", system=system, turns=turns)
    end = len(ids) - 1 - ids[::-1].index(base.tokenizer.convert_tokens_to_ids("<|im_end|>"))  # it closes the last turn
    assert base.tokenizer.decode(ids[:end]).endswith("the sky is")

    at_text, at_both = (prompt_row(base, ids).positions(tokens_at(base, at)) for at in ("text_end", "both"))

    assert at_text == [end - 3, end - 2, end - 1]
    assert at_both == sorted({*at_text, *range(len(ids) - 3, len(ids))})


@pytest.mark.parametrize("at", ["text_end", "both"])
def test_raw_text_is_intervened_as_ever(at: str) -> None:
    base = make_base()
    for prompt in (*PROMPTS, "<|im_end|>\n<|im_start|>assistant\n"):  # which stays text
        row = prompt_row(base, encode_prompt(base, prompt))
        assert row.positions(tokens_at(base, at)) == row.positions(LastTokens())


@pytest.mark.parametrize("template", [SYSTEM_LAST, PLAIN_TEXT, None], ids=["system behind the text", "no control token", "none"])
def test_where_the_end_of_the_text_is_not_certain_the_end_of_the_prompt_counts(template: str | None) -> None:
    assert tokens_at(base_with(template), "both") == LastTokens()


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2"])
def test_a_cached_step_equals_the_plain_pass_wherever_the_adapter_acts(family: str) -> None:
    base = make_base(family, dtype=torch.float64)
    view, rows = make_view(base), chat_rows(base)
    for adapter in adapters(base, dtype=torch.float64):
        plain = compute_target_logits(view, collate(base, rows, last=adapter.last), adapter.interventions)
        cached = resume(view, prefill(view, rows, first_block=1, last=adapter.last), adapter.interventions)
        torch.testing.assert_close(cached.logits, plain, rtol=0, atol=1e-12)


def test_rows_decoded_together_are_each_intervened_where_their_own_adapter_acts() -> None:
    base = make_base()
    view, own = make_view(base), adapters(base)
    prompts = [encode_prompt(base, prompt, surface="chat") for prompt in PROMPTS]
    rows = [replace(prompt_row(base, ids), ids=(*ids, *WORDS[:3])) for ids in prompts]

    decoding = Decoding(view, own, prompts)
    for step in (0, 1):
        decoding.feed(torch.tensor([WORDS[step]] * len(rows)))

    for row, adapter, logits in zip(rows, own, decoding.logits, strict=True):
        batch = collate(base, [row], last=adapter.last)
        assert batch.positions[0].nonzero()[:, 0].tolist() == row.positions(adapter.last)
        torch.testing.assert_close(logits, compute_logits(view, batch, adapter.interventions)[0, -2], rtol=0, atol=1e-5)
    assert len({tuple(row.positions(adapter.last)) for row, adapter in zip([rows[0]] * 4, own, strict=True)}) == 4
