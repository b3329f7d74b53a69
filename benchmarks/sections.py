"""The sections of `docs/benchmarks.md`, each from the results of its benchmarks: a few sentences and a table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks import acceptance_sections, balance_section, comparison_section, continual_sections, ground_sections
from benchmarks.compare.section import section as compared
from benchmarks.markdown import (
    Result,
    format_at_least,
    format_at_most,
    format_percentage,
    locality_outside_neutral,
    score_row,
    table,
)
from benchmarks.memory_sections import MEMORY

WORST_HEALTH_MS = 100.0


def _single(results: Mapping[str, Result]) -> Iterator[str]:
    figures = results["single"]["figures"]
    greedy, neutral = figures["greedy"], figures["neutral"]
    yield f"{figures['edits']} edits, each fitted alone on the base model; rephrases and probes are never trained."
    yield ""
    yield from table(
        ("", "measured", "n", "aim"),
        [
            score_row("reliability", greedy["reliability"], 1.0),
            score_row("generality", greedy["generality"], 0.85),
            score_row("locality outside", greedy["locality"]["outside"], 0.95),
            score_row("locality inside", greedy["locality"]["inside"]),
            score_row("locality outside, prompts not among the neutral sentences", locality_outside_neutral(neutral)),
            score_row("portability", greedy["portability"]),
        ],
    )
    yield ""
    yield (
        f"{format_percentage(neutral['prompts_among_neutral_sentences'])} of the probe prompts occur among the neutral sentences."
        f" Median fit: {figures['seconds_p50']:.2f} s, mean {figures['steps_mean']:.1f} steps."
    )


def _latency(results: Mapping[str, Result]) -> Iterator[str]:
    figures = results["latency"]["figures"]
    together, rollback = figures["waiting_together"], figures["rollback_ms"]
    empty, window = figures["empty_window"], figures["window_of_25"]
    yield "From sending `POST /edits?wait=` to reading the whole answer, over HTTP; each edit is rolled back before the next."
    yield ""
    yield from table(
        ("", "measured", "aim"),
        [
            ("POST → applied, empty window, p50", *format_at_most(empty["p50_s"], 1.0, "s")),
            ("the same, p90", f"{empty['p90_s']:.2f} s", ""),
            ("POST → applied, 25 edits in the window, p50", *format_at_most(window["p50_s"], 2.0, "s")),
            ("the same, p90", f"{window['p90_s']:.2f} s", ""),
            (f"edits a second when {together['edits']} wait", *format_at_least(together["edits_a_second"], 4.0)),
            ("of these applied at once (the others wait for a retrain)", f"{together['applied']} of {together['edits']}", ""),
            ("rollback, p50", *format_at_most(rollback["p50"], 100.0, "ms")),
            ("rollback, p99", f"{rollback['p99']:.0f} ms", ""),
        ],
    )


def _rollback(results: Mapping[str, Result]) -> Iterator[str]:
    figures = results["rollback"]["figures"]
    yield f"{figures['rollbacks']} rollbacks, to and fro between the base model and {figures['edits']} edits, by HTTP."
    yield ""
    rows = [
        ("p50", *format_at_most(figures["p50_ms"], 100.0, "ms")),
        ("p99", f"{figures['p99_ms']:.0f} ms", ""),
        ("the very next answer is the restored version's", format_percentage(figures["next_answer_is_the_restored_one"]), "100%"),
    ]
    yield from table(("", "measured", "aim"), rows)


def _cached(results: Mapping[str, Result]) -> Iterator[str]:
    figures = results["cached_step"]["figures"]
    yield f"Forward and backward of a step, in turns, on a random model of {figures['blocks']} blocks, width {figures['width']}."
    yield ""
    rows = [
        (
            str(case["tokens"]),
            str(case["rows"]),
            f"{case['plain_ms']:.0f} ms",
            f"{case['cached_ms']:.0f} ms",
            f"{case['ratio']:.1f}×",
            f"{case['prefill_ms']:.0f} ms",
            f"{case['gradient_difference']:.0e}",
        )
        for case in figures["cases"]
    ]
    yield from table(("tokens", "rows", "plain", "cached", "ratio", "prepared once", "largest difference of gradients"), rows)


def _load(results: Mapping[str, Result]) -> Iterator[str]:
    figures = results["serving_under_load"]["figures"]
    yield f"{figures['clients']} clients ask in a closed loop for answers of at most {figures['short_answer_tokens']} tokens."
    yield ""
    rows = [
        (
            name,
            f"{phase['tokens_a_second']:.0f}",
            f"{phase['answers_a_second']:.0f}",
            f"{phase['p50_ms']:.0f} ms",
            f"{phase['p99_ms']:.0f} ms",
            str(phase["failures"]),
        )
        for name, phase in ((name, figures[name]) for name in ("idle", "edits", "retrain"))
    ]
    yield from table(("while", "tokens a second", "answers a second", "p50", "p99", "failures"), rows)
    yield ""
    retrain = figures["retrain_under_load"]
    yield (
        f"Meanwhile {figures['edits_a_second_under_load']:.2f} edits a second were applied, one after another; "
        f"the retrain took {retrain['seconds']:.1f} s ({retrain['status']})."
    )


def _kill9(results: Mapping[str, Result]) -> Iterator[str]:
    figures = results["kill9"]["figures"]
    yield "A real server is killed while it submits, fits, publishes, retrains or rolls back, and checked after the next start:"
    yield "every acknowledged edit exists once, no call took effect twice, every version answers as before, and every edit of the"
    yield "window is answered. Later fits replay only a sample of the consolidated edits, so the share of answered ones is given."
    yield ""
    rows = []
    for kind in ("sqlite", "postgres"):
        run = figures.get(kind)
        if run and "skipped" in run:
            rows.append((kind, run["skipped"], "", "", "", ""))
        elif run:
            start = run["start_after_kill_s"]
            faults = str(len(run["faults"])) if not run["faults"] else f"**{len(run['faults'])}**: {'; '.join(run['faults'])}"
            answered = f"{100 * run['live_edits_answered']:.1f}%"
            rows.append((kind, str(run["kills"]), str(run["submissions"]), faults, answered, f"{start['p50']:.1f} s"))
    yield from table(("database", "kills", "submissions", "faults", "live edits answered", "ready again, less imports"), rows)


def _hostile(results: Mapping[str, Result]) -> Iterator[str]:
    attacks = results["hostile"]["figures"]["attacks"]
    yield "Every attack that once found a fault of the service is repeated on a real server, with large numbers. A server holds"
    yield "if it still answers other clients, loses nothing and reports the fault. Meanwhile `/health/live` is requested on new"
    yield "connections, every 20 ms, by a process of its own: on the port of the clients, and on the port for health checks alone"
    yield "(`ERRATA_HEALTH_PORT`). Attackers, server and fits share the machine's cores."
    yield ""
    rows = []
    for attack in attacks:
        held = "yes" if attack["held"] else "**no**"
        latencies = [text for name in ("live", "listener") for text in _latencies(attack, name)]
        rows.append((attack["attack"], held, attack["seen"], *latencies, f"≤ {WORST_HEALTH_MS:.0f} ms", attack.get("at", "")))
    of_both = ("clients' port, median", "slowest", "own port, median", "slowest")
    yield from table(("attack", "held", "seen", *of_both, "aim", "measured"), rows)


def _latencies(attack: Mapping[str, Any], name: str) -> tuple[str, str]:
    """The median and the slowest answer of one port."""
    if f"{name}_p50_ms" not in attack:
        return "–", "–"
    return f"{attack[f'{name}_p50_ms']:.0f} ms", format_at_most(attack[f"{name}_worst_ms"], WORST_HEALTH_MS, "ms")[0]


def _gpu(results: Mapping[str, Result]) -> Iterator[str]:
    rows = []
    for result in results.values():
        run = result["figures"]
        memory, tokens = run["memory"], run["tokens_a_second"]
        rows.append(
            (
                f"{run['shape']} on {run['device']}, {run['dtype']}",
                f"{run['seconds_an_edit_p50']:.2f} s",
                f"{run['steps_an_edit_mean']:.1f}",
                f"{run['step_ms']:.0f} ms",
                f"{run['ratio_to_floor']:.1f}×",
                f"{memory['base_gb']:.3f} GB",
                f"{memory['with_10_versions_gb']:.3f} GB",
                f"{tokens['version_1_row']:.0f} / {tokens['version_16_rows']:.0f}",
            )
        )
    head = (
        "random Llama",
        "an edit",
        "steps",
        "a step",
        "to memory floor",
        "base",
        "with 10 versions",
        "tokens a second, 1 / 16 rows",
    )
    yield from table(head, rows)


Section = tuple[str, Sequence[str], Callable[[Mapping[str, Result]], Iterator[str]]]
SECTIONS: Sequence[Section] = (
    ("What the models know", ("ground_known_*",), ground_sections.known),
    ("Single edits of known facts", ("ground_single_*",), ground_sections.singles),
    ("Trials of BaFT's settings", ("fit_trials_*",), ground_sections.fit_trials),
    ("Trials of LocFT-BF's settings", ("fit_trials_*",), ground_sections.retrain_trials),
    ("Where single edits act", ("ground_single_*",), ground_sections.scopes),
    ("A stream of edits of known facts", ("ground_stream_*",), ground_sections.streams),
    ("Twenty edits of four subjects, and six with one target", ("ground_case_*",), ground_sections.chosen),
    ("The weights alone", ("ground_retrain_*",), ground_sections.retrains),
    ("Beside prompting and retrieval", ("ground_compare_*",), comparison_section.compared),
    ("First start", ("first_start_*",), ground_sections.first_starts),
    ("Acceptance and harm", ("acceptance_trials_*",), acceptance_sections.trials),
    ("Single edits", ("single",), _single),
    *MEMORY,
    ("Latency and throughput", ("latency",), _latency),
    ("Rollback", ("rollback",), _rollback),
    ("The cached step", ("cached_step",), _cached),
    ("Continual editing", ("continual_*",), continual_sections.continual),
    ("Load balancing", ("load_balance",), balance_section.balance),
    ("Answers under load", ("serving_under_load",), _load),
    ("kill -9", ("kill9",), _kill9),
    ("Attacks", ("hostile",), _hostile),
    ("Two revisions", ("compare_revisions",), compared),
    ("Large models", ("gpu_8b_cuda", "gpu_8b_cpu"), _gpu),
)
