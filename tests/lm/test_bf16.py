"""The invariants in the dtype that serves on CUDA: on the CPU always, on a device where there is one.

bf16 keeps 8 bits, so one rounding is 2^-9 of a number. Logits here are of size 1 to 4 and pass some twenty roundings; different
shapes round differently, by up to 0.04 as measured on a CPU. What must be equal bit for bit is still equal.
"""

from collections.abc import Iterator

import pytest
import torch

from service.lm.base import Base, build_base
from service.lm.cached_step import compute_block_inputs, prefill, resume, run_from
from service.lm.decoding import Decoding
from service.lm.overlay import Overlay, compute_logits, compute_target_logits, make_view
from service.lm.prompts import collate
from service.serving.scheduler import Generation, Scheduler
from tests.builders import make_adapter, make_model, make_rows, make_tokenizer

SHAPES = [(6, 3), (1, 2), (12, 4), (2, 5), (3, 1)]
TOLERANCE = 0.15


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def base(request: pytest.FixtureRequest) -> Iterator[Base]:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    yield build_base(make_model("llama", dtype=torch.bfloat16).to(request.param), make_tokenizer())


def test_no_overlay_and_a_fresh_adapter_give_the_bases_bits(base: Base) -> None:
    batch = collate(base, make_rows(base, SHAPES))
    with torch.no_grad():
        want = base.model(
            input_ids=batch.ids, attention_mask=batch.attention.long(), position_ids=batch.position_ids, use_cache=False
        ).logits

    assert want.dtype == torch.bfloat16
    assert torch.equal(compute_logits(make_view(base), batch), want)
    assert torch.equal(compute_logits(make_view(base), batch, make_adapter(scale=0.0).interventions), want)


def test_the_cached_step_and_its_gradients_are_the_plain_ones_to_rounding(base: Base) -> None:
    view, rows = make_view(base), make_rows(base, SHAPES)
    interventions = make_adapter((1, 3)).to(base.device).interventions
    source = interventions[1].source.requires_grad_()

    plain = compute_target_logits(view, collate(base, rows), interventions)
    cached = resume(view, prefill(view, rows, first_block=1), interventions)

    torch.testing.assert_close(cached.logits, plain, rtol=0, atol=TOLERANCE)
    one, two = (torch.autograd.grad(out.float().logsumexp(-1).mean(), [source])[0] for out in (cached.logits, plain))
    assert one.dtype == torch.float32
    assert float(torch.cosine_similarity(one.flatten(), two.flatten(), dim=0)) > 0.99


def test_running_from_a_block_with_an_fp32_master_cast_down_reaches_the_master(base: Base) -> None:
    view, rows = make_view(base), make_rows(base, SHAPES)
    name = "model.layers.2.mlp.down_proj.weight"
    master = view.model.get_parameter(name).float().requires_grad_()
    inputs = compute_block_inputs(view, rows, block=2)

    out = run_from(view, inputs, parameters={name: master.to(base.dtype)})

    torch.testing.assert_close(out, compute_target_logits(view, collate(base, rows)), rtol=0, atol=TOLERANCE)
    (gradient,) = torch.autograd.grad(out.float().sum(), [master])
    assert gradient.dtype == torch.float32 and bool(gradient.abs().sum() > 0)


def test_padded_cached_batched_decoding_is_the_unpadded_forward_pass_to_rounding(base: Base) -> None:
    view, rows, adapter = make_view(base), make_rows(base, [(p, 5) for p, _ in SHAPES]), make_adapter()
    decoding = Decoding(view, [adapter] * len(rows), [row.prompt_ids for row in rows])
    seen = [decoding.logits]
    for step in range(4):
        decoding.feed(torch.tensor([row.target_ids[step] for row in rows]))
        seen.append(decoding.logits)

    for number, row in enumerate(rows):
        alone = compute_logits(view, collate(base, [row]), adapter.interventions)[0, row.prompt_length - 1 : -1]
        torch.testing.assert_close(torch.stack([step[number] for step in seen]), alone, rtol=0, atol=TOLERANCE)


def test_versions_answer_side_by_side(base: Base) -> None:
    opened = Scheduler(base)
    opened.adopt(1, Overlay({}, make_adapter(seed=1)))
    prompt = make_rows(base, [(6, 1)])[0].prompt_ids
    futures = [opened.submit(Generation(prompt_ids=prompt, max_new_tokens=12, version=v)) for v in (0, 1, 0, 1)]
    opened.start()  # only now, so that those of one version are decoded together: in another batch bf16 rounds otherwise
    answers = [future.result(60) for future in futures]
    opened.close()
    assert answers[0].ids == answers[2].ids != answers[1].ids == answers[3].ids
