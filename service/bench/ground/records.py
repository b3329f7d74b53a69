"""A ground as data: edits with their probes, texts of prose, and what the model knows. It is written to a file and read back."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from service.bench.ground.asking import Ask
from service.bench.results import short_name
from service.domain.errors import Refused

WORDING_STRATA = ("other cue", "alias", "slip", "pronoun")
LOCALITY_GROUPS = ("near", "same subject", "mention", "far")
PROSE_GROUPS = ("human text", "with names")
CONFIDENT = 0.8  # from this confidence on a model is sure of a fact


@dataclass(frozen=True)
class GroundProbe:
    """One question beside an edit. `group` is a stratum of wordings or a group of locality; `answer` is what is right after the
    edit. `relation` and `subject` are those of the fact asked. `in_pool`: its name occurs in the sentences that fits protect, or
    fits or acceptance may ask about it (`service/editors/known_names.py`).
    """

    group: str
    ask: Ask
    answer: str
    confidence: float
    relation: str
    subject: str
    in_pool: bool = False


@dataclass(frozen=True)
class GroundEdit:
    """A counterfactual edit of a fact that the model knows. `names_subject`: the edit is posted with its subject."""

    id: str
    half: str
    surface: str
    relation: str
    subject: str
    ask: Ask
    target: str
    truth: str
    confidence: float
    names_subject: bool
    wordings: tuple[GroundProbe, ...]
    locality: tuple[GroundProbe, ...]


@dataclass(frozen=True)
class ProsePassage:
    """A passage of text: the first part is the prompt, the rest is what follows. `{s}` stands for the name of a live subject."""

    group: str
    prompt: str
    rest: str


@dataclass(frozen=True)
class Ground:
    """Everything that is asked of one model. `known` are rows of the table of known facts."""

    model: str
    fingerprint: str
    known: tuple[Mapping[str, Any], ...]
    edits: tuple[GroundEdit, ...]
    prose: tuple[ProsePassage, ...]

    @property
    def short_name(self) -> str:
        """The model's name without the folder of this machine that it is in, for results and their files."""
        return short_name(self.model)

    def check_model(self, fingerprint: str) -> None:
        """Raise Refused if the ground was made of another model: another model knows other facts."""
        if fingerprint != self.fingerprint:
            raise Refused("the ground was made of another model; make one of this model with errata bench ground", field="ground")

    def select(self, surface: str, half: str, count: int) -> list[GroundEdit]:
        """The first `count` edits of a surface and a half. Raises Refused if there are none."""
        edits = [edit for edit in self.edits if edit.surface == surface and edit.half == half][:count]
        if not edits:
            raise Refused(f"the ground has no edits of the {half} half on the surface {surface}", field="ground")
        return edits


def write_ground(path: Path, ground: Ground) -> None:
    """Write a ground as one JSON object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(ground), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_ground(path: Path) -> Ground:
    """The ground that `write_ground` wrote. Raises Refused for any other file."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return Ground(
            model=fields["model"],
            fingerprint=fields["fingerprint"],
            known=tuple(fields["known"]),
            edits=tuple(_edit(edit) for edit in fields["edits"]),
            prose=tuple(ProsePassage(**passage) for passage in fields["prose"]),
        )
    except OSError as error:
        raise Refused("the file of the ground cannot be read; make it with errata bench ground", field="ground") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Refused("the file is no ground; make one with errata bench ground", field="ground") from error


def _edit(fields: Mapping[str, Any]) -> GroundEdit:
    probes = {name: tuple(_probe(probe) for probe in fields[name]) for name in ("wordings", "locality")}
    return GroundEdit(**{**fields, "ask": _ask(fields["ask"]), **probes})


def _probe(fields: Mapping[str, Any]) -> GroundProbe:
    return GroundProbe(**{**fields, "ask": _ask(fields["ask"])})


def _ask(fields: Mapping[str, Any]) -> Ask:
    return Ask(fields["text"], fields["surface"], tuple((user, assistant) for user, assistant in fields["turns"]))
