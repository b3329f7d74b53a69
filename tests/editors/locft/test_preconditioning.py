"""Preconditioned steps against a restatement in float64 with torch alone, on several families, and whole retrains with them."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from service.editors.locft import fit as fit_module
from service.editors.locft.location import TunedLocation, find_tuned_location
from service.editors.locft.preconditioning import PreconditionedWeights, damping_matrix, make_preconditioners
from service.editors.locft.second_moment import matrices_of, mean_moments, neutral_moments
from service.editors.locft.settings import LocftSettings
from service.editors.lora.settings import LoraSettings
from service.editors.neutral import NeutralSentences, make_sentence
from service.editors.protocol import FitCancelled, FitFailed, FitItem, Hooks
from service.lm.base import Base
from service.lm.overlay import EMPTY, Overlay, make_view
from service.lm.prompts import encode_row
from service.lm.weights import read_weight
from tests.builders import make_base
from tests.editors.locft.retrains import EDITS, fit, says
from tests.editors.taught_model import neutral, taught_base
from tests.hooks import find_hooked_modules

SENTENCES = [[0, 71, 114, 69, 88, 1], [0, 87, 89, 82, 266, 225, 42, 143, 1], [0, 77, 71, 73, 28, 87, 187], [0, 43, 77, 71, 73, 1]]
RATIO = 0.05
# family, kind, the part of the tuned matrices' names, and the name and the axis of the weight whose update is restated
FAMILIES = [("llama", "down", "mlp.down_proj.weight"), ("gpt2", "down", "mlp.c_proj.weight"), ("gpt2", "up", "mlp.c_fc.weight")]


def location_of(base: Base, **changes) -> TunedLocation:
    return find_tuned_location(base.anatomy, LocftSettings(**{"block": 2, "kind": "down", **changes}))


def sentences_of(base: Base) -> NeutralSentences:
    return NeutralSentences(base, tuple(make_sentence(base, ids) for ids in SENTENCES), ())


def plain_moment(base: Base, name: str) -> Tensor:
    """E[k kᵀ] sentence by sentence, of what a hook on the base's own module sees of all tokens but the last."""
    module, total, count = base.model.get_submodule(name.rpartition(".")[0]), 0.0, 0
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for ids in SENTENCES:
        with torch.no_grad():
            base.model(input_ids=torch.tensor([ids[:-1]]))
    handle.remove()
    for inputs in seen:
        for key in inputs.reshape(-1, inputs.shape[-1]).double():
            total, count = total + torch.outer(key, key), count + 1
    return total / count


def plain_damping(moment: Tensor, ratio: float) -> Tensor:
    """P, with the inverse of numpy's kind, from the eigenvalues."""
    values, vectors = torch.linalg.eigh(moment.double())
    mean = values.mean()
    return vectors @ torch.diag(ratio * mean / (values + ratio * mean)) @ vectors.T


@pytest.mark.parametrize(("family", "kind", "name"), FAMILIES)
def test_the_second_moment_is_that_of_all_tokens_one_by_one(family, kind, name):
    base = make_base(family, dtype=torch.float64)
    full = f"{base.anatomy.block_prefix(2)}.{name}"

    moments = neutral_moments(make_view(base), location_of(base, kind=kind), sentences_of(base), Hooks())

    assert set(moments) == {full}
    expected = plain_moment(base, full)
    assert expected.diagonal().mean() > 1e-6
    assert torch.allclose(moments[full], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_damping_is_the_formula_of_its_eigenvalues(dtype):
    keys = torch.randn(400, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, -3, 24)
    moment = keys.T @ keys / len(keys)

    damping = damping_matrix(moment.to(dtype), RATIO)

    assert torch.allclose(damping, plain_damping(moment, RATIO), rtol=0, atol=1e-10 if dtype is torch.float64 else 1e-5)


def test_directions_without_neutral_energy_stay_and_those_with_much_are_damped():
    energies = torch.tensor([10.0, 1.0, 0.02, 0.0, 0.0])
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0)))[0]
    mean = energies.mean()

    damping = damping_matrix(turn @ torch.diag(energies) @ turn.T, 0.01).float()

    lengths = (turn.T @ damping @ turn).diagonal()
    assert lengths[0] < 0.003 and lengths[1] < 0.025
    assert lengths[2] == pytest.approx(float(0.01 * mean / (0.02 + 0.01 * mean)), rel=1e-3)
    assert (lengths[3:] > 0.999).all()


def test_if_nothing_but_zeros_entered_nothing_is_damped():
    assert torch.equal(damping_matrix(torch.zeros(3, 3), 0.01), torch.eye(3, dtype=torch.float64))


def test_the_matrix_and_its_inverse_take_the_room_of_one_copy():
    """A width of 14,336 has one matrix of 1.6 GB in fp64, and no second one beside it."""
    moment, before = torch.eye(64) * 2.0, torch.eye(64) * 2.0
    allocated: list[int] = []

    with torch.profiler.profile(profile_memory=True) as profile:
        damping_matrix(moment, 0.1)

    allocated = [event.self_cpu_memory_usage for event in profile.events() if event.self_cpu_memory_usage > 0]
    assert sum(size >= 8 * 64 * 64 for size in allocated) == 1
    assert torch.equal(moment, before)


@pytest.mark.parametrize(("value", "ratio"), [(float("nan"), 0.01), (float("inf"), 0.01), (1.0, 1e-300)])
def test_inputs_that_are_not_finite_or_a_damping_too_small_fail_the_retrain(value, ratio):
    with pytest.raises(FitFailed, match="precondition"):
        damping_matrix(torch.full((3, 3), value), ratio)


@pytest.mark.parametrize(("family", "kind", "name"), FAMILIES)
def test_a_step_is_adams_step_times_the_damping(family, kind, name):
    base = make_base(family, dtype=torch.float64)
    location, full = location_of(base, kind=kind), f"{base.anatomy.block_prefix(2)}.{name}"
    private = make_view(base)
    settings = LocftSettings(precondition=RATIO, precondition_rate=2.0)
    preconditioners = make_preconditioners(
        private,
        location,
        [],
        settings=settings,
        neutral=sentences_of(base),
        start=EMPTY,
        generator=torch.Generator(),
        hooks=Hooks(),
    )
    master = PreconditionedWeights(private, location.names, 1e-2, {}, preconditioners=preconditioners)
    plain = {each: read_weight(base.model, each).clone().requires_grad_() for each in location.names}
    adam = torch.optim.Adam(plain.values(), lr=1e-2)
    damping = 2.0 * plain_damping(plain_moment(base, full), RATIO)

    for step in range(3):
        gradients = {
            each: torch.randn(weight.shape, generator=torch.Generator().manual_seed(step)) for each, weight in plain.items()
        }
        before = plain[full].detach().clone()
        for each, gradient in gradients.items():
            plain[each].grad = gradient.double()
            master.tensors[each].grad = gradient.double()
        adam.step()
        master.descend()
        with torch.no_grad():
            update = plain[full] - before
            plain[full].copy_(before + (damping @ update if family == "gpt2" else update @ damping))

    for each, weight in plain.items():  # GPT-2's bias is no matrix, and moves as Adam moves it
        assert torch.allclose(master.tensors[each], weight, rtol=0, atol=1e-9)
    assert (plain[full] - read_weight(base.model, full)).abs().max() > 1e-3


def test_linear_layers_are_damped_and_norms_biases_and_fused_experts_are_not():
    mistral, gpt2, mixtral = (make_base(family) for family in ("mistral", "gpt2", "mixtral"))
    whole = {
        base.anatomy.family: matrices_of(make_view(base), location_of(base, kind="block")) for base in (mistral, gpt2, mixtral)
    }

    assert {name.split(".")[-2] for name in whole["mistral"]} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    assert set(whole["mistral"].values()) == {1}
    assert {name.split(".")[-2] for name in whole["gpt2"]} == {"c_attn", "c_proj", "c_fc"}
    assert set(whole["gpt2"].values()) == {0}
    assert {name.split(".")[-2] for name in whole["mixtral"]} == {"q_proj", "k_proj", "v_proj", "o_proj"}


def test_a_retrain_with_damping_learns_all_edits_and_repeats_bit_for_bit():
    first, second = (fit(EDITS[:3], precondition=RATIO) for _ in range(2))

    assert first.lost == ()
    assert all(says(first.overlay, edit.edit.prompt, edit.target) for edit in EDITS[:3])
    assert first.overlay.tensors_digest == second.overlay.tensors_digest != fit(EDITS[:3]).overlay.tensors_digest


def test_a_retrain_is_the_same_whether_its_second_moment_was_kept_or_is_computed():
    fit(EDITS[3:4], precondition=RATIO)
    kept = fit(EDITS[:2], precondition=RATIO)

    fresh = replace(neutral(), _cache=type(neutral()._cache)())
    settings = LocftSettings(
        position="published",
        learning_rate=2e-2,
        batch=4,
        preserve_rows=4,
        preserve_pool=8,
        preserve_questions=0,
        wordings=0,
        precondition=RATIO,
    )
    computed = fit_module.fit_locft(taught_base(), EDITS[:2], settings=settings, neutral=fresh, seed=1)

    assert kept.overlay.tensors_digest == computed.overlay.tensors_digest


def test_neutral_text_moves_less_under_damping():
    base = taught_base()
    name = "model.layers.2.mlp.down_proj.weight"
    moment = neutral_moments(make_view(base), location_of(base), neutral(), Hooks())[name]

    def share(overlay: Overlay) -> float:
        """How much of the change of the weight neutral inputs see, E |ΔW k|², beside its size."""
        change = overlay.tensors[name] - read_weight(base.model, name)
        return float(torch.trace(change @ moment @ change.T) / change.norm() ** 2)

    plain, damped = (fit(EDITS[:3], preserve_weight=0.0, precondition=ratio).overlay for ratio in (0.0, 0.01))

    assert share(damped) < 0.2 * share(plain)


def test_without_neutral_sentences_nothing_is_damped():
    base = taught_base()
    settings = LocftSettings(position="published", learning_rate=2e-2, batch=4, precondition=RATIO)

    plain, damped = (
        fit_module.fit_locft(base, EDITS[:2], settings=each, neutral=NeutralSentences(base, (), ()), seed=1)
        for each in (settings.model_copy(update={"precondition": 0.0}), settings)
    )

    assert damped.overlay.tensors_digest == plain.overlay.tensors_digest


@pytest.mark.parametrize("preset", ["paper", "ft_m", "ft_l"])
def test_the_published_procedures_compute_no_second_moment(preset, monkeypatch):
    monkeypatch.setattr(fit_module, "make_preconditioners", None)

    fit(EDITS[:1], preset=preset)


def test_pairs_of_low_rank_are_not_preconditioned():
    assert LoraSettings().precondition == 0
    with pytest.raises(ValueError, match="precondition"):
        LoraSettings(precondition=0.01)


def consolidated(items: list[FitItem]) -> list[FitItem]:
    return [replace(each, is_consolidated=True) for each in items]


def test_a_minor_retrain_may_also_damp_what_consolidated_edits_enter():
    base = taught_base()
    start = fit(EDITS[:2]).overlay
    items = [*consolidated(EDITS[:2]), EDITS[2]]
    name = "model.layers.2.mlp.down_proj.weight"

    location, under_start = location_of(base), make_view(base, start.tensors)
    rows = [encode_row(base, edit.edit.prompt, edit.target, eos=True) for edit in EDITS[:2]]  # not of the new edit
    moment = (
        neutral_moments(make_view(base), location, neutral(), Hooks())[name]
        + 4.0 * mean_moments(under_start, location, rows, Hooks())[name]
    )

    made = make_preconditioners(
        make_view(base),
        location,
        items,
        settings=LocftSettings(precondition=RATIO, precondition_rate=1.0, precondition_edits=4.0),
        neutral=neutral(),
        start=start,
        generator=torch.Generator().manual_seed(0),
        hooks=Hooks(),
    )

    assert torch.allclose(made[name].matrix, plain_damping(moment, RATIO).float(), atol=1e-5)


def test_a_minor_retrain_with_consolidated_inputs_keeps_all_and_repeats_bit_for_bit():
    start = fit(EDITS[:2]).overlay
    items = [*consolidated(EDITS[:2]), EDITS[2]]

    first, second = (fit(items, start=start, precondition=RATIO, precondition_edits=1.0) for _ in range(2))

    assert first.lost == ()
    assert first.overlay.tensors_digest == second.overlay.tensors_digest
    assert first.overlay.tensors_digest != fit(items, start=start, precondition=RATIO).overlay.tensors_digest


def test_a_major_retrain_damps_neutral_inputs_alone():
    """What consolidated edits enter would leave a trace of retracted ones."""
    plain, weighted = (fit(consolidated(EDITS[:2]), precondition=RATIO, precondition_edits=weight) for weight in (0.0, 9.0))

    assert plain.overlay.tensors_digest == weighted.overlay.tensors_digest


def test_a_cancelled_measurement_leaves_no_hook_and_the_next_retrain_measures_again():
    base = make_base()
    view, location, asked = make_view(base), location_of(base), []
    sentences = sentences_of(base)
    before = find_hooked_modules(view.model)

    def cancelled() -> bool:
        asked.append(1)
        return len(asked) == 2

    with pytest.raises(FitCancelled):
        neutral_moments(view, location, sentences, Hooks(is_cancelled=cancelled))

    assert find_hooked_modules(view.model) == before
    assert neutral_moments(view, location, sentences, Hooks())
