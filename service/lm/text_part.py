"""The text part of a composite checkpoint: a decoder beside a vision or audio tower, such as Gemma-3's or Llama-4's.

Its configuration is inside the checkpoint's, and its weights have a prefix there. Loaded by the class of the decoder alone it is
a base like any other: the towers' tensors are not read, and an export is the decoder's own checkpoint.
"""

import re
from collections.abc import Iterable
from typing import Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig

from service.domain.errors import Refused

# What the weights of a decoder are called in a composite checkpoint, and in one of its own. Checkpoints of Llava's layout
# (Gemma-3, Llama-4, Mistral-3) have the first two, later ones (Gemma-3n, Gemma-4) the third, SmolVLM's the fourth.
PREFIXES = {
    "language_model.model.": "model.",
    "language_model.lm_head.": "lm_head.",
    "model.language_model.": "model.",
    "model.text_model.": "model.",
}
KEY_MAPPING = {f"^{re.escape(prefix)}": own for prefix, own in PREFIXES.items()}  # as `from_pretrained` takes it


def find_text_config(config: Any) -> Any | None:
    """The configuration of the text part, with what the whole says of both; None if the checkpoint is no composite one.

    Raises Refused if transformers has no causal class for the text part.
    """
    text = getattr(config, "text_config", None)
    if not isinstance(text, PreTrainedConfig):
        return None
    if type(text) not in MODEL_FOR_CAUSAL_LM_MAPPING or text.is_encoder_decoder:
        raise Refused(
            f"Models of the family {config.model_type} are composite, and the installed transformers has no causal class for"
            f" their text part ({text.model_type}), so they cannot be served: take a model of text alone.",
            field="model",
        )
    if getattr(config, "quantization_config", None) is not None:
        raise Refused("The model is composite and quantised, which is not served: take its unquantised weights.", field="model")
    text.tie_word_embeddings = getattr(config, "tie_word_embeddings", getattr(text, "tie_word_embeddings", False))
    return text


def require_text_weights(names: Iterable[str], family: str) -> None:
    """Raise Refused if no tensor of a composite checkpoint is called as those of a text part are."""
    if not any(name.startswith(tuple(PREFIXES)) for name in names):
        raise Refused(f"The weights of the text part of models of the family {family} were not found.", field="model")


def require_all_text_weights_read(names: Iterable[str], unexpected: Iterable[str]) -> None:
    """Raise Refused if a tensor of the text part is none that its class knows. `unexpected`: as `from_pretrained` reports it."""
    own = {name.replace(prefix, PREFIXES[prefix], 1) for name in names for prefix in PREFIXES if name.startswith(prefix)}
    if own.intersection(unexpected):
        raise Refused("The model's text part holds tensors that the installed transformers would leave out.", field="model")


def forget_prefixes(model: Any) -> None:
    """Let `save_pretrained` write the decoder's own names: by default it writes the names that were read."""
    vars(model).pop("_weight_conversions", None)
