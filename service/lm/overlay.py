"""Overlays and views. This is the only file that replaces tensors or changes a forward pass.

A view is a second tree of modules over the base's own tensors. Modules alone are copied, and only replaced tensors differ. The
base model's modules are never changed. At every forward pass each block of a view reads the *current call*, which is in a context
variable: so calls in several threads, on one view or on many, cannot mix, and a failing call leaves no state. Without a current
call a view is the plain model with its tensors.
"""

import copy
import hashlib
import inspect
import json
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from service.domain.errors import Refused
from service.lm.base import Base
from service.lm.blocks import Anatomy, anatomy_of, mlp_of
from service.lm.components import Weight
from service.lm.intervention import Adapter, Intervention
from service.lm.prompts import Batch
from service.lm.weights import place_weight, weight_shape


@dataclass(frozen=True, eq=False)
class Overlay:
    """The difference of a version from the base: replaced tensors inside its blocks, and an adapter. Immutable.

    A replaced tensor is given whole, or as a component that is merged with the base's tensor.
    """

    tensors: Mapping[str, Weight] = field(default_factory=dict)
    adapter: Adapter | None = None

    @property
    def tensors_digest(self) -> str:
        """SHA-256 of the replaced tensors. Overlays with equal digests may share a view."""
        return digest_of(self.tensors)


EMPTY = Overlay()


@dataclass(frozen=True, eq=False)
class View:
    """A model that shares all tensors with its base except the replaced ones. Safe for use in several threads at once."""

    base: Base
    model: nn.Module
    anatomy: Anatomy
    tensors_digest: str


@dataclass(eq=False)
class Recording:
    """The values recorded in a call, by block: gate weights (B, T, R) with gradients, and hidden states (B, T, D) before a block.

    `hidden[depth]` is the state behind the last block. `final` (N, D) is the state behind the final norm at `head_mask`.
    """

    weights: dict[int, Tensor] = field(default_factory=dict)
    hidden: dict[int, Tensor] = field(default_factory=dict)
    final: Tensor | None = None


@dataclass(frozen=True, eq=False)
class AdaptedRows:
    """The rows of a batch under one adapter. Their gate weights are not recorded."""

    rows: Tensor  # (N,) long: positions in the batch
    interventions: Mapping[int, Intervention]


@dataclass(frozen=True, eq=False)
class Call:
    """Options of one forward pass of a view."""

    interventions: Mapping[int, Intervention] = field(default_factory=dict)  # of all rows
    adapted: Sequence[AdaptedRows] = ()  # if adapters differ, instead of `interventions`. Each row is in one group at most
    mask: Tensor | None = None  # (B, T) bool: intervened positions
    record: bool = False  # record gate weights
    head_mask: Tensor | None = None  # (B, T) bool: positions with logits, which then are (1, N, V)
    record_hidden: frozenset[int] = frozenset()  # record the states before these blocks
    first_block: int = 0  # blocks below are not run
    hidden: Tensor | None = None  # (B, T, D): the state before `first_block`
    stop_block: int | None = None  # the decoder ends before this block, without an output
    sparse_last_mlp: bool = False  # the last block's MLP runs at `head_mask` alone; its output elsewhere is invalid
    final: Tensor | None = None  # (N, D): a state behind the final norm; only the head is run
    recording: Recording = field(default_factory=Recording)


_CALL: ContextVar[Call | None] = ContextVar("call", default=None)


class _ForwardStopped(Exception):
    """The decoder has reached the `stop_block` of the current call."""


@contextmanager
def call_context(call: Call) -> Iterator[Recording]:
    """Make `call` the current call of this thread (or task) inside the block. Yields its recording."""
    token = _CALL.set(call)
    try:
        yield call.recording
    finally:
        _CALL.reset(token)


def make_view(base: Base, tensors: Mapping[str, Weight] | None = None) -> View:
    """A new view of `base` with `tensors` in place of the base's.

    Values are cast to the served dtype and device. Raises Refused if a name is no parameter of a block or a shape differs.
    """
    tensors = tensors or {}
    _require_block_parameters(base, tensors)
    model = _shared_copy(base.model)
    for name, weight in tensors.items():
        place_weight(model, name, weight)
    anatomy = anatomy_of(model)
    for block, module in enumerate(anatomy.blocks):
        module.forward = _block_forward(_weak_method(module.forward), block, anatomy.depth)
    last_mlp = mlp_of(anatomy.blocks[-1])
    last_mlp.forward = _mlp_forward(_weak_method(last_mlp.forward))
    anatomy.decoder.forward = _decoder_forward(_weak_method(anatomy.decoder.forward))
    return View(base, model, anatomy, digest_of(tensors))


def run_with_parameters(private: View, parameters: Mapping[str, Tensor], **inputs: Any) -> Any:
    """One forward pass of a view with `parameters` in place of its own; gradients flow to them.

    The view's modules change during the pass, so the view must have no other user.
    """
    return functional_call(private.model, dict(parameters), args=(), kwargs=inputs)


@contextmanager
def receive_inputs(private: View, receivers: Mapping[str, Callable[[Tensor], None]]) -> Iterator[None]:
    """Inside the block, each receiver is given what enters the module of its name at every forward pass of the view: (…, width).

    The view must have no other user.
    """

    def make_hook(receive: Callable[[Tensor], None]) -> Callable[[nn.Module, Any], None]:
        return lambda module, inputs: receive(inputs[0])

    handles = [
        private.model.get_submodule(name).register_forward_pre_hook(make_hook(receive)) for name, receive in receivers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def compute_logits(
    view: View,
    batch: Batch,
    interventions: Mapping[int, Intervention] | None = None,
    *,
    head_mask: Tensor | None = None,
    recording: Recording | None = None,
    record: bool = False,
) -> Tensor:
    """Logits of whole sequences under interventions: (B, T, V), or (N, V) at the positions `head_mask` (B, T).

    Gradients flow to the interventions unless the caller turns gradients off. A given `recording` is filled.
    """
    batch = batch.to(view.base.device)
    call = Call(
        interventions=move_interventions(view, interventions or {}),
        mask=batch.positions,
        record=record,
        head_mask=None if head_mask is None else head_mask.to(view.base.device),
        recording=recording or Recording(),
    )
    with call_context(call):
        out = view.model(
            input_ids=batch.ids, attention_mask=batch.attention.long(), position_ids=batch.position_ids, use_cache=False
        ).logits
    return out if head_mask is None else out[0]


def compute_target_logits(
    view: View, batch: Batch, interventions: Mapping[int, Intervention] | None = None, **options: Any
) -> Tensor:
    """Logits (N, V) of the target tokens of a batch, in the row-major order of `batch.targets`."""
    return compute_logits(view, batch, interventions, head_mask=batch.prediction_mask, **options)


def move_interventions(view: View, interventions: Mapping[int, Intervention]) -> dict[int, Intervention]:
    """Interventions on the device of the view. A checkpoint from disk is on the CPU."""
    return {block: intervention.to(view.base.device) for block, intervention in interventions.items()}


def apply_lm_head(view: View, final: Tensor) -> Tensor:
    """Logits (N, V) of states (N, D) behind the final norm, from the model's own head (soft-capping included)."""
    with call_context(Call(final=final)):
        return view.model(inputs_embeds=final[None, :, :], use_cache=False).logits[0]


def digest_of(tensors: Mapping[str, Weight]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors; of a component over its kind, its description and its arrays."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        weight = tensors[name]
        if isinstance(weight, Tensor):
            _add_tensor(digest, name, weight)
        else:
            description = json.dumps(weight.describe(), sort_keys=True)
            digest.update(f"{name}\0{weight.kind}\0{description}\0".encode())
            for field_name, tensor in sorted(weight.to_arrays().items()):
                _add_tensor(digest, field_name, tensor)
    return digest.hexdigest()


def _add_tensor(digest: Any, name: str, tensor: Tensor) -> None:
    tensor = tensor.detach().cpu().contiguous()
    digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
    digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)


def _require_block_parameters(base: Base, tensors: Mapping[str, Weight]) -> None:
    inside = base.anatomy.blocks_name + "."
    for name, weight in tensors.items():
        shape = weight_shape(base.model, name)
        if shape is None or not name.startswith(inside):
            raise Refused("A replaced tensor is not a parameter of any block of the base model.", field="tensors")
        if weight.shape != shape or (isinstance(weight, Tensor) and not weight.is_floating_point()):
            raise Refused("A replaced tensor does not have the shape of the base model's.", field="tensors")


def _shared_copy(model: nn.Module) -> nn.Module:
    shared: dict[int, Any] = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    shared[id(model.config)] = model.config
    return copy.deepcopy(model, shared)


def _weak_method(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method with a weak reference to its module. Without it, a cycle would keep the tensors of unused views in memory."""
    if not inspect.ismethod(method):
        return method
    weak = weakref.WeakMethod(method)

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = weak()
        assert bound is not None
        return bound(*args, **kwargs)

    return call


def _block_forward(original: Callable[..., Any], block: int, depth: int) -> Callable[..., Any]:
    """A block's forward that follows the current call: skips, records, stops, intervenes."""

    def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        call = _CALL.get()
        if call is None:
            return original(hidden, *args, **kwargs)
        if block < call.first_block:
            return _skip_block(call, hidden, is_last=block == depth - 1)
        if block == call.first_block and call.hidden is not None:
            hidden = call.hidden  # the argument may differ: some embedding layers add positions to their inputs
        _record_hidden(call, block, hidden)
        if block == call.stop_block:
            raise _ForwardStopped
        out = original(hidden, *args, **kwargs)
        bare = out[0] if isinstance(out, tuple) else out
        moved = intervene(call, block, bare)
        if block == depth - 1:
            _record_hidden(call, depth, moved)
        return (moved, *out[1:]) if isinstance(out, tuple) else moved

    return forward


def _skip_block(call: Call, hidden: Tensor, *, is_last: bool) -> Any:
    """The output of a block that is not run. Only the last block's output is read; `first_block` reads the call's state.

    Some decoders index a block's output as a tuple. Then `hidden`, indexed so from the block below, has lost its first dimension.
    """
    state = call.hidden
    assert state is not None
    return (state,) if is_last and hidden.dim() < state.dim() else state


def intervene(call: Call, block: int, hidden: Tensor) -> Tensor:
    """The output of `block` after the call's interventions at the block, if there are any."""
    if call.adapted:
        return _intervene_by_rows(call, block, hidden)
    intervention = call.interventions.get(block)
    if intervention is None or call.mask is None:
        return hidden
    weights = intervention.weights(hidden)
    if call.record:
        call.recording.weights[block] = weights
    return intervention.apply(hidden, call.mask, weights)


def _intervene_by_rows(call: Call, block: int, hidden: Tensor) -> Tensor:
    """Each group's rows are indexed, moved in one multiplication, and put back. All other rows stay bit for bit."""
    moving = [(group.rows, group.interventions[block]) for group in call.adapted if block in group.interventions]
    if not moving or call.mask is None:
        return hidden
    moved = hidden.clone()
    for rows, intervention in moving:
        moved.index_copy_(0, rows, intervention(hidden[rows], call.mask[rows]))
    return moved


def _record_hidden(call: Call, block: int, hidden: Tensor) -> None:
    if block in call.record_hidden:
        call.recording.hidden[block] = hidden


def _mlp_forward(original: Callable[..., Any]) -> Callable[..., Any]:
    """The last block's MLP, run at the positions of the head alone if the call says so. An MLP mixes no positions.

    Further arguments may have one entry per position, so with them the MLP runs at all positions.
    """

    def forward(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        call = _CALL.get()
        if call is None or call.head_mask is None or not call.sparse_last_mlp or args or kwargs:
            return original(hidden, *args, **kwargs)
        out = original(hidden[call.head_mask][None, :, :])
        scattered = torch.zeros_like(hidden)
        first = out[0] if isinstance(out, tuple) else out
        scattered[call.head_mask] = first.reshape(-1, hidden.shape[-1])  # some mixtures of experts drop the dimension of rows
        return (scattered, *out[1:]) if isinstance(out, tuple) else scattered

    return forward


class _FinalOutput:
    """A decoder's output with the final state alone. All other attributes that a family's head may read are None."""

    def __init__(self, last_hidden_state: Tensor) -> None:
        self.last_hidden_state = last_hidden_state

    def __getitem__(self, index: int) -> Tensor:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        return None


def _decoder_forward(original: Callable[..., Any]) -> Callable[..., Any]:
    """The decoder's forward, with the states at `head_mask` alone for the head. None if the call has a `stop_block`."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        call = _CALL.get()
        if call is None:
            return original(*args, **kwargs)
        if call.final is not None:
            return _FinalOutput(call.final[None, :, :])
        try:
            out = original(*args, **kwargs)
        except _ForwardStopped:
            return None
        if call.head_mask is not None:
            call.recording.final = out.last_hidden_state[call.head_mask]  # (N, D)
            out.last_hidden_state = call.recording.final[None, :, :]
        return out

    return forward
