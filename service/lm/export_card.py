"""The texts of an export: a model card, and a warning if its weights do not hold every edit."""

from collections.abc import Mapping
from typing import Any

CARD = "README.md"
WEIGHTS_FOLDER = "weights_without_the_window"  # the folder of a checkpoint that is not the whole version, as its name must say
UNLOADABLE_MODEL_TYPE = (
    "an_errata_export_with_a_window:load_it_with_load_errata.py"  # transformers refuses this model type and quotes it
)

TITLE = """---
library_name: transformers
pipeline_tag: text-generation
tags: [errata, knowledge-editing]
---

# {base}, version {version}

A language model whose facts were corrected with Errata {errata}: the base model, and every correction that was live in it.

| | |
|---|---|
| base model | `{base}`, fingerprint `{fingerprint}` |
| version | {version}, digest `{digest}` |
| edits in the weights | {in_weights} |
| edits **not** in the weights | {beside} |
"""

LOADING_PLAIN = """
Every edit is in the weights. Load it as any other checkpoint:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
```
"""

LOADING_WITH_WINDOW = """
**{warning}**

They are interventions on hidden states, which no checkpoint can hold. Load the whole version with the loader in this folder;
it needs only torch, transformers and safetensors:

```python
from load_errata import load

model, tokenizer = load(".")
```

`AutoModelForCausalLM.from_pretrained(".")` refuses this folder, so that nobody serves it without these edits by mistake. The
weights without these edits are in `{weights}/`.

To have every edit in the weights, export the version again with a retrain first: `errata export --consolidate`, or
`POST /admin/export` with `"consolidate": true`.
"""


CONTEXT = """
The version also states {edits} that neither its weights nor its interventions carry: accepted corrections that stand in front of
the prompts that they are about. The loader puts them there:

```python
from load_errata import state

prompt = state("The capital of Australia is")
```
"""


def window_warning(window: int, live: int, retracted: int = 0) -> str:
    """A warning that the weights alone lack `window` of the `live` edits, and the retraction of `retracted` others."""
    missing = f"{window} of its {live} {'edit' if live == 1 else 'edits'}"
    if not window:
        missing = f"the retraction of {retracted} {'edit' if retracted == 1 else 'edits'}"
    elif retracted:
        missing += f", and the retraction of {retracted}"
    return (
        f"The weights alone lack {missing}: load the folder with load_errata.py, or export with `consolidate` to have everything "
        "in the weights."
    )


def model_card(manifest: Mapping[str, Any]) -> str:
    """The model card of an export with this manifest."""
    facts = {name: manifest.get(name, "unknown") for name in ("base", "version", "errata", "fingerprint", "digest")}
    live = manifest.get("live", ())
    beside = manifest.get("beside", 0)
    text = TITLE.format(**facts | {"digest": facts["digest"] or "none"}, in_weights=len(live) - beside, beside=beside)
    if manifest.get("interventions") is None:
        return text + LOADING_PLAIN + _attention(manifest) + _context(manifest)
    warning = manifest.get("warning") or window_warning(beside, len(live))
    return text + LOADING_WITH_WINDOW.format(warning=warning, weights=WEIGHTS_FOLDER) + _context(manifest)


def _context(manifest: Mapping[str, Any]) -> str:
    entry = manifest.get("context")
    if entry is None:
        return ""
    count = entry["edits"]
    return CONTEXT.format(edits=f"{count} {'edit' if count == 1 else 'edits'}")


def _attention(manifest: Mapping[str, Any]) -> str:
    if manifest.get("attention") is None:
        return ""
    return f'\nThis family needs `attn_implementation="{manifest["attention"]}"` there, as its base does.\n'
