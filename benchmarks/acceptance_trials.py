"""Acceptance against harm: candidates from harmless to wrecking, what each does to the ground's probes, and what acceptance says.

A candidate is harmful if it changes more of the ground's probes than `HARM` allows. Acceptance asks other questions. Beside it
stands the rule of an earlier release: whole greedy continuations of neutral sentences, which may fall by 0.05 an edit, to 0.80.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.command import build_parser, parse_options, write
from benchmarks.harm_sheet import RememberingContender, count_agreement, read_changes
from service.bench.bench_model import load_neutral, to_item
from service.bench.ground.asking import BaseAnswers
from service.bench.ground.contenders import Contender, PromptContender
from service.bench.ground.records import Ground, GroundEdit, read_ground
from service.bench.ground.scores import score_edits, score_prose, summarise
from service.domain.acceptance import AcceptanceLimits, Decision, judge_scores
from service.editors.baft.fit import fit_baft
from service.editors.baft.settings import BaftSettings
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitItem, Hooks
from service.evaluation.records import Record
from service.lm.base import Base, name_of
from service.lm.overlay import EMPTY, Overlay, View, make_view
from service.lm.prompts import Row, row_from_ids
from service.lm.scoring import decode_greedily, greedy_matches, row_losses
from service.lm.weights import read_weight
from service.locality.meter import LocalityMeter
from service.runtime.base_model import open_base
from service.runtime.locality_questions import known_names, locality_questions
from service.settings import load_settings

HARM = {"near": 0.75, "same subject": 0.5, "far": 0.9}  # least shares kept of the ground's probes
HARM_TO_PROSE = 0.1  # nats a token: a share of kept tokens says little of text that a small model cannot predict
NOISES = (0.01, 0.5, 2.0, 8.0)  # norm of the noise over that of the tensor
# At the published blocks, where a fit without anything to keep moves most.
UNHELD: Mapping[str, Any] = {"preserve_weight": 0.0, "contrast_weight": 0.0, "wordings": 0, "placement": "published"}
TOGETHER = 6  # edits of a joint candidate
CONFINING = 8  # other edits' facts that a confined candidate keeps as they are
CONFIDENT_LOSS, CONTINUATION, CANARY = 0.35, 6, 100  # of the earlier rule


@dataclass(frozen=True)
class HarmCandidate:
    """An overlay with the edits that it makes. It is made when it is judged."""

    kind: str
    edits: Sequence[GroundEdit]
    make: Callable[[], Overlay]
    seed: int = 0

    @property
    def name(self) -> str:
        """What tells it from the other candidates of a trial."""
        return " ".join([self.kind, *(edit.id for edit in self.edits), str(self.seed)])


@dataclass(frozen=True)
class Trial:
    """What candidates are made and judged with."""

    base: Base
    view: View
    neutral: NeutralSentences
    meter: LocalityMeter
    ground: Ground
    canary: Sequence[Row]
    untouched: PromptContender  # the base model's answers

    def view_of(self, overlay: Overlay) -> View:
        """The base's own view for overlays without replaced tensors, else a new view."""
        return make_view(self.base, overlay.tensors) if overlay.tensors else self.view

    def fit(self, edits: Sequence[FitItem], kept: Sequence[FitItem] = (), **settings: Any) -> Overlay:
        """An overlay of BaFT over the base, with the default's settings except `settings`, without a scope: so there is harm
        to be judged.
        """
        chosen = BaftSettings(**{"scope": "always"} | settings)
        fitted = fit_baft(
            self.base,
            self.view_of,
            EMPTY,
            [*edits, *kept],
            (),
            settings=chosen,
            neutral=self.neutral,
            names=known_names(),
            seed=1,
            hooks=Hooks(),
        )
        return fitted.overlay


def main() -> None:
    """The command."""
    parser = build_parser(__doc__, edits=8)
    parser.add_argument("--ground", type=Path, required=True, help="file of the model's ground")
    parser.add_argument("--surface", default="qa")
    parser.add_argument("--half", choices=("development", "test"), default="development")
    parser.add_argument("--dtype", default="auto")
    arguments = parse_options(parser)
    trial = open_trial(arguments.model, arguments.ground, arguments.dtype)
    edits = trial.ground.select(arguments.surface, arguments.half, 100)
    name = f"acceptance_trials_{trial.ground.short_name}" + ("_test" if arguments.half == "test" else "")
    rows = _read_earlier(arguments.results / f"{name}.json")
    done = {row["name"] for row in rows}
    for candidate in make_candidates(trial, edits, arguments.edits):
        if candidate.name in done:
            continue
        rows.append({"name": candidate.name, **judge(trial, candidate)})
        print(json.dumps(rows[-1]), flush=True)
        figures = {"half": arguments.half, **_calibration(trial), **summary(rows), "rows": rows}
        write(arguments.results, name, figures, is_quiet=True)


def _read_earlier(file: Path) -> list[dict[str, Any]]:
    """The rows of an interrupted run."""
    rows: list[dict[str, Any]] = json.loads(file.read_bytes())["figures"]["rows"] if file.exists() else []
    return [row for row in rows if "name" in row]


def open_trial(model: str, ground_file: Path, dtype: str) -> Trial:
    """Load a model with its ground, and calibrate acceptance to it."""
    base, _ = open_base(load_settings(model=model, dtype=dtype))
    view, neutral = make_view(base), load_neutral(base)
    meter = LocalityMeter(
        base, lambda overlay: make_view(base, overlay.tensors) if overlay.tensors else view, locality_questions()
    )
    meter.set_sentences(neutral.held_out)
    meter.calibrate(ground_file.parent / "locality", Hooks())
    untouched = PromptContender(BaseAnswers(view), states=False)
    return Trial(base, view, neutral, meter, read_ground(ground_file), make_canary(view, neutral), untouched)


def _calibration(trial: Trial) -> dict[str, Any]:
    """What acceptance knows of the model: its far answers and noise floors."""
    calibration = trial.meter.calibration
    assert calibration is not None
    return {
        "model": trial.ground.short_name,
        "dtype": name_of(trial.base.dtype),
        "far answers": len(calibration.far),
        "of them sampled": sum(not known.subject for known in calibration.far),
        "floors": dict(calibration.floors),
    }


def make_canary(view: View, neutral: NeutralSentences) -> list[Row]:
    """The canary of the earlier rule: held-out sentences cut at a random word, with confident greedy continuations."""
    generator = torch.Generator().manual_seed(0)
    starts = [
        sentence.ids[: sentence.cuts[int(torch.randint(len(sentence.cuts), (), generator=generator))]]
        for sentence in neutral.held_out
    ]
    written = decode_greedily(view, None, starts, max_new_tokens=CONTINUATION)
    rows = [row_from_ids(view.base, (*start, *ids), len(start)) for start, ids in zip(starts, written, strict=True)]
    losses = row_losses(view, rows, None).tolist()
    order = sorted(range(len(rows)), key=lambda index: max(losses[index], CONFIDENT_LOSS))
    return [rows[index] for index in order[:CANARY]]


def make_candidates(trial: Trial, edits: Sequence[GroundEdit], count: int) -> Iterator[HarmCandidate]:
    """`count` candidates of every kind, from harmless to wrecking. The kinds take turns, so that an interrupted run has some of
    each.
    """
    for number, edit in enumerate(_spread(edits, count)):
        yield from _single(trial, edits, edit)
        if number % 2 == 0:
            yield _joint(trial, "six edits with one answer", _of_one_relation(edits, number // 2), with_one_answer=True)
            of_all = edits[number // 2 * TOGETHER : (number // 2 + 1) * TOGETHER]
            yield _joint(trial, "six edits at once", of_all, with_one_answer=False)
        if number % 4 == 0:
            for size in NOISES:
                noise = partial(_noise, trial.base, size, number // 4)
                yield HarmCandidate(f"noise {size}", [edits[number // 4]], noise, seed=number // 4)


def _single(trial: Trial, edits: Sequence[GroundEdit], edit: GroundEdit) -> Iterator[HarmCandidate]:
    """The candidates of one edit."""
    kept = [_item(other, other.truth) for other in _others(edits, edit)]
    yield HarmCandidate("restates the base's answer", [edit], lambda: trial.fit([_item(edit, edit.truth)]))
    yield HarmCandidate("confined by hand", [edit], lambda: trial.fit([_item(edit)], kept))
    yield HarmCandidate("default", [edit], lambda: trial.fit([_item(edit)]))
    yield HarmCandidate("held to nothing", [edit], lambda: trial.fit([_item(edit)], **UNHELD))


def judge(trial: Trial, candidate: HarmCandidate) -> dict[str, Any]:
    """What a candidate does to the ground's probes, and what both rules say of it."""
    overlay = candidate.make()
    scores = trial.meter.measure(
        overlay,
        EMPTY,
        [_item(edit).edit for edit in candidate.edits],
        {edit.subject for edit in candidate.edits},
        Hooks(),
    )
    decision = judge_scores({"locality": scores}, {}, edits=len(candidate.edits), limits=AcceptanceLimits())
    canary = _canary_share(trial, overlay)
    contender = RememberingContender(trial.view_of(overlay), overlay.adapter)
    kept = _ground_kept(trial, candidate, contender)
    return {
        "kind": candidate.kind,
        "edits": len(candidate.edits),
        "kept": kept,
        "changes": read_changes(contender, trial.untouched, candidate.edits),
        "harmful": is_harmful(kept),
        "measured": {**{name: group["kept"] for name, group in scores.items()}, "divergence": scores["prose"]["divergence"]},
        "refused": not decision.is_accepted,
        "reasons": list(decision.reasons),
        "canary": canary,
        "refused before": not _judge_before(canary, len(candidate.edits)).is_accepted,
    }


def is_harmful(kept: Mapping[str, float | None]) -> bool:
    """Whether the ground's probes show harm: too many known answers changed, or another distribution of prose."""
    is_lost = any((share := kept[name]) is not None and share < least for name, least in HARM.items())
    return is_lost or (kept["divergence"] or 0.0) > HARM_TO_PROSE


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Agreement and the two kinds of error of both rules, in all and by kind."""
    return {
        "all": _count(rows),
        "kinds": {
            kind: _count([row for row in rows if row["kind"] == kind]) for kind in dict.fromkeys(row["kind"] for row in rows)
        },
    }


def _count(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    figures: dict[str, Any] = {"candidates": len(rows), "harmful": sum(row["harmful"] for row in rows)}
    for name, key in (("now", "refused"), ("before", "refused before")):
        figures[name] = count_agreement([row[key] for row in rows], [row["harmful"] for row in rows])
    return figures


def _judge_before(canary: float, edits: int) -> Decision:
    return Decision(1.0 - canary <= 0.05 * edits + 1e-9 and canary >= 0.80)


def _canary_share(trial: Trial, overlay: Overlay) -> float:
    matches = greedy_matches(trial.view_of(overlay), trial.canary, overlay.adapter)
    return sum(matches) / len(matches)


def _ground_kept(trial: Trial, candidate: HarmCandidate, contender: Contender) -> dict[str, float | None]:
    probes = score_edits(contender, trial.untouched, candidate.edits, candidate.edits)
    prose = score_prose(contender, trial.view, trial.ground.prose[:8], candidate.edits, id="all")
    figures = summarise(probes, prose)
    shares = {name: figures["unchanged"][name]["score"] for name in ("near", "same subject", "far")}
    of_prose = {
        "prose": sum(score.kept for score in prose) / len(prose) if prose else None,
        "divergence": sum(score.divergence for score in prose) / len(prose) if prose else None,
    }
    return {**shares, **of_prose}


def _item(edit: GroundEdit, target: str | None = None) -> FitItem:
    subject = edit.subject if edit.names_subject else None
    text, surfaces = target or edit.target, (edit.ask.surface,)
    return to_item(Record(id=edit.id, prompt=edit.ask.text, target=text, subject=subject, surfaces=surfaces), 1)


def _others(edits: Sequence[GroundEdit], edit: GroundEdit) -> list[GroundEdit]:
    """Other edits, those of the same relation first."""
    others = [other for other in edits if other.subject != edit.subject]
    return sorted(others, key=lambda other: other.relation != edit.relation)[:CONFINING]


def _of_one_relation(edits: Sequence[GroundEdit], number: int) -> list[GroundEdit]:
    by_size = sorted({edit.relation for edit in edits}, key=lambda name: -sum(edit.relation == name for edit in edits))
    return [edit for edit in edits if edit.relation == by_size[number % len(by_size)]][:TOGETHER]


def _spread(edits: Sequence[GroundEdit], count: int) -> list[GroundEdit]:
    return [edits[index * len(edits) // count] for index in range(min(count, len(edits)))]


def _joint(trial: Trial, kind: str, edits: Sequence[GroundEdit], *, with_one_answer: bool) -> HarmCandidate:
    target = edits[0].target if with_one_answer else None
    return HarmCandidate(kind, edits, lambda: trial.fit([_item(edit, target) for edit in edits]))


def _noise(base: Base, size: float, seed: int) -> Overlay:
    """A tensor in the middle of the model with noise of a relative norm."""
    middle = f".{base.anatomy.depth // 2}."
    name = [name for name, tensor in base.model.named_parameters() if middle in name and tensor.ndim == 2][-1]
    weight = read_weight(base.model, name)
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)).to(weight)
    return Overlay({name: weight + noise * (size * weight.norm() / noise.norm())})


if __name__ == "__main__":
    main()
