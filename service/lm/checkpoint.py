"""Overlays as bytes, each named by the SHA-256 of them. Knows no versions, and not where the bytes are kept.

What was written is read back. A read checks that the bytes give the name.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_from_bytes
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from service.domain.errors import Corrupt, Unreadable
from service.lm.checkpoint_store import CheckpointStore
from service.lm.component_kinds import find_component
from service.lm.components import Component
from service.lm.intervention import Adapter
from service.lm.overlay import Overlay

FORMAT = 1  # tensors and an adapter
FORMAT_WITH_COMPONENTS = 2  # an older release says of it that it does not know it
FORMAT_WITH_POSITIONS = 3  # the same, and an adapter that acts elsewhere than at the end of a prompt alone
FORMAT_WITH_SCOPE = 4  # the same, and an adapter that acts on the prompts of its scope alone
FORMAT_WITH_ASKED = 5  # the same, and a scope that knows what the edits of a name ask
_KNOWN_FORMATS = range(FORMAT, FORMAT_WITH_ASKED + 1)
MAX_HEADER_BYTES = 1_000_000  # a block of replaced tensors and 100 interventions need some 50 kB
KEY = "errata"  # the one metadata key: safetensors keeps several in no fixed order, and the same overlay must give the same bytes


def save(overlay: Overlay, store: CheckpointStore, *, meta: Mapping[str, Any] | None = None) -> str:
    """Write an overlay and return its digest. `meta` (JSON) is part of the bytes, and so of the digest.

    Raises Corrupt if a value is not finite or the bytes do not read back, Unavailable if the store refuses the write. Neither
    leaves anything under a checkpoint's name.
    """
    data = to_bytes(overlay, meta=meta)
    digest = hashlib.sha256(data).hexdigest()
    store.write(digest, data)
    load(store, digest)
    return digest


def load(store: CheckpointStore, digest: str) -> Overlay:
    """The overlay of a digest.

    Raises Unreadable if this process cannot read its bytes now, or if its format is unknown. Raises Corrupt if the bytes do not
    give the digest or hold no sound tensors.
    """
    return from_bytes(store.read(digest), digest)


def to_bytes(overlay: Overlay, *, meta: Mapping[str, Any] | None = None) -> bytes:
    """An overlay as safetensors. The same overlay and meta give the same bytes."""
    tensors = _arrays_of(overlay)
    head: dict[str, Any] = {"format": FORMAT, "meta": meta or {}, "adapter": None}
    components = {
        name: {"kind": weight.kind, **weight.describe()}
        for name, weight in overlay.tensors.items()
        if not isinstance(weight, Tensor)
    }
    if components:
        head |= {"format": FORMAT_WITH_COMPONENTS, "components": components}
    if overlay.adapter is not None:
        head["adapter"] = overlay.adapter.describe()
        if overlay.adapter.last.at != "prompt_end":
            head["format"] = FORMAT_WITH_POSITIONS
        if overlay.adapter.scope is not None:
            head["format"] = FORMAT_WITH_ASKED if overlay.adapter.scope.asked else FORMAT_WITH_SCOPE
    arrays = {name: tensors[name].detach().cpu().contiguous().clone() for name in sorted(tensors)}
    _require_finite(arrays)
    return tensors_to_bytes(arrays, metadata={KEY: json.dumps(head, sort_keys=True, separators=(",", ":"))})


def from_bytes(data: bytes, digest: str) -> Overlay:
    """The overlay in bytes, which must have this digest. Raises as `load` does."""
    if hashlib.sha256(data).hexdigest() != digest:
        raise Corrupt("A checkpoint's bytes are not those it was written with.")
    head = _head(data)
    try:
        tensors = tensors_from_bytes(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise Corrupt("A checkpoint is not a readable safetensors file.") from error
    _require_finite(tensors)
    try:
        return _overlay(tensors, head)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Corrupt("A checkpoint does not hold what an overlay is made of.") from error


def _arrays_of(overlay: Overlay) -> dict[str, Tensor]:
    """All tensors of an overlay, by their names in a file."""
    arrays = {} if overlay.adapter is None else overlay.adapter.to_arrays()
    for name, weight in overlay.tensors.items():
        if isinstance(weight, Tensor):
            arrays[f"tensor/{name}"] = weight
        else:
            arrays |= {f"component/{name}/{part}": tensor for part, tensor in weight.to_arrays().items()}
    return arrays


def _head(data: bytes) -> Mapping[str, Any]:
    """Errata's part of the header, read before any tensor. Raises Corrupt if the header is too large."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(MAX_HEADER_BYTES, len(data) - 8):
        raise Corrupt("A checkpoint's header is longer than any that was written.")
    try:
        head = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][KEY])
        if head["format"] not in _KNOWN_FORMATS:
            raise Unreadable("A checkpoint is of a format that this release does not know: start the release that wrote it.")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Corrupt("A checkpoint's header is not one of ours.") from error
    return head


def _overlay(tensors: Mapping[str, Tensor], head: Mapping[str, Any]) -> Overlay:
    dense = {name.removeprefix("tensor/"): tensor for name, tensor in tensors.items() if name.startswith("tensor/")}
    components = {name: _component(tensors, name, of) for name, of in head.get("components", {}).items()}
    adapter = None if head["adapter"] is None else Adapter.from_arrays(tensors, head["adapter"])
    overlay = Overlay({**dense, **components}, adapter)
    if set(_arrays_of(overlay)) != set(tensors):
        raise ValueError("tensors that nothing describes")
    return overlay


def _component(tensors: Mapping[str, Tensor], name: str, description: Mapping[str, Any]) -> Component:
    prefix = f"component/{name}/"
    arrays = {path.removeprefix(prefix): tensor for path, tensor in tensors.items() if path.startswith(prefix)}
    return find_component(str(description["kind"])).from_arrays(arrays, description)


def _require_finite(tensors: Mapping[str, Tensor]) -> None:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise Corrupt("An overlay holds a value that is not finite.")
