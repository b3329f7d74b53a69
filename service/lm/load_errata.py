"""Loads this checkpoint with the interventions beside it. Needs only torch, transformers and safetensors.

    from load_errata import load
    model, tokenizer = load(".")
    model.generate(**tokenizer("The capital of Australia is", return_tensors="pt"), do_sample=False)

`AutoModelForCausalLM.from_pretrained` refuses the folder: it would load the replaced tensors without the interventions, and the
edits of the window would be missing. An export contains a copy of this file, and of the one that tells which prompts the
interventions act on. They need no other file of the program.

A version may also state edits that none of its weights and interventions carry. `state` puts them in front of a prompt:

    model.generate(**tokenizer(state("The capital of Australia is"), return_tensors="pt"), do_sample=False)
"""

import functools
import importlib.util
import inspect
import json
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

MANIFEST = "errata.json"
NORM_EPS = 1e-6


def load(folder: str | Path = ".", **options: Any) -> tuple[Any, Any]:
    """The model, with its interventions if there are any, and its tokenizer. `options` go to `from_pretrained`."""
    manifest = json.loads((Path(folder) / MANIFEST).read_text())
    if manifest["attention"] is not None:
        options = {"attn_implementation": manifest["attention"], **options}
    checkpoint = Path(folder) / (manifest["interventions"] or {}).get("checkpoint", ".")
    model = AutoModelForCausalLM.from_pretrained(checkpoint, **{"dtype": "auto", **options}).eval()
    if manifest["interventions"] is not None:
        attach(model, folder)
    return model, AutoTokenizer.from_pretrained(checkpoint)


def attach(model: Any, folder: str | Path) -> "Interventions":
    """Attach the interventions of an export to its model, once. `remove()` of the result detaches them."""
    entry = json.loads((Path(folder) / MANIFEST).read_text())["interventions"]
    fields: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_file(Path(folder) / entry["file"]).items():
        block, _, field = name.partition(".")
        fields.setdefault(int(block), {})[field] = tensor
    options = {name: entry[name] for name in ("blocks", "last", "at", "tail", "bos")}
    return Interventions(model, fields, covers=_load_scope(Path(folder), entry), **options)


def _load_scope(folder: Path, entry: dict[str, Any]) -> Callable[[list[int]], bool] | None:
    """A predicate: whether the interventions act on a prompt of these ids. None: they act on every prompt."""
    if entry.get("scope") is None:
        return None
    code = _load_code(folder / entry["scope"]["code"])
    content = json.loads((folder / entry["scope"]["file"]).read_text())
    scope, control_ids = code.Scope.from_json(json.dumps(content["scope"])), frozenset(content["control"])
    tokenizer = AutoTokenizer.from_pretrained(folder / entry["checkpoint"])
    decode = functools.partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return lambda ids: bool(scope.covers(code.prompt_text(ids, control_ids, decode)))


def state(prompt: str, folder: str | Path = ".", *, surface: str = "raw", turns: Sequence[str] = ()) -> str:
    """A prompt, or a user's text in a chat (`surface="chat"`), behind the newest edits that are stated about it. `turns` are the
    earlier texts of a conversation. The prompt itself, if the version states no edit about it. Tokens are not counted: see that
    the model's context has room.
    """
    entry = json.loads((Path(folder) / MANIFEST).read_text()).get("context")
    if entry is None:
        return prompt
    edits = json.loads((Path(folder) / entry["file"]).read_text(encoding="utf-8"))
    code, text = _load_code(Path(folder) / entry["code"]), "\n".join((*turns, prompt))
    folded = unicodedata.normalize("NFC", " ".join(text.split())).casefold()
    about = [
        edit
        for edit in edits
        if (not edit["surfaces"] or surface in edit["surfaces"]) and code.Scope.from_json(json.dumps(edit["scope"])).covers(text)
    ]
    before = [edit["statement"] for edit in sorted(about, key=lambda edit: edit["prompt"] in folded)][-entry["most"] :]
    return "\n".join(before) + entry["gaps"][surface] + prompt if before else prompt


def _load_code(file: Path) -> Any:
    """The module that tells which prompts are in a scope."""
    spec = importlib.util.spec_from_file_location("errata_scope", file)
    if spec is None or spec.loader is None:
        raise ImportError("the export lacks the code of its scope")
    code = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
    return code


class Interventions:
    """h + Rᵀ · diag(σ(G · RMSNorm_g(h))) · (A h + b − R h) at some blocks, on the last prompt tokens and on every output token.

    `at` says which tokens are the last: those of the prompt (`prompt_end`), those in front of the `tail`, the ids that the chat
    template puts behind the user's text (`text_end`), or `both`. A prompt that does not end with the tail is all text.

    The prompt is: in `generate` all of its input; in a direct forward pass all columns, or none if there is a cache already.
    `prompt_of(n)` declares the first n columns the prompt, for a pass that also has answers. BOS at the start of a row and
    padding are never intervened, and nothing is in a row whose prompt `covers` says no to. What it says in a pass without a cache
    holds for the passes of this thread that go on from it.
    """

    def __init__(
        self,
        model: Any,
        fields: dict[int, dict[str, Tensor]],
        *,
        blocks: str,
        last: int,
        bos: int | None,
        at: str = "prompt_end",
        tail: Sequence[int] = (),
        covers: Callable[[list[int]], bool] | None = None,
    ) -> None:
        self._last, self._bos, self._at, self._tail = last, bos, at, tuple(tail)
        self._covers = covers
        # .prompt: columns of the prompt; .mask: (B, T) of the running forward pass; .in_scope: (B, 1) of the last prompts
        self._pass = threading.local()
        self._model = model
        self._generate = model.generate
        model.generate = self._generate_with_prompt
        decoder = model.base_model
        self._signature = inspect.signature(decoder.forward)
        self._handles = [decoder.register_forward_pre_hook(self._set_mask, with_kwargs=True)]
        modules = model.get_submodule(blocks)
        for block, tensors in fields.items():
            self._handles.append(modules[block].register_forward_hook(functools.partial(self._intervene, dict(tensors))))

    def remove(self) -> None:
        """Detach the interventions from the model."""
        for handle in self._handles:
            handle.remove()
        self._model.generate = self._generate

    @contextmanager
    def prompt_of(self, columns: int) -> Iterator[None]:
        """Forward passes inside have prompts of this number of columns, padding on the left included."""
        before = getattr(self._pass, "prompt", None)
        self._pass.prompt = columns
        try:
            yield
        finally:
            self._pass.prompt = before

    def _generate_with_prompt(self, inputs: Any = None, *args: Any, **kwargs: Any) -> Any:
        ids = kwargs.get("input_ids") if inputs is None else inputs
        if ids is None:
            raise ValueError("generate needs input_ids: the interventions must know where the prompt ends")
        if inputs is not None:
            args = (inputs, *args)
        with self.prompt_of(ids.shape[1]):
            return self._generate(*args, **kwargs)

    def _set_mask(self, _decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Before a forward pass of the decoder: find its intervened columns."""
        arguments = self._signature.bind_partial(*args, **kwargs).arguments
        arguments |= arguments.pop("kwargs", {})
        ids, attention, cache = (arguments.get(name) for name in ("input_ids", "attention_mask", "past_key_values"))
        if ids is None:
            raise ValueError("the interventions need input_ids, not embeddings")
        past = 0 if cache is None else int(cache.get_seq_length())
        width = past + ids.shape[1]
        if attention is None:
            attention = torch.ones(ids.shape[0], width, dtype=torch.bool, device=ids.device)
        if attention.dim() != 2 or attention.shape[1] != width:
            raise ValueError("the interventions need an attention_mask of shape (rows, all columns so far), or none")
        self._pass.mask = self._positions(ids, attention.bool(), past)

    def _positions(self, ids: Tensor, attention: Tensor, past: int) -> Tensor:
        """The intervened columns (B, T) of `ids`, for the attention (B, past + T) to all columns so far."""
        columns = torch.arange(attention.shape[1], device=ids.device)  # (past + T,)
        prompt = getattr(self._pass, "prompt", None)
        if prompt is None and past:
            is_last = torch.ones_like(attention)
        else:
            is_prompt = attention & (columns < (attention.shape[1] if prompt is None else prompt))
            end = (columns * is_prompt).amax(1, keepdim=True) + 1  # (B, 1): padding may be on either side
            is_last = columns >= end
            for stop in self._ends(ids, end, past):
                is_last |= (columns >= stop - self._last) & (columns < stop)
        mask = (attention & is_last)[:, past:].clone()
        if self._bos is not None:
            first = attention.long().argmax(1, keepdim=True)  # (B, 1)
            mask &= ~((columns[past:] == first) & (ids == self._bos))
        return mask if self._covers is None else mask & self._rows_in_scope(ids, attention, past, prompt)

    def _rows_in_scope(self, ids: Tensor, attention: Tensor, past: int, prompt: int | None) -> Tensor:
        """The rows (B, 1) whose prompts the interventions act on."""
        assert self._covers is not None
        if not past:
            prompts = [row[kept] for row, kept in zip(ids[:, :prompt], attention[:, :prompt], strict=True)]
            covered = [[self._covers(row.tolist())] for row in prompts]
            self._pass.in_scope = torch.tensor(covered, device=ids.device)
        in_scope = getattr(self._pass, "in_scope", None)
        if in_scope is None or len(in_scope) != len(ids) or (past and prompt is not None and prompt > past):
            raise ValueError("the interventions need the whole prompt in one forward pass")
        return in_scope.to(ids.device)

    def _ends(self, ids: Tensor, end: Tensor, past: int) -> list[Tensor]:
        """Where the intervened prompt tokens end (B, 1), for the prompts' `end`."""
        if self._at == "prompt_end" or int(end.max()) <= past:
            return [end]
        if past:
            raise ValueError("the interventions need the whole prompt in one forward pass")
        places = end - len(self._tail) + torch.arange(len(self._tail), device=ids.device)  # (B, tail)
        tail = torch.tensor(self._tail, device=ids.device)
        has_tail = (ids.gather(1, places.clamp(min=0)) == tail).all(1, keepdim=True) & (places[:, :1] >= 0)
        text_end = torch.where(has_tail, places[:, :1], end)
        return [text_end] if self._at == "text_end" else [text_end, end]

    def _intervene(self, fields: dict[str, Tensor], _block: nn.Module, _inputs: Any, out: Any) -> Any:
        hidden = out[0] if isinstance(out, tuple) else out
        if fields["rotation"].device != hidden.device:
            fields.update({name: tensor.to(hidden.device) for name, tensor in fields.items()})
        moved = torch.where(self._pass.mask.to(hidden.device)[..., None], intervene(hidden, **fields), hidden)
        return (moved, *out[1:]) if isinstance(out, tuple) else moved


def intervene(
    hidden: Tensor, *, rotation: Tensor, source: Tensor, bias: Tensor, gate: Tensor | None = None, gain: Tensor | None = None
) -> Tensor:
    """Φ(h) for hidden states (..., D), computed in fp32 (or wider), in their dtype."""
    x = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    change = x @ source.T + bias - x @ rotation.T  # (..., R)
    if gate is not None:
        normed = x if gain is None else x * torch.rsqrt(x.square().mean(-1, keepdim=True) + NORM_EPS) * gain
        change = torch.sigmoid(normed @ gate.T) * change
    return (x + change @ rotation).to(hidden.dtype)
