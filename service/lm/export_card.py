"""What an export says of itself to people: a model card, and a sentence of warning where its weights do not hold every edit."""

from collections.abc import Mapping
from typing import Any

CARD = "README.md"
WEIGHTS = "weights_without_the_window"  # the folder of a checkpoint that is not the whole version; its name has to say so
REFUSED = "an_errata_export_with_a_window:load_it_with_load_errata.py"  # the model type that transformers then quotes

HEAD = """---
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

WHOLE = """
Every edit is in the weights. Load it as any other checkpoint:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model, tokenizer = AutoModelForCausalLM.from_pretrained("."), AutoTokenizer.from_pretrained(".")
```
"""

WINDOW = """
**{warning}**

They are interventions on hidden states, which no checkpoint can hold. Load the version whole with the loader that lies here;
it needs torch, transformers and safetensors alone:

```python
from load_errata import load

model, tokenizer = load(".")
```

`AutoModelForCausalLM.from_pretrained(".")` refuses this folder, so that nobody serves it without these edits by mistake. The
bare weights are in `{weights}/`, for who wants them without.

To have every edit in the weights, export the version again with a retrain first: `errata export --consolidate`, or
`POST /admin/export` with `"consolidate": true`.
"""


def window_warning(window: int, live: int, taken_back: int = 0) -> str:
    """What who loads the weights alone would miss: `window` of the `live` edits, and the taking back of others."""
    missing = f"{window} of its {live} {'edit' if live == 1 else 'edits'}"
    if not window:
        missing = f"the taking back of {taken_back} {'edit' if taken_back == 1 else 'edits'}"
    elif taken_back:
        missing += f", and the taking back of {taken_back}"
    return (
        f"The weights alone lack {missing}: load the folder with load_errata.py, or export with `consolidate` to have everything "
        "in the weights."
    )


def model_card(said: Mapping[str, Any]) -> str:
    """The card of an export whose manifest says this."""
    known = {name: said.get(name, "unknown") for name in ("base", "version", "errata", "fingerprint", "digest")}
    live = said.get("live", ())
    beside = said.get("beside", 0)
    text = HEAD.format(**known | {"digest": known["digest"] or "none"}, in_weights=len(live) - beside, beside=beside)
    if said.get("interventions") is None:
        return text + WHOLE + _attention(said)
    return text + WINDOW.format(warning=said.get("warning") or window_warning(beside, len(live)), weights=WEIGHTS)


def _attention(said: Mapping[str, Any]) -> str:
    if said.get("attention") is None:
        return ""
    return f'\nThis family needs `attn_implementation="{said["attention"]}"` there, as its base does.\n'
