"""Sections of `docs/benchmarks.md` on the question ground: what each model knows, and edits of it under the new measures."""

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.markdown import Result, format_number, table
from service.bench.contenders import LABELS
from service.editors.baft.settings import BaftSettings
from service.editors.locft.settings import LocftSettings

STRATA = ("other cue", "alias", "slip", "pronoun")
GROUPS = ("near", "same subject", "mention", "far")
# What a trial did whose file names no such setting, as it was made before there was one.
_BEFORE = {"placement": "published", "balance_horizon": 0, "led": 0}


def known(results: Mapping[str, Result]) -> Iterator[str]:
    """What each model knows, by surface."""
    yield "The facts that a model answers right in the form in which edits are posted (`errata bench ground`). *Sure*: the"
    yield "geometric mean of the probabilities of its answer's tokens is at least 0.8. *Halves*: facts whose relation and subject"
    yield "both belong to the development half, and to the test half. Of a relation of whose first 16 facts a model knows none,"
    yield "no more is asked."
    yield ""
    rows = [line for result in results.values() for line in _known_rows(result["figures"])]
    yield from table(("model", "surface", "asked", "known", "sure", "halves", "best known relations"), rows)


def _known_rows(figures: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for surface in dict.fromkeys(row["surface"] for row in figures["known"]):
        rows = [row for row in figures["known"] if row["surface"] == surface]
        best = sorted((row for row in rows if row["known"]), key=lambda row: -row["known"])[:4]
        yield (
            figures["model"],
            surface,
            str(sum(row["asked"] for row in rows)),
            str(sum(row["known"] for row in rows)),
            str(sum(row["confident"] for row in rows)),
            f"{sum(row['development'] for row in rows)} + {sum(row['test'] for row in rows)}",
            ", ".join(f"{row['relation']} {row['known']} of {row['asked']}" for row in best),
        )


def singles(results: Mapping[str, Result]) -> Iterator[str]:
    """Single edits on the ground."""
    yield "Each edit alone on the base model, through a real server with the defaults. *Live*: accepted in the job that fitted"
    yield "it. Wordings of an edit that is not live count as wrong. Locality counts over live edits alone, as the share of known"
    yield "answers that are kept (`unchanged` in the result files: the same first clause). The tricks in italics edit nothing:"
    yield "they show what a measure can be had for. *Deferred for*: the groups over their limits at the first try, where the run"
    yield "kept them. Beside each mean stands its standard error over edits."
    yield ""
    rows = [row for result in results.values() for row in _rows(result["figures"], result["figures"], "posted")]
    yield from table(_head("edits"), rows)


def streams(results: Mapping[str, Result]) -> Iterator[str]:
    """Streams on the ground."""
    yield "The edits one after another through a real server with the defaults, and all asked on the head at a mark, when no edit"
    yield "waits any more."
    yield ""
    yield from _marks(results)


def scopes(results: Mapping[str, Result]) -> Iterator[str]:
    """On which questions the adapters of single edits act."""
    yield "The share of questions on which the adapter of a single edit acts: of the edit's other wordings, where it should; of"
    yield "locality probes and of prose, where it need not. Prose *with names* names the edit's subject. Where a scope is"
    yield "`always`, all are 1."
    yield ""
    groups = (*STRATA, *GROUPS, "human text", "with names")
    rows = [
        (
            ", ".join([figures["model"], figures["surface"], figures["half"]]),
            LABELS[figures["contender"]],
            *(_format(figures["default"]["in scope"][group]) for group in groups),
        )
        for figures in (result["figures"] for result in results.values())
        if "in scope" in figures["default"]
    ]
    if rows:
        yield from table(("model, surface, half", "contender", *groups), rows)


def fit_trials(results: Mapping[str, Result]) -> Iterator[str]:
    """Trials of BaFT's settings."""
    yield "BaFT alone in one process (`python -m benchmarks.fit_trials`), every edit taken whatever it changes. *Scoped*: as it"
    yield "is served. *Always*: the same adapter on every prompt. A stream is asked at its end. Settings are those that differ"
    yield "from the present defaults."
    yield ""
    groups = (*STRATA, *GROUPS)
    rows = [
        (
            f"{figures['model']}, {figures['surface']}, {figures['half']}",
            f"{figures['edits']} {figures['kind']}",
            _other_settings({**_BEFORE, **figures["settings"]}, BaftSettings()),
            scope,
            *_trial_scores(figures[scope]),
        )
        for figures in (result["figures"] for result in results.values())
        if figures["kind"] != "retrain"
        for scope in ("scoped", "always")
    ]
    yield from table(
        ("model, surface, half", "edits", "settings", "scope", "reliability", *groups, "KL, human", "with names"), rows
    )


def retrain_trials(results: Mapping[str, Result]) -> Iterator[str]:
    """Trials of LocFT-BF's settings."""
    yield "One major retrain in one process (`python -m benchmarks.fit_trials --retrain`), and the weights alone asked. Settings"
    yield "are those that differ from the present defaults. The seconds hold what a first retrain prepares."
    yield ""
    rows = [
        (
            f"{figures['model']}, {figures['surface']}, {figures['half']}",
            str(figures["edits"]),
            _other_settings(figures["settings"], LocftSettings()),
            str(figures["epochs"]),
            format_number(sum(figures["seconds"]), 0),
            *_trial_scores(figures["weights alone"]),
        )
        for figures in (result["figures"] for result in results.values())
        if figures["kind"] == "retrain"
    ]
    yield from table(
        ("model, surface, half", "edits", "settings", "epochs", "s", "reliability", *STRATA, *GROUPS, "KL, human", "with names"),
        rows,
    )


def _trial_scores(figures: Mapping[str, Any]) -> Iterator[str]:
    """The cells of a trial from its reliability on."""
    yield _format(figures["reliability"])
    yield from (_format({**figures["wordings"], **figures["locality"]}[group]) for group in (*STRATA, *GROUPS))
    for group in ("human text", "with names"):
        yield format_number(figures[f"prose, {group}"]["divergence"]["score"], 3)


def _other_settings(used: Mapping[str, Any], settings: BaftSettings | LocftSettings) -> str:
    """The settings of a trial that differ from the present defaults, which are `settings`."""
    defaults = settings.model_dump(mode="json")
    return ", ".join(f"{name} {value}" for name, value in used.items() if value != defaults[name]) or "default"


def chosen(results: Mapping[str, Result]) -> Iterator[str]:
    """Streams of chosen edits."""
    yield "Streams of chosen edits, one after another, all asked at the end. *four_subjects*: five known facts of each of the"
    yield "four subjects of which the model knows most; same subject is their other known facts. *dont_know*: six edits of one"
    yield "relation with the target I don't know. *one_city*: six edits of one relation, capitals where there are six, with the"
    yield "target Lisbon. `unchanged` in the result files counts answers whose first clause is the base's."
    yield ""
    yield from _marks(results)


def retrains(results: Mapping[str, Result]) -> Iterator[str]:
    """The weights alone after one retrain of many edits."""
    yield "The edits wait for one major retrain, which is published whatever it changes elsewhere, and every probe is asked of"
    yield "the weights alone (`errata bench retrain`). *As served*: with BaFT for the edits that the weights do not answer. All"
    yield "edits count, live or not. *Seconds* are those of the retrain, its acceptance and its publication."
    yield ""
    rows = [
        row
        for result in results.values()
        for label in ("weights alone", "as served")
        for row in _retrain_rows(result["figures"], label)
    ]
    yield from table((*_head("edits")[:-2], "retrain, s"), rows)


def _marks(results: Mapping[str, Result]) -> Iterator[str]:
    """The table of every mark of streams."""
    rows = [
        row
        for result in results.values()
        for mark in result["figures"]["marks"]
        for row in _rows(result["figures"], mark, "posted")
    ]
    yield from table(_head("edits"), rows)


def _retrain_rows(figures: Mapping[str, Any], label: str) -> Iterator[tuple[str, ...]]:
    if label in figures:
        method = LABELS[figures["contender"]].partition(" alone")[0]
        scores = {"posted": figures["edits"], "live": figures["live"]}
        own = label == "weights alone"
        yield _row(figures, f"{method}, {label}", scores, figures[label], format_number(figures["seconds"], 0) if own else "")


def first_starts(results: Mapping[str, Result]) -> Iterator[str]:
    """First starts."""
    yield "Seconds from the start of the process, over a new data folder, without any cache. The edit is posted at the first"
    yield "answer, and acceptance is off: the seconds are those of a fit and its publication."
    yield ""
    head = ("model", "dtype", "first answer", "first edit live", "all neutral sentences", "second start, first answer")
    rows = [
        (
            result["figures"]["model"],
            result["figures"]["dtype"],
            *(f"{result['figures']['first'][name]:.0f} s" for name in ("first answer", "first edit live", "all sentences")),
            f"{result['figures']['second']['first answer']:.0f} s",
        )
        for result in results.values()
    ]
    yield from table(head, rows)


def _head(count: str) -> tuple[str, ...]:
    prose = ("prose kept, human", "with names", "KL, human", "with names")
    first, last = ("model, surface, half", "contender", count, "live", "reliability"), ("s an edit", "deferred for")
    return (*first, *STRATA, *GROUPS, *prose, *last)


def _rows(run: Mapping[str, Any], scores: Mapping[str, Any], count: str) -> Iterator[tuple[str, ...]]:
    contenders = {"default": scores["default"], **scores.get("nulls", {})}
    contenders |= {name: scores[name] for name in ("name filter", "edit in the prompt") if name in scores}
    for name, figures in contenders.items():
        own = name == "default"
        shown = {"posted": scores[count], "live": scores["live"] if own else ""}
        label = LABELS[run["contender"]] if own else f"*{name}*"
        reasons = ", ".join(f"{reason} {count}" for reason, count in scores.get("deferred for", {}).items()) if own else ""
        yield _row(run, label, shown, figures, format_number(scores["seconds_p50"], 1) if own else "", reasons)


def _row(
    run: Mapping[str, Any], label: str, counts: Mapping[str, Any], figures: Mapping[str, Any], *last: str
) -> tuple[str, ...]:
    live = counts["live"]
    case = run.get("case", "all")
    return (
        ", ".join([run["model"], run["surface"], run["half"], *([] if case == "all" else [case])]),
        label,
        str(counts["posted"]),
        format_number(live) if isinstance(live, float) else str(live),
        _format(figures["reliability"]),
        *(_format(figures["wordings"][stratum]) for stratum in STRATA),
        *(_format(figures["locality"][group]) for group in GROUPS),
        *(_format(figures[f"prose, {group}"]["kept"]) for group in ("human text", "with names")),
        *(format_number(figures[f"prose, {group}"]["divergence"]["score"], 3) for group in ("human text", "with names")),
        *last,
    )


def _format(figure: Mapping[str, Any]) -> str:
    """A mean and its standard error."""
    if figure["score"] is None:
        return "–"
    return f"{figure['score']:.2f}" + ("" if figure["se"] is None else f" ± {figure['se']:.2f}")
