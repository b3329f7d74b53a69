"""The preset `paper` of BaFT against the published loop written out plainly: whole sequences, QR, float64 where it is free."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from service.domain.edit import Probe
from service.editors.baft.dataset import build_dataset
from service.editors.baft.fit import fit_baft
from service.editors.baft.row_runner import RowRunner
from service.editors.baft.settings import BaftSettings
from service.editors.baft.trainable import initial_interventions
from service.editors.known_names import NO_NAMES
from service.editors.protocol import FitItem, Hooks
from service.lm.intervention import Adapter, Balance, Intervention
from service.lm.last_tokens import LastTokens
from service.lm.overlay import EMPTY, Overlay, Recording, compute_logits
from service.lm.prompts import Row, collate, encode_prompt, encode_row
from service.lm.scoring import decode_greedily
from service.lm.tokenizing import decode_answer
from tests.editors.taught_model import FACTS, item, neutral, taught_base, view_of

RATE, STEPS, SEED = 1e-2, 4, 3
ALPHA, BETA, GAMMA = 0.01, 0.1, 0.05  # table 5, Gemma and LLaMA-3


def rows_orthonormal(free: Tensor) -> Tensor:
    """Gram-Schmidt by Householder QR with the signs that make the triangle's diagonal positive."""
    q, r = torch.linalg.qr(free.T)
    return (q * torch.sign(torch.diagonal(r))).T


def mean_gates(row: Row, interventions: dict[int, Intervention]) -> tuple[Tensor, dict[int, Tensor]]:
    """The predictions of a row's target, and by block the mean gate over the last three prompt tokens and the target."""
    batch = collate(taught_base(), [row], last=LastTokens())
    recording = Recording()
    out = compute_logits(view_of(EMPTY), batch, interventions, head_mask=batch.prediction_mask, recording=recording, record=True)
    return out, {block: weights[0, row.prompt_length - 3 :].mean(0) for block, weights in recording.weights.items()}


def nearly_even_past(edits: int) -> Balance:
    """As after many edits: the term is so small that a limit of its factor shows."""
    return Balance(edits * (0.4 + torch.tensor([0.01, -0.01, 0.005, -0.005])), edits)


def parent_with(past: Balance, settings: BaftSettings) -> Overlay:
    """An adapter that acts as no adapter does, after so many edits."""
    base = taught_base()
    blocks = settings.blocks_of("llama", 4)
    start = initial_interventions(base.anatomy.width, blocks, settings, torch.Generator().manual_seed(SEED))
    return Overlay(EMPTY.tensors, Adapter(start, dict.fromkeys(blocks, past), LastTokens(3)))


def published_loop(prompt: str, target: str, unrelated: str, past: Balance) -> dict[int, Intervention]:
    base = taught_base()
    settings = BaftSettings(preset="paper", rank=4)
    blocks = settings.blocks_of("llama", 4)
    start = initial_interventions(base.anatomy.width, blocks, settings, torch.Generator().manual_seed(SEED))
    free = {block: each.rotation.clone().requires_grad_() for block, each in start.items()}
    rest = {block: [each.source.clone(), each.bias.clone(), each.gate.clone()] for block, each in start.items()}
    parameters = list(free.values()) + [tensor.requires_grad_() for block in blocks for tensor in rest[block]]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.0)
    row = encode_row(base, prompt, target, eos=False)
    other = encode_row(base, unrelated, FACTS[unrelated], eos=False)
    for _ in range(STEPS):
        now = {block: Intervention(rows_orthonormal(free[block]), *rest[block]) for block in blocks}
        out, gates = mean_gates(row, now)
        edit = -sum(log_softmax(out[place], -1)[token] for place, token in enumerate(row.target_ids))
        if float(edit.detach()) < 0.01:
            break
        _, quiet = mean_gates(other, now)
        means = [(past.total.double() + w.double()) / (past.count + 1) for w in gates.values()]
        balance = torch.stack([((w - w.mean()) ** 2).sum() / (3 * w.mean()) for w in means]).mean()
        margin = torch.stack([hinges(gates[block], quiet[block]) for block in blocks]).mean()
        total = edit + balance * float(edit.detach()) / float(balance.detach())
        total = total + margin * min(float(edit.detach()) / max(float(margin.detach()), 1e-6), 10.0)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    return {block: Intervention(rows_orthonormal(free[block]).detach(), *(t.detach() for t in rest[block])) for block in blocks}


def with_unrelated(given: FitItem, prompt: str, answer: str | None) -> FitItem:
    return replace(given, edit=replace(given.edit, locality=(Probe(prompt=prompt, answer=answer, train=True),)))


def hinges(edit: Tensor, unrelated: Tensor) -> Tensor:
    zero = torch.zeros(())
    quiet = torch.maximum(zero, unrelated - ALPHA).mean()
    loud = torch.maximum(zero, BETA - edit).mean()
    return quiet + loud + torch.maximum(zero, GAMMA - (edit.max() - unrelated.max()))


# Without an answer of its own the unrelated sample has the unedited model's, which is the same here.
@pytest.mark.parametrize(("past", "answer"), [(0, "B"), (50, "B"), (1_000, "B"), (0, None)])
def test_the_paper_preset_is_the_published_loop(past: int, answer: str | None):
    settings = BaftSettings(
        preset="paper", rank=4, learning_rate=RATE, steps=STEPS, margin_beta=BETA, margin_gamma=GAMMA, margin_alpha=ALPHA
    )
    given = with_unrelated(item("red is", "Z"), "sky is", answer)

    parent = parent_with(nearly_even_past(past), settings) if past else EMPTY

    fitted = fit_baft(taught_base(), view_of, parent, [given], [], settings=settings, neutral=neutral(), seed=SEED)

    by_hand = published_loop("red is", "Z", "sky is", nearly_even_past(past))
    assert fitted.reports["red is"]["steps"] == STEPS
    for block, each in fitted.overlay.adapter.interventions.items():
        for name, tensor in each.tensors().items():
            # Adam's first steps are signs: where a gradient is all rounding, two right answers may differ by a step or two.
            apart = (tensor - by_hand[block].tensors()[name]).abs()
            assert float((apart > 1e-3).double().mean()) < 0.02, (block, name, float(apart.max()))


def test_the_default_scales_load_balancing_by_ten_at_most_to_the_byte(monkeypatch):
    settings, given, factors = BaftSettings(rank=4, learning_rate=RATE, steps=STEPS), item("red is", "Z"), list[float]()

    def by_ten_at_most(term: Tensor, to: Tensor, limit: float | None) -> Tensor:
        factors.append(min(float(to.detach()) / max(float(term.detach()), 1e-6), 10.0))
        return term * factors[-1]

    def fit() -> Overlay:
        parent = parent_with(nearly_even_past(50), settings)
        return fit_baft(taught_base(), view_of, parent, [given], [], settings=settings, neutral=neutral(), seed=SEED).overlay

    fitted = fit()
    monkeypatch.setattr("service.editors.baft.training_loop.rescale", by_ten_at_most)
    limited = fit()

    assert 10.0 in factors
    assert fitted.adapter is not None and limited.adapter is not None
    arrays = limited.adapter.to_arrays()
    assert all(torch.equal(tensor, arrays[name]) for name, tensor in fitted.adapter.to_arrays().items())


def test_the_margin_term_judges_the_tokens_at_which_serving_intervenes(monkeypatch: pytest.MonkeyPatch):
    base, view = taught_base(), view_of(EMPTY)
    settings = BaftSettings(preset="paper", rank=4, init="pyreft")
    blocks = settings.blocks_of("llama", 4)
    adapter = Adapter(initial_interventions(base.anatomy.width, blocks, settings, torch.Generator().manual_seed(SEED)))
    prompt = encode_prompt(base, "a blue sky is")
    served: list[Tensor] = []  # (R,) at every token that serving changes, at the first block
    apply = Intervention.apply

    def spy(self: Intervention, hidden: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
        if self is adapter.interventions[blocks[0]]:
            served.extend(weights[mask])
        return apply(self, hidden, mask, weights)

    with monkeypatch.context() as patch:
        patch.setattr(Intervention, "apply", spy)
        (ids,) = decode_greedily(view, adapter, [prompt], max_new_tokens=6)
    given = with_unrelated(item("red is", "Z"), "a blue sky is", answer := decode_answer(base, ids))
    assert (*encode_row(base, "a blue sky is", answer, eos=False).target_ids, base.eos_ids[0]) == ids
    runner = RowRunner(view, min(blocks), LastTokens(), True, Hooks())
    dataset = build_dataset(runner, [given], 1, settings=settings, neutral=neutral(), names=NO_NAMES, generator=torch.Generator())
    judged = dataset.unrelated([0], adapter.interventions, record=True).weights[blocks[0]]

    assert len(served) == 3 + len(ids) - 1  # EOS ends the answer and is never computed
    assert torch.allclose(judged[0], torch.stack(served).mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("field", "value"),
    [("replay", 0), ("preserve_weight", 0.0), ("eos", False), ("reduction", "sum"), ("steps", 40), ("scope", "always")],
)
def test_the_paper_preset_has_the_values_of_the_design(field, value):
    assert getattr(BaftSettings(preset="paper"), field) == value


def test_the_paper_preset_learns_at_the_papers_rates():
    settings = BaftSettings(preset="paper")

    assert (settings.rate_of(4096, 1), settings.rate_of(4096, 10)) == (3e-4, 1e-4)
    assert (settings.steps_of(1, 0), settings.steps_of(10, 0)) == (40, 70)
