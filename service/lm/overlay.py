"""Overlays, and the views of a base model that carry them: the only file that swaps tensors or reaches into a forward pass.

A view is a second tree of modules over the base's own tensors; nothing is copied but the modules, and only replaced tensors
differ. The base model's modules are left as they came. Each block of a view asks, at every call, what the *current call* wants
of it. That is held in a context variable, so calls in several threads, on one view or on many, cannot mix, and a call that dies
leaves nothing behind. Without a call a view computes what its tensors say and nothing else.
"""

import copy
import hashlib
import inspect
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from service.domain.errors import Refused
from service.lm.base import Base
from service.lm.blocks import Anatomy, anatomy_of
from service.lm.intervention import Adapter, Intervention
from service.lm.prompts import Batch


@dataclass(frozen=True, eq=False)
class Overlay:
    """What a version adds to the base: replaced tensors inside its blocks, and an adapter. Immutable."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    adapter: Adapter | None = None

    @property
    def tensors_digest(self) -> str:
        """Names the replaced tensors by content; overlays with the same one may share a view."""
        return digest_of(self.tensors)


EMPTY = Overlay()


@dataclass(frozen=True, eq=False)
class View:
    """A model that shares every tensor with its base but the replaced ones. Safe to use from several threads at once."""

    base: Base
    model: nn.Module
    anatomy: Anatomy
    tensors_digest: str


@dataclass(eq=False)
class Recording:
    """What a call saw, by block: gate weights (B, T, R) with their gradient, and hidden states (B, T, D) entering a block.

    `entering[depth]` is the state leaving the last block. `final` is the state behind the final norm, chosen positions only.
    """

    weights: dict[int, Tensor] = field(default_factory=dict)
    entering: dict[int, Tensor] = field(default_factory=dict)
    final: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Call:
    """What one forward pass is asked to do, beyond computing."""

    interventions: Mapping[int, Intervention] = field(default_factory=dict)
    mask: Tensor | None = None  # (B, T) bool: positions intervened on
    record: bool = False  # keep gate weights
    keep: Tensor | None = None  # (B, T) bool: positions the head is applied to; then logits are (1, N, V)
    watch: frozenset[int] = frozenset()  # keep the state entering these blocks
    start: int = 0  # blocks below are not run
    entering: Tensor | None = None  # (B, T, D): the state entering block `start`
    stop: int | None = None  # what enters this block is watched, and the decoder ends there, without an output
    sparing: bool = False  # the last block's MLP runs at `keep` alone: the state it leaves elsewhere is not to be used
    behind: Tensor | None = None  # (N, D): a state behind the final norm; nothing but the head is run
    recording: Recording = field(default_factory=Recording)


_CALL: ContextVar[Call | None] = ContextVar("call", default=None)


class _ForwardStopped(Exception):
    """The current call wants nothing of the decoder from here on."""


@contextmanager
def call_context(call: Call) -> Iterator[Recording]:
    """Makes `call` the current call of this thread (or task) for the forward passes inside."""
    token = _CALL.set(call)
    try:
        yield call.recording
    finally:
        _CALL.reset(token)


def intervention_context(interventions: Mapping[int, Intervention], mask: Tensor, *, record: bool = False) -> Any:
    """A context in which forward passes of a view are intervened on at `mask` (B, T); yields the `Recording`."""
    return call_context(Call(interventions=interventions, mask=mask, record=record))


def make_view(base: Base, tensors: Mapping[str, Tensor] | None = None) -> View:
    """A new view of `base` with `tensors` in the place of its own.

    Names must be parameters of blocks and shapes theirs, else `Refused`. Values are cast to the dtype and device that serve.
    """
    tensors = tensors or {}
    _check(base, tensors)
    model = _shared_copy(base.model)
    for name, tensor in tensors.items():
        owner, leaf = _owner(model, name)
        served = tensor.detach().to(device=base.device, dtype=getattr(owner, leaf).dtype, copy=True)
        setattr(owner, leaf, nn.Parameter(served, requires_grad=False))
    anatomy = anatomy_of(model)
    for block, module in enumerate(anatomy.blocks):
        module.forward = _block_forward(_weakly(module.forward), block, anatomy.depth)
    last: Any = anatomy.blocks[-1]
    last.mlp.forward = _mlp_forward(_weakly(last.mlp.forward))
    anatomy.decoder.forward = _decoder_forward(_weakly(anatomy.decoder.forward))
    return View(base, model, anatomy, digest_of(tensors))


def run_with_parameters(private: View, parameters: Mapping[str, Tensor], **inputs: Any) -> Any:
    """One forward pass of a view with `parameters` in the place of its own, and gradients to them.

    The view's modules are changed while the pass runs, so it must be one that nobody else uses.
    """
    return functional_call(private.model, dict(parameters), args=(), kwargs=inputs)


def compute_logits(
    on: View,
    batch: Batch,
    interventions: Mapping[int, Intervention] | None = None,
    *,
    keep: Tensor | None = None,
    recording: Recording | None = None,
    record: bool = False,
) -> Tensor:
    """A plain intervened forward pass of whole sequences: (B, T, V), or (N, V) at the positions `keep` (B, T).

    Gradients flow to the interventions unless the caller turned them off. `recording` is filled if given.
    """
    batch = batch.to(on.base.device)
    call = Call(
        interventions=move_interventions(on, interventions or {}),
        mask=batch.positions,
        record=record,
        keep=None if keep is None else keep.to(on.base.device),
        recording=recording or Recording(),
    )
    with call_context(call):
        out = on.model(
            input_ids=batch.ids, attention_mask=batch.attention.long(), position_ids=batch.position_ids, use_cache=False
        ).logits
    return out if keep is None else out[0]


def compute_target_logits(
    on: View, batch: Batch, interventions: Mapping[int, Intervention] | None = None, **options: Any
) -> Tensor:
    """The predictions (N, V) of the target tokens of a batch, in the row-major order of `batch.targets`."""
    return compute_logits(on, batch, interventions, keep=batch.predicting, **options)


def move_interventions(on: View, interventions: Mapping[int, Intervention]) -> dict[int, Intervention]:
    """Interventions where the view's model is; checkpoints come from disk to the CPU."""
    return {block: intervention.to(on.base.device) for block, intervention in interventions.items()}


def apply_lm_head(on: View, final: Tensor) -> Tensor:
    """Logits (N, V) of states (N, D) behind the final norm, as the model's own head makes them (soft-capping included)."""
    with call_context(Call(behind=final)):
        return on.model(inputs_embeds=final[None, :, :], use_cache=False).logits[0]


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes; the same for no tensors everywhere."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check(base: Base, tensors: Mapping[str, Tensor]) -> None:
    own = dict(base.model.named_parameters())
    inside = base.anatomy.blocks_name + "."
    for name, tensor in tensors.items():
        if name not in own or not name.startswith(inside):
            raise Refused("A replaced tensor is not a parameter of any block of the base model.", field="tensors")
        if tensor.shape != own[name].shape or not tensor.is_floating_point():
            raise Refused("A replaced tensor does not have the shape of the base model's.", field="tensors")


def _shared_copy(model: nn.Module) -> nn.Module:
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    shared[id(model.config)] = model.config
    return copy.deepcopy(model, shared)


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, leaf = name.rsplit(".", 1)
    return model.get_submodule(path), leaf


def _weakly(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method without a hold on its module, which is to hold this in turn: so a view that ends frees its tensors at once."""
    if not inspect.ismethod(method):
        return method
    weak = weakref.WeakMethod(method)

    def call(*args: Any, **kwargs: Any) -> Any:
        alive = weak()
        assert alive is not None
        return alive(*args, **kwargs)

    return call


def _block_forward(original: Callable[..., Any], block: int, depth: int) -> Callable[..., Any]:
    """A block's forward that obeys the current call: skipped below `start`, watched, stopped at, intervened on."""

    def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        call = _CALL.get()
        if call is None:
            return original(hidden, *args, **kwargs)
        if block < call.start:
            return _skipped(call, hidden, is_last=block == depth - 1)
        if block == call.start and call.entering is not None:
            hidden = call.entering  # not what the embedding layer made of it: some add positions to what they are given
        _watch(call, block, hidden)
        if block == call.stop:
            raise _ForwardStopped
        out = original(hidden, *args, **kwargs)
        bare = out[0] if isinstance(out, tuple) else out
        moved = intervene(call, block, bare)
        if block == depth - 1:
            _watch(call, depth, moved)
        return (moved, *out[1:]) if isinstance(out, tuple) else moved

    return forward


def _skipped(call: Call, hidden: Tensor, *, is_last: bool) -> Any:
    """What a block that is not run gives. Only what the last one gives is looked at; block `start` takes what the call holds.

    Some decoders take the first of a tuple. They have done so with what the block below gave, which lost its first rank by that.
    """
    entering = call.entering
    assert entering is not None
    return (entering,) if is_last and hidden.dim() < entering.dim() else entering


def intervene(call: Call, block: int, hidden: Tensor) -> Tensor:
    """The output of `block` after the call's intervention there, if it has one."""
    intervention = call.interventions.get(block)
    if intervention is None or call.mask is None:
        return hidden
    weights = intervention.weights(hidden)
    if call.record:
        call.recording.weights[block] = weights
    return intervention.apply(hidden, call.mask, weights)


def _watch(call: Call, block: int, hidden: Tensor) -> None:
    if block in call.watch:
        call.recording.entering[block] = hidden


def _mlp_forward(original: Callable[..., Any]) -> Callable[..., Any]:
    """The last block's MLP, which mixes no positions, for those alone that the head is applied to, if a call asks for that.

    Whatever else it is given may have a place for every position, and is then not to be thinned here: it runs as it is.
    """

    def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        call = _CALL.get()
        if call is None or call.keep is None or not call.sparing or args or kwargs:
            return original(hidden, *args, **kwargs)
        out = original(hidden[call.keep][None, :, :])
        spread = torch.zeros_like(hidden)
        spread[call.keep] = (out[0] if isinstance(out, tuple) else out)[0]
        return (spread, *out[1:]) if isinstance(out, tuple) else spread

    return forward


class _Behind:
    """A decoder's output that holds the final state alone; whatever else a family's head looks for is None."""

    def __init__(self, last_hidden_state: Tensor) -> None:
        self.last_hidden_state = last_hidden_state

    def __getitem__(self, place: int) -> Tensor:
        return (self.last_hidden_state,)[place]

    def __getattr__(self, name: str) -> None:
        return None


def _decoder_forward(original: Callable[..., Any]) -> Callable[..., Any]:
    """The decoder's forward, which hands only the positions asked for to the head, or nothing if a block was to stop it."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        call = _CALL.get()
        if call is None:
            return original(*args, **kwargs)
        if call.behind is not None:
            return _Behind(call.behind[None, :, :])
        try:
            out = original(*args, **kwargs)
        except _ForwardStopped:
            return None
        if call.keep is not None:
            call.recording.final = out.last_hidden_state[call.keep]  # (N, D)
            out.last_hidden_state = call.recording.final[None, :, :]
        return out

    return forward
