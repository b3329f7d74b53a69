"""Trials of a method's settings on the ground of a model, in this process: single edits by BaFT, with `--stream` edits one after
another, with `--retrain` one major retrain of all edits by LocFT-BF.

Every edit counts, whatever it changes: acceptance is not asked. A trial of BaFT is measured as it is served (`scoped`) and with
the adapter on every prompt (`always`), a retrain by its weights alone. A finished trial is kept and not run again.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from benchmarks.command import build_parser, parse_options, write
from service.bench.bench_model import load_neutral, to_item
from service.bench.ground.asking import BaseAnswers
from service.bench.ground.contenders import Contender, PromptContender, VersionContender
from service.bench.ground.records import PROSE_GROUPS, Ground, GroundEdit, ProsePassage, read_ground
from service.bench.ground.scores import ProbeScore, ProseScore, list_questions, score_prose, score_questions, summarise
from service.editors.baft.fit import fit_baft
from service.editors.baft.settings import BaftSettings
from service.editors.locft.fit import fit_locft
from service.editors.locft.settings import LocftSettings
from service.editors.neutral import NeutralSentences
from service.editors.protocol import FitItem, Hooks
from service.evaluation.records import Record
from service.lm.base import Base
from service.lm.overlay import EMPTY, Overlay, View, make_view
from service.runtime.base_model import open_base
from service.runtime.locality_questions import known_names
from service.settings import load_settings

PASSAGES = 2  # of prose of each group, beside one single edit
SCOPES = ("scoped", "always")
WEIGHTS = "weights alone"

Scores = tuple[list[ProbeScore], list[ProseScore]]


@dataclass(frozen=True, eq=False)
class FitTrial:
    """A model with its ground and its neutral sentences."""

    base: Base
    view: View
    neutral: NeutralSentences
    ground: Ground
    base_answers: Contender

    def fit(
        self, parent: Overlay, edit: GroundEdit, window: Sequence[FitItem], seed: int, settings: BaftSettings
    ) -> tuple[Any, FitItem]:
        """(the fit of one more edit, its item)."""
        item = make_item(edit, seed)
        fitted = fit_baft(
            self.base,
            lambda _: self.view,
            parent,
            [item],
            window,
            settings=settings,
            neutral=self.neutral,
            seed=seed,
            names=known_names(),
            hooks=Hooks(),
        )
        return fitted, item

    def score(self, overlay: Overlay, edits: Sequence[GroundEdit], passages: Sequence[ProsePassage]) -> dict[str, Scores]:
        """The scores of all questions of `edits`, which are live: by scope, or of the weights alone where there is no adapter."""
        if overlay.adapter is None:
            contenders = {WEIGHTS: VersionContender(make_view(self.base, overlay.tensors), None)}
        else:
            adapters = zip(SCOPES, (overlay.adapter, replace(overlay.adapter, scope=None)), strict=True)
            contenders = {scope: VersionContender(self.view, adapter) for scope, adapter in adapters}
        return {name: self._score(contender, edits, passages) for name, contender in contenders.items()}

    def _score(self, contender: Contender, edits: Sequence[GroundEdit], passages: Sequence[ProsePassage]) -> Scores:
        probes = score_questions(contender, self.base_answers, list_questions(edits, edits), edits)
        return probes, score_prose(contender, self.view, passages, edits, id=edits[-1].id)


def make_item(edit: GroundEdit, seed: int) -> FitItem:
    """An edit of a ground as fits take it."""
    record = Record(
        id=edit.id,
        prompt=edit.ask.text,
        target=edit.target,
        subject=edit.subject if edit.names_subject else None,
        surfaces=(edit.ask.surface,),
    )
    return to_item(record, seed + 1)


def main() -> None:
    """The command."""
    parser = build_parser(__doc__, edits=8)
    parser.add_argument("--ground", type=Path, required=True, help="file of the model's ground")
    parser.add_argument("--surface", default="qa")
    parser.add_argument("--half", default="development")
    parser.add_argument("--skip", type=int, default=0, help="leave out the first so many edits")
    parser.add_argument("--dtype", default="auto")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--stream", action="store_true", help="one edit after another, measured at the end")
    kinds.add_argument("--retrain", action="store_true", help="one retrain of all edits by LocFT-BF")
    parser.add_argument("settings", nargs="*", default=["{}"], help="settings of the method, each a JSON object")
    arguments = parse_options(parser)
    trial = open_trial(arguments.model, arguments.ground, arguments.dtype)
    edits = trial.ground.select(arguments.surface, arguments.half, arguments.skip + arguments.edits)[arguments.skip :]
    kind = "retrain" if arguments.retrain else "stream" if arguments.stream else "singles"
    about = {"surface": arguments.surface, "half": arguments.half, "edits": len(edits), "kind": kind}
    for text in arguments.settings:
        given = json.loads(text)
        run, effective = plan(kind, given)
        mark = sha256(json.dumps([about, arguments.skip, effective], sort_keys=True).encode()).hexdigest()[:8]
        name = f"fit_trials_{trial.ground.short_name}_{mark}"
        if (arguments.results / f"{name}.json").exists():
            continue
        figures = run(trial, edits)
        write(
            arguments.results, name, {"model": trial.ground.short_name, **about, "settings": effective, **figures}, is_quiet=True
        )
        print(json.dumps({"settings": given, **brief(figures)}), flush=True)


def open_trial(model: str, ground_file: Path, dtype: str) -> FitTrial:
    """Load a model with its ground."""
    base, _ = open_base(load_settings(model=model, dtype=dtype))
    view, ground = make_view(base), read_ground(ground_file)
    ground.check_model(base.fingerprint)
    return FitTrial(base, view, load_neutral(base), ground, PromptContender(BaseAnswers(view), states=False))


def plan(kind: str, given: dict[str, Any]) -> tuple[Callable[[FitTrial, Sequence[GroundEdit]], dict[str, Any]], dict[str, Any]]:
    """(what measures a kind of trial under the given settings, all settings of its method)."""
    if kind == "retrain":
        locft = LocftSettings(**given)
        return partial(run_retrain, settings=locft), locft.model_dump(mode="json")
    baft = BaftSettings(**given)
    return partial(run_stream if kind == "stream" else run_singles, settings=baft), baft.model_dump(mode="json")


def run_singles(trial: FitTrial, edits: Sequence[GroundEdit], settings: BaftSettings) -> dict[str, Any]:
    """Each edit alone on the base model."""
    collected: dict[str, Scores] = {scope: ([], []) for scope in SCOPES}
    seconds: list[float] = []
    for seed, edit in enumerate(edits):
        started_at = time.perf_counter()
        fitted, _ = trial.fit(EMPTY, edit, (), seed, settings)
        seconds.append(time.perf_counter() - started_at)
        for scope, (probes, prose) in trial.score(fitted.overlay, [edit], take_turns(trial.ground.prose, seed)).items():
            collected[scope][0].extend(probes)
            collected[scope][1].extend(prose)
    return {"seconds": seconds, **{scope: summarise(*scores) for scope, scores in collected.items()}}


def run_stream(trial: FitTrial, edits: Sequence[GroundEdit], settings: BaftSettings) -> dict[str, Any]:
    """One edit after another, all asked at the end."""
    overlay, window, seconds = EMPTY, list[FitItem](), list[float]()
    for seed, edit in enumerate(edits):
        started_at = time.perf_counter()
        fitted, item = trial.fit(overlay, edit, window, seed, settings)
        seconds.append(time.perf_counter() - started_at)
        overlay, window = fitted.overlay, [*window, item]
    scores = trial.score(overlay, edits, trial.ground.prose)
    return {"seconds": seconds, **{scope: summarise(*own) for scope, own in scores.items()}}


def run_retrain(trial: FitTrial, edits: Sequence[GroundEdit], settings: LocftSettings) -> dict[str, Any]:
    """All edits at once from the base, and the weights asked."""
    items = [make_item(edit, seed) for seed, edit in enumerate(edits)]
    started_at = time.perf_counter()
    fitted = fit_locft(trial.base, items, settings=settings, neutral=trial.neutral, seed=0, names=known_names())
    seconds = (time.perf_counter() - started_at) / len(edits)
    epochs = max(report["epochs"] for report in fitted.reports.values())
    scores = trial.score(fitted.overlay, edits, trial.ground.prose)
    return {"seconds": [seconds] * len(edits), "epochs": epochs, **{name: summarise(*own) for name, own in scores.items()}}


def take_turns(prose: Sequence[ProsePassage], turn: int) -> list[ProsePassage]:
    """Some passages of each group, others in each turn."""
    by_group = [[passage for passage in prose if passage.group == group] for group in PROSE_GROUPS]
    return [group[(turn * PASSAGES + number) % len(group)] for group in by_group if group for number in range(PASSAGES)]


def brief(figures: dict[str, Any]) -> dict[str, Any]:
    """The means alone, for a line on the terminal."""
    lines: dict[str, Any] = {"seconds": round(sum(figures["seconds"]) / len(figures["seconds"]), 2)}
    for scope in (name for name in (*SCOPES, WEIGHTS) if name in figures):
        own = figures[scope]
        groups = {**own["wordings"], **own["locality"], "kept": own["reliability"]}
        lines[scope] = {name: round(each["score"], 3) for name, each in groups.items() if each["score"] is not None}
        lines[scope]["KL"] = {name: own[f"prose, {name}"]["divergence"]["score"] for name in ("human text", "with names")}
    return lines


if __name__ == "__main__":
    main()
