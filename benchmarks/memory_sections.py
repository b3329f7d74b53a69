"""Sections of `docs/benchmarks.md` about many edits: streams through a server, the papers' contrasts, retrains, the window."""

from collections.abc import Iterator, Mapping

from benchmarks.markdown import Result, format_number, format_share, table
from service.bench.contenders import CONTENDERS, LABELS
from service.bench.stream_comparison import BACK_TO_BACK, PACED
from service.bench.stream_tables import AIMS, Row, build_rows

FOLDER = "../benchmarks/results"  # as seen from the document
MEASURES = ("retention", "generality", "locality_inside", "locality_outside", "capability")


def _streams(results: Mapping[str, Result]) -> Iterator[str]:
    yield "Edits are posted one after another over HTTP to a new server; contenders are settings of the same server"
    yield "(`service/bench/contenders.py`). At each mark the server measures its current head by its own `POST /eval`, on *all*"
    yield "edits posted so far, accepted or not. Generality counts untrained rephrases alone; capability is the share of small"
    yield "skills solved, over the base model's. Latency is from POST to applied, over the edits since the mark before that are"
    yield "live."
    yield ""
    rows = [row for name in CONTENDERS for row in _stream_rows(results, name)]
    head = ("contender", "edits", "retention", "generality", "locality inside", "outside", "capability", "window")
    extra = ("retrains minor + major", "p50 / p95", "failed requests")
    other_rows = [row for row in rows if row["contender"] != "default" and _is_shown(row, rows)]
    yield from table(head + extra, [_stream_line(row) for row in rows if row["contender"] == "default"])
    yield ""
    yield "Aims of the default at every mark: retention ≥ 0.99, generality ≥ 0.60, locality outside ≥ 0.85, capability ≥ 0.95,"
    yield "no failed request. For every contender that retrains, BaFT fits the edits that the retrain's tensors do not answer, on"
    yield "top of them: the column window counts these edits."
    yield ""
    if other_rows:
        yield "Beside it, the others (all marks are in the result files and in the plot):"
        yield ""
        yield from table(head + extra, [_stream_line(row) for row in other_rows])
        yield ""
    yield "Right after the edit, each on the version that first contained it:"
    yield ""
    yield from table(
        ("contender", "reliability", "generality", "locality"), [_first_answers_line(row) for row in _last_rows(rows)]
    )
    yield ""
    yield f"![shares and latency over the number of edits]({FOLDER}/stream.svg)"
    yield ""
    yield f"All rows: [stream.csv]({FOLDER}/stream.csv)."


def _paced(results: Mapping[str, Result]) -> Iterator[str]:
    yield "The same stream by the clock: every edit has a scheduled moment, independent of the edit before. Latency is from that"
    yield "moment to applied, so it includes a wait for another edit. *Late* are posts that begin after their moment. The clock"
    yield "stops while a mark is measured."
    yield ""
    head = ("contender", "an edit every", "edits", "retention", "generality", "locality outside", "retrains minor + major")
    extra = ("p50 / p95", "of all so far", "late", "failed requests")
    lines = []
    for name in CONTENDERS:
        rows = _stream_rows(results, name, PACED)
        pace_s = results[f"{PACED}_{name}"]["figures"]["pace_s"] if rows else None
        lines += [_paced_line(row, pace_s) for row in rows if _is_shown(row, rows)]
    yield from table(head + extra, lines)


def _paced_line(row: Row, pace_s: float | None) -> tuple[str, ...]:
    return (
        LABELS[row["contender"]],
        f"{pace_s:g} s",
        str(row["edits"]),
        *(format_number(row[name]) for name in ("retention", "generality", "locality_outside")),
        f"{row['retrains_minor']} + {row['retrains_major']}",
        f"{format_number(row['latency_p50_s'])} / {format_number(row['latency_p95_s'])} s",
        f"{format_number(row['latency_all_p50_s'])} / {format_number(row['latency_all_p95_s'])} s",
        str(row["late"]),
        str(row["failed_requests"]),
    )


def _stream_rows(results: Mapping[str, Result], name: str, kind: str = BACK_TO_BACK) -> list[Row]:
    result = results.get(f"{kind}_{name}")
    return build_rows(name, result["figures"]["marks"]) if result else []


def _is_shown(row: Row, rows: list[Row]) -> bool:
    """Whether the document shows a mark: every hundred edits, and the last one."""
    last = max(other["edits"] for other in rows if other["contender"] == row["contender"])
    return row["edits"] % 100 == 0 or row["edits"] == last


def _last_rows(rows: list[Row]) -> list[Row]:
    return list({row["contender"]: row for row in rows}.values())


def _first_answers_line(row: Row) -> tuple[str, ...]:
    names = ("reliability", "generality", "locality")
    return (LABELS[row["contender"]], *(format_number(row[f"{name}_right_after"]) for name in names))


def _stream_line(row: Row) -> tuple[str, ...]:
    aims = AIMS if row["contender"] == "default" else {}
    return (
        LABELS[row["contender"]],
        str(row["edits"]),
        *(format_share(row[name], aims.get(name)) for name in MEASURES),
        str(row["window"]),
        f"{row['retrains_minor']} + {row['retrains_major']}",
        f"{format_number(row['latency_p50_s'])} / {format_number(row['latency_p95_s'])} s",
        str(row["failed_requests"]),
    )


def _authors(results: Mapping[str, Result]) -> Iterator[str]:
    figures = results["authors"]["figures"]
    length = figures["tokens_a_row"]
    tokens = f"{length['shortest']} to {length['longest']} tokens ({length['mean']:.1f} on average)"
    yield f"A random Qwen2 of {figures['blocks']} blocks, width {figures['width']}, vocabulary {figures['vocabulary']:,};"
    yield f"{figures['edits']} edits of {tokens}, the down-projection of block {figures['block']},"
    yield f"{figures['epochs']} epochs in batches of {figures['batch']},"
    yield "one thread, in one run. Differences are to the authors' tensors."
    yield ""
    ratio = figures["ratio"]
    rows = [
        ("the authors' procedure", f"{figures['plain_s']:.1f} s", ""),
        ("the trainer, preset `paper`, every edit asked again at the end", f"{figures['ours_s']:.1f} s", ""),
        ("ratio", f"{ratio:.2f}×" if ratio >= 2.5 else f"**{ratio:.2f}×** (short)", "≥ 2.5×"),
        ("the same in seconds of the processor", f"{figures['ratio_cpu']:.2f}×", ""),
        ("largest change of an entry by training", f"{figures['largest_change']:.1e}", ""),
        ("largest difference of an entry", f"{figures['largest_difference']:.1e}", "rounding"),
        ("norm of the difference, over that of the change", f"{figures['relative_difference']:.1e}", "rounding"),
    ]
    yield from table(("", "measured", "aim"), rows)


def _contrast(results: Mapping[str, Result]) -> Iterator[str]:
    yield "The LocFT-BF paper's contrasts on the embedded model, all of them settings of one trainer. EM: the whole greedy answer"
    yield "is exactly right; tokens: teacher-forced token accuracy, which flatters. Learning rates are the default's; see"
    yield "`service/bench/contrast_cases.py` for what is set in each case."
    for part, title in _PARTS.items():
        if f"contrast_{part}" in results:
            figures = results[f"contrast_{part}"]["figures"]
            yield ""
            yield f"**{title}** {figures['edits']} edits." if part != "numbers" else f"**{title}**"
            yield ""
            yield from _shards(figures["rows"]) if part == "shards" else _cases(figures["rows"])
            yield ""
            yield f"![{part}]({FOLDER}/contrast_{part}.svg)"


_PARTS = {
    "pipelines": "Depth-first against breadth-first (Table 1).",
    "shards": "Five shards while training proceeds (Fig. 3), EM.",
    "batches": "Edits a step (Fig. 4).",
    "numbers": "Number of edits (Fig. 6).",
    "locations": "One location, several, and the whole model (section 3, Table 8).",
}


def _cases(rows: list[Row]) -> Iterator[str]:
    head = (
        "",
        "reliability EM",
        "tokens",
        "generality EM",
        "tokens",
        "locality inside",
        "outside",
        "capability",
        "epochs",
        "seconds",
    )
    names = ("reliability", "reliability_tokens", "generality", "generality_tokens", "locality_inside", "locality_outside")
    yield from table(
        head,
        [
            (
                row["case"],
                *(format_number(row[name]) for name in (*names, "capability")),
                str(row["epochs"]),
                f"{row['seconds']:.0f}",
            )
            for row in rows
        ],
    )


def _shards(rows: list[Row]) -> Iterator[str]:
    shards = [name for name in rows[0] if name.startswith("shard_") and not name.endswith("_tokens")]
    step_names = {"depth-first": "after shard", "breadth-first": "after epoch"}
    yield from table(
        ("", "", *(name.replace("_", " ") for name in shards)),
        [
            (row["order"], f"{step_names[row['order']]} {row['at']}", *(format_number(row.get(name)) for name in shards))
            for row in rows
        ],
    )


def _retrains(results: Mapping[str, Result]) -> Iterator[str]:
    figures = results["retrain_time"]["figures"]
    yield "A major retrain, from the base model over all edits:"
    yield ""
    rows = [
        (
            str(run["edits"]),
            f"{run['seconds']:.1f} s",
            f"{1000 * run['seconds'] / run['edits']:.0f} ms",
            str(run["epochs"]),
            format_number(run["retention"]),
        )
        for run in figures["against_edits"]
    ]
    yield from table(("edits", "seconds", "an edit", "epochs", "retention"), rows)
    line = figures.get("line")
    if line:
        yield ""
        slope = f"{1000 * line['seconds_an_edit']:.0f} ms an edit"
        yield f"Least squares: {slope} and {line['offset_s']:.1f} s beside, R² {line['r2']:.3f}."
    if figures["minor_and_major"]:
        yield ""
        yield f"A minor retrain with {figures['window']} edits in the window, beside a major one over the same live set:"
        yield ""
        names = ("retention", "generality", "locality_inside", "locality_outside", "capability")
        lines = []
        for run in figures["minor_and_major"]:
            for mode in ("minor", "major"):
                lines.append(
                    (
                        str(run["settled"]),
                        mode,
                        f"{run[mode]['seconds']:.1f} s",
                        *(format_number(run[mode][name]) for name in names),
                    )
                )
        yield from table(("settled", "retrain", "seconds", *(name.replace("_", " ") for name in names)), lines)
        yield ""
        yield "Drift, as norms over all tuned entries:"
        yield ""
        drifts = [
            (str(run["settled"]), f"{run['ratio']:.1f}×", *(format_number(run["drift"][name]) for name in _DRIFTS))
            for run in figures["minor_and_major"]
        ]
        yield from table(("settled", "minor faster by", *(name.replace("_", " ") for name in _DRIFTS)), drifts)


_DRIFTS = ("minor_to_major", "minor_to_base", "major_to_base")


def _killed(results: Mapping[str, Result]) -> Iterator[str]:
    figures = results["kill9_retrain"]["figures"]
    yield f"A real server is killed at random moments of a retrain of {figures['edits']} edits and of its publication, each time"
    yield "on a copy of the same data folder; the next server goes on. Head and edits must be there, and the digest of what is"
    yield "published in the end must be that of an undisturbed retrain."
    yield ""
    rows = []
    for mode in ("major", "minor"):
        if mode in figures:
            figures_of_mode = figures[mode]
            faults = (
                "0"
                if not figures_of_mode["faults"]
                else f"**{len(figures_of_mode['faults'])}**: {'; '.join(figures_of_mode['faults'])}"
            )
            rows.append((mode, str(figures_of_mode["kills"]), faults, f"{figures_of_mode['undisturbed_s']:.1f} s"))
    yield from table(("retrain", "kills", "faults", "undisturbed"), rows)


def _window(results: Mapping[str, Result]) -> Iterator[str]:
    figures = results["window_curve"]["figures"]
    yield "BaFT alone, one edit after another, without consolidation. The default length of the window is chosen by these figures"
    yield f"(a retrain is due at {figures['soft']} edits, and a window of {figures['hard']} accepts no more)."
    yield ""
    names = ("reliability", "generality", "locality_inside", "locality_outside", "capability")
    rows = [(str(row["window"]), *(format_number(row[name]) for name in names)) for row in figures["rows"]]
    yield from table(
        ("edits in the window", *("retention" if name == "reliability" else name.replace("_", " ") for name in names)), rows
    )
    yield ""
    yield f"![shares over the length of the window]({FOLDER}/window_curve.svg)"


MEMORY = (
    ("A stream of edits", tuple(f"{BACK_TO_BACK}_{name}" for name in CONTENDERS), _streams),
    ("A stream of edits by the clock", tuple(f"{PACED}_{name}" for name in CONTENDERS), _paced),
    ("The papers' contrasts", tuple(f"contrast_{part}" for part in _PARTS), _contrast),
    ("LocFT-BF and the authors' procedure", ("authors",), _authors),
    ("Retrains", ("retrain_time",), _retrains),
    ("kill -9 during a retrain", ("kill9_retrain",), _killed),
    ("The length of the window", ("window_curve",), _window),
)
