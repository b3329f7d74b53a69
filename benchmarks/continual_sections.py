"""The section of `docs/benchmarks.md` on continual editing in process, beside the rows of the BaFT paper's tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.markdown import Result, format_number, table
from benchmarks.paper_rows import ABLATIONS, ABLATIONS_AFTER, ROWS, TABLES, Scores
from service.bench.continual.contenders import CONTENDERS
from service.bench.continual.marks import MEASURES

Marks = Sequence[Mapping[str, Any]]  # of one contender after so many fits, one of each seed
EXACT = tuple(f"{name}_exact" for name in MEASURES)
BALANCE = ("running_squared_variation", "final_squared_variation")
MAIN = ("default", "default_no_replay", "paper", "reft", "paper_by_width", "reft_by_width")


def continual(results: Mapping[str, Result]) -> Iterator[str]:
    """One table a batch size, with the paper's rows below it, and one table of ablations beside the paper's."""
    figures = [result["figures"] for result in results.values()]
    yield "Each batch of edits is fitted on top of the last overlay in one process (`errata bench continual`). No fit is judged"
    yield "or deferred, and nothing is consolidated: what falls here is what a server's acceptance and retrains are for. T"
    yield f"counts fits, as in the paper. At a mark all edits so far are asked, or a sample of {figures[0]['most_asked']} of"
    yield "them that depends on the seed alone. Each figure is a mean over *seeds*: each seed draws its own edits, in its own"
    yield "order. Rel., Gen. and Loc. are by teacher-forced tokens, as the paper's; *exact* is by whole greedy answers, as"
    yield "everywhere else on this page. CV² is over the bases, averaged over blocks, of two quantities: the *running mean*"
    yield "counts each edit with the gates of the moment when it was fitted, and load balancing minimises it; the *final gates*"
    yield "are those of the last adapter, with which all asked edits are read again. The margin term's unrelated sample of each"
    yield "edit is a sentence that the base model wrote. Seconds are of the median fit since the mark before; the first fit also"
    yield "prepares what later ones share."
    for model in dict.fromkeys(each["model"] for each in figures):
        of_model = [each for each in figures if each["model"] == model]
        for batch in sorted({each["batch"] for each in of_model}):
            yield from _batch(model, batch, {each["contender"]: each["seeds"] for each in of_model if each["batch"] == batch})
        yield from _ablations(model, {each["contender"]: each["seeds"] for each in of_model if each["batch"] == 1})
    yield ""
    yield from _not_run(figures)


def _batch(model: str, batch: int, seeds: Mapping[str, Any]) -> Iterator[str]:
    """Our rows of one batch size, then the paper's."""
    yield ""
    yield f"**{model}, {'one edit' if batch == 1 else f'{batch} edits'} a fit.**"
    yield ""
    head = ("contender", "T", "seeds", "Rel.", "Gen.", "Loc.", "Avg.", "exact Rel.", "Gen.", "Loc.")
    rows = [
        _our_row(name, fits, marks)
        for name in CONTENDERS
        if name in seeds and name in MAIN
        for fits, marks in _by_fits(seeds[name])
    ]
    yield from table((*head, "CV², running mean", "CV², final gates", "s an edit"), rows)
    if batch in ROWS:
        yield ""
        yield f"The paper's, its Table {TABLES[batch]}, on its models and on ZsRE:"
        yield ""
        paper = [
            (model, method, str(fits), *_scores(scores))
            for (model, method), by_fits in ROWS[batch].items()
            for fits, scores in by_fits.items()
        ]
        yield from table(("model", "method", "T", "Rel.", "Gen.", "Loc.", "Avg."), paper)


def _our_row(name: str, fits: int, marks: Marks) -> tuple[str, ...]:
    scores = [_mean(marks, measure) for measure in MEASURES]
    return (
        CONTENDERS[name].label,
        str(fits),
        str(len(marks)),
        *(format_number(score) for score in (*scores, _average(scores))),
        *(format_number(_mean(marks, measure)) for measure in EXACT),
        *(format_number(_mean(marks, measure), 4) for measure in BALANCE),
        format_number(_mean(marks, "seconds_an_edit")),
    )


def _ablations(model: str, seeds: Mapping[str, Any]) -> Iterator[str]:
    """Every contender after as many edits as in the paper's table of ablations, with its row where it has one."""
    rows = []
    for name, contender in CONTENDERS.items():
        marks = dict(_by_fits(seeds.get(name, {}))).get(ABLATIONS_AFTER)
        if marks is None:
            continue
        label, scores = ABLATIONS.get(name, ("", None))
        ours = [_mean(marks, measure) for measure in MEASURES]
        balance = (format_number(_mean(marks, measure), 4) for measure in BALANCE)
        theirs = ("", "", "") if scores is None else _scores(scores)[:3]
        rows.append((contender.label, str(len(marks)), *(format_number(score) for score in ours), *balance, label, *theirs))
    if rows:
        yield ""
        yield f"**{model}, ablations after {ABLATIONS_AFTER} edits, one a fit**, beside the paper's Table 4 (LLaMA 2-7b, ZsRE):"
        yield ""
        head = ("contender", "seeds", "Rel.", "Gen.", "Loc.", "CV², running mean", "CV², final gates")
        yield from table((*head, "the paper's", "Rel.", "Gen.", "Loc."), rows)


def _not_run(figures: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What was not run here of what the paper has, by batch size: contenders that end before its last T."""
    for batch, rows in ROWS.items():
        last = max(fits for by_fits in rows.values() for fits in by_fits)
        reached = {each["contender"]: _last_fits(each["seeds"]) for each in figures if each["batch"] == batch}
        size = "one edit" if batch == 1 else f"{batch} edits"
        if not reached:
            yield f"Not run: {size} a fit."
        ends = sorted({fits for fits in reached.values() if fits < last}, reverse=True)
        parts = [f"{_join(name for name, fits in reached.items() if fits == end)} (to {end})" for end in ends]
        if parts:
            yield f"Not run to the paper's T = {last} with {size} a fit: {'; '.join(parts)}."


def _last_fits(seeds: Mapping[str, Any]) -> int:
    return max(mark["fits"] for marks in seeds.values() for mark in marks)


def _join(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _by_fits(seeds: Mapping[str, Any]) -> Iterator[tuple[int, Marks]]:
    """The marks of all seeds after each number of fits."""
    marks = [mark for of_seed in seeds.values() for mark in of_seed]
    for fits in sorted({mark["fits"] for mark in marks}):
        yield fits, [mark for mark in marks if mark["fits"] == fits]


def _mean(marks: Marks, measure: str) -> float | None:
    values = [mark[measure] for mark in marks if mark[measure] is not None]
    return sum(values) / len(values) if values else None


def _average(scores: Sequence[float | None]) -> float | None:
    known = [score for score in scores if score is not None]
    return sum(known) / len(known) if len(known) == len(scores) else None


def _scores(scores: Scores) -> tuple[str, ...]:
    return tuple(format_number(score) for score in (*scores, _average(scores)))
