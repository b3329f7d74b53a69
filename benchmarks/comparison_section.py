"""The section of `docs/benchmarks.md` on Errata beside edits in the prompt, retrieval, a refit, and each method alone."""

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.markdown import Result, format_number, table
from benchmarks.memory_sections import FOLDER
from service.bench.comparison.contenders import COMPARED
from service.bench.comparison.tables import MEASURES, Row, build_rows

_SHARES = MEASURES[:-1]  # a ground has no portability probes


def compared(results: Mapping[str, Result]) -> Iterator[str]:
    """One table for each model, surface and half, with a plot."""
    yield "One model, one ground, the same edits and the same questions of every contender (`errata bench compare`). A mark asks"
    yield "at most 200 questions, of each measure as many as of the others, drawn by one seed. All posted edits count, live or"
    yield "not, and *live* says how many are. Wordings are of all strata together. A ground has no portability probes, so there"
    yield "is no such column. Beside each mean stands its standard error over edits."
    yield ""
    yield "*All edits in the prompt*: the newest that leave a quarter of the context free, 256 tokens at most; *stated* says how"
    yield "many stood there. What prompts share is computed once and no part of the milliseconds. *Nearest edit*: the one whose"
    yield "subject is named, where it was posted with its subject; else the one whose words are most alike, from a cosine of 0.5"
    yield "on. *Weights alone*: the edits wait for one major retrain a mark, and no adapter is asked. *BaFT as published* defers"
    yield "edits that its fit does not take. *Errata* runs with its defaults and its own retrains, for which a mark waits."
    yield ""
    yield "*s an edit*: all seconds between two marks over the edits between them, with retrains and waiting. *ms an answer*: the"
    yield "median of twelve, one at a time in one process, without HTTP. *Memory*: the peak of the server's resident memory, fits"
    yield "included. *CPU s*: processor seconds of the server and of the measuring since the mark before."
    for title in dict.fromkeys(_title(result) for result in results.values()):
        own = [result["figures"] for result in results.values() if _title(result) == title]
        yield ""
        yield f"**{title}.**"
        yield ""
        by_contender = {figures["contender"]: figures["marks"] for figures in own}
        yield from _table([row for name in COMPARED for row in build_rows(name, by_contender.get(name, []))])
        name = f"ground_compare_{own[0]['model']}_{own[0]['surface']}_{own[0]['half']}"
        yield ""
        yield f"![shares and costs over the number of edits]({FOLDER}/{name}.svg)"
        yield ""
        yield f"All rows: [{name}.csv]({FOLDER}/{name}.csv)."


def _title(result: Result) -> str:
    figures = result["figures"]
    return f"{figures['model']}, {figures['surface']}, {figures['half']} half"


def _table(rows: Sequence[Row]) -> Iterator[str]:
    costs = ("s an edit", "live after, s", "ms an answer", "memory, MB", "CPU s")
    lines = [
        (
            COMPARED[row["contender"]].label,
            str(row["edits"]),
            "" if row["live"] is None else str(row["live"]),
            "" if row["in_the_prompt"] is None else str(row["in_the_prompt"]),
            *(_share(row, measure) for measure in _SHARES),
            format_number(row["seconds_an_edit"], 1),
            format_number(row["live_p50_s"], 1),
            format_number(row["ms_an_answer"], 0),
            format_number(row["peak_mb"], 0),
            format_number(row["cpu_s"], 0),
        )
        for row in sorted(rows, key=lambda row: row["edits"])
    ]
    yield from table(("contender", "edits", "live", "stated", *_SHARES, *costs), lines)


def _share(row: Row, measure: str) -> str:
    """A mean and its standard error."""
    error = row[f"{measure} se"]
    return format_number(row[measure]) + ("" if error is None else f" ± {error:.2f}")
