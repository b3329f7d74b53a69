"""The structure of a decoder: its blocks, and the parameters of the modules inside a block. Knows no weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, cast

from torch import nn

from service.domain.errors import Refused

ModuleKind = Literal["down", "up", "mlp", "attention", "block"]

ATTENTION_NAMES = ("self_attn", "attn", "attention")
MLP_NAMES = ("mlp", "feed_forward")  # the second is Llama-4's
# Names of the up- and down-projection inside an MLP, by layout. Gated MLPs come first: "up" is never their gate.
MLP_LAYOUTS: tuple[tuple[str | None, str], ...] = (
    ("up_proj", "down_proj"),  # Llama, Mistral, Qwen, Gemma
    (None, "down_proj"),  # Phi-3: gate and up are one fused matrix, so "up" is no location of its own
    ("c_fc", "c_proj"),  # GPT-2
    ("dense_h_to_4h", "dense_4h_to_h"),  # GPT-NeoX
    ("fc_in", "fc_out"),  # GPT-J
    ("fc1", "fc2"),  # Phi
)
# Settings of models whose blocks read more than a state: Gemma-3n's, and those of the small Gemma-4.
SIDE_STREAMS = ("num_kv_shared_layers", "hidden_size_per_layer_input")
SHARED_EXPERT_NAMES = ("shared_expert", "shared_experts")


@dataclass(frozen=True)
class Location:
    """A trainable module: `kind` inside block number `block` (from 0)."""

    kind: ModuleKind
    block: int


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The parts of one decoder. `blocks[i]` returns the residual stream after block i, as a tensor or first in a tuple."""

    model: nn.Module
    decoder: nn.Module  # embeddings, blocks and final norm; returns last_hidden_state
    blocks: nn.ModuleList
    blocks_name: str  # "model.layers": the list's name below `model`
    depth: int
    width: int
    family: str

    @property
    def lm_head(self) -> nn.Module:
        return cast(Any, self.model).get_output_embeddings()

    def block_prefix(self, block: int) -> str:
        """The name of a block below the model, as in "model.layers.5"."""
        if not 0 <= block < self.depth:
            raise Refused(f"The block asked for is not one of the model's {self.depth}, numbered from 0.", field="block")
        return f"{self.blocks_name}.{block}"

    def parameters_at(self, location: Location) -> tuple[str, ...]:
        """Exact names in `model.named_parameters()` of the parameters of a location, biases included.

        Exact, because the papers' substring match makes "layers.2" match block 20 as well. In a mixture of experts the MLP is the
        shared expert. Raises Refused, with the family's name, if the family has no such module or fuses it with another.
        """
        prefix = self.block_prefix(location.block)
        path = self._path_in_block(location)
        below = f"{prefix}.{path}." if path else f"{prefix}."
        return tuple(name for name, _ in self.model.named_parameters() if name.startswith(below))

    def _path_in_block(self, location: Location) -> str:
        block = self.blocks[location.block]
        if location.kind == "block":
            return ""
        if location.kind == "attention":
            return _first_child(block, ATTENTION_NAMES) or self._refuse_absent("attention")
        mlp_name, up, down = self._mlp(block)
        if location.kind == "mlp":
            return mlp_name
        projection = up if location.kind == "up" else down
        return f"{mlp_name}.{projection}" if projection else self._refuse_absent("separate up-projection")

    def _mlp(self, block: nn.Module) -> tuple[str, str | None, str]:
        name = _first_child(block, MLP_NAMES) or self._refuse_absent("MLP module that is understood")
        mlp = getattr(block, name)
        if _first_child(mlp, ("experts",)) is not None:
            shared = _first_child(mlp, SHARED_EXPERT_NAMES) or self._refuse_absent("shared expert")
            return (f"{name}.{shared}", *self._layout(getattr(mlp, shared)))
        return (name, *self._layout(mlp))

    def _layout(self, mlp: nn.Module) -> tuple[str | None, str]:
        for up, down in MLP_LAYOUTS:
            if hasattr(mlp, down) and (up is None or hasattr(mlp, up)):
                return up, down
        return self._refuse_absent("MLP module that is understood")

    def _refuse_absent(self, module: str) -> NoReturn:
        raise Refused(f"Models of the family {self.family} have no {module}.", field="location")


def anatomy_of(model: Any) -> Anatomy:
    """The parts of a causal decoder. Raises Refused, with the family's name, for an unknown structure."""
    config = model.config
    family = str(getattr(config, "model_type", type(model).__name__))
    if getattr(config, "is_encoder_decoder", False):
        raise Refused(f"Models of the family {family} have an encoder; only decoders are served.", field="model")
    decoder = _decoder_of(model)
    if decoder is None or model.get_output_embeddings() is None:
        raise Refused(f"Models of the family {family} are not causal language models that are understood.", field="model")
    blocks = _blocks_of(decoder, config.num_hidden_layers, family)
    _require_attention(blocks, family)
    _require_one_stream(config, family)
    return Anatomy(
        model=model,
        decoder=decoder,
        blocks=blocks,
        blocks_name=next(name for name, module in model.named_modules() if module is blocks),
        depth=len(blocks),
        width=config.hidden_size,
        family=family,
    )


def mlp_of(block: nn.Module) -> nn.Module:
    """The MLP of a block, or the mixture of experts in its place."""
    name = _first_child(block, MLP_NAMES)
    assert name is not None, "anatomy_of refuses blocks without"
    return cast(nn.Module, getattr(block, name))


def _decoder_of(model: Any) -> nn.Module | None:
    """The decoder below the head. Llama-4's class names it by a prefix that only the checkpoints of larger models have."""
    for name in (model.base_model_prefix, "model"):
        decoder = getattr(model, name, None)
        if isinstance(decoder, nn.Module):
            return decoder
    return None


def _blocks_of(decoder: nn.Module, depth: int, family: str) -> nn.ModuleList:
    candidates = [child for child in decoder.children() if isinstance(child, nn.ModuleList) and len(child) == depth]
    if len(candidates) != 1:
        raise Refused(f"The blocks of models of the family {family} were not found.", field="model")
    return candidates[0]


def _require_attention(blocks: nn.ModuleList, family: str) -> None:
    """Refuse recurrent and convolutional blocks: the cached step can resume keys and values, and no other state."""
    if any(_first_child(block, names) is None for names in (ATTENTION_NAMES, MLP_NAMES) for block in blocks):
        raise Refused(f"Blocks of models of the family {family} are not attention and MLP each.", field="model")


def _require_one_stream(config: Any, family: str) -> None:
    """Refuse blocks that read more than the state of the block below: a step of a fit begins at a block with that state alone."""
    if any(getattr(config, name, None) for name in SIDE_STREAMS):
        raise Refused(
            f"Blocks of this model of the family {family} read embeddings, keys or values beside the state of the block below,"
            " which an edit could not follow.",
            field="model",
        )


def _first_child(module: nn.Module, names: Sequence[str]) -> str | None:
    return next((name for name in names if getattr(module, name, None) is not None), None)
