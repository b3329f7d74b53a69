"""What a comparison of two revisions makes of texts, rows and times; the servers that it starts are not needed for that."""

import json
from math import comb
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.compare.differences import compare_texts, drop_fields, list_differences
from benchmarks.compare.documents import sort_lines
from benchmarks.compare.facts import FACTS, PROMPTS
from benchmarks.compare.prose import list_commands, split_help, split_json, split_settings
from benchmarks.compare.ratios import bootstrap_interval, compute_ratio
from benchmarks.compare.result import write_result
from benchmarks.compare.trees import Tree
from benchmarks.report import render

SETTINGS = "# Settings\n\n| `ERRATA_PORT` | `8000` |\n| `ERRATA_LOCFT__SETTLE` | `30` |\n"
HELP = """
 Usage: errata [OPTIONS] COMMAND [ARGS]...

╭─ Options ─────────────────────────────────────────╮
│ --help        <bool>  Show this message and exit. │
╰───────────────────────────────────────────────────╯
╭─ Commands ────────────────────────────────────────╮
│ eval      Measure a version on a data set, or     │
│           edit a model with one.                  │
│ re-name   Give another name.                      │
╰───────────────────────────────────────────────────╯
"""


def test_equal_texts_have_no_diff() -> None:
    result = compare_texts("settings", SETTINGS, SETTINGS)

    assert (result.diff, result.changed, result.unexpected) == ((), (), ())


def test_a_changed_line_is_unexpected_unless_it_contains_an_expected_text() -> None:
    renamed = SETTINGS.replace("SETTLE", "COOLDOWN").replace("8000", "8001")

    result = compare_texts("settings", SETTINGS, renamed, ["LOCFT__SETTLE", "LOCFT__COOLDOWN"])

    assert result.diff[:2] == ("--- before/settings", "+++ after/settings")
    assert len(result.changed) == 4
    assert result.unexpected == ("-| `ERRATA_PORT` | `8000` |", "+| `ERRATA_PORT` | `8001` |")


def test_lines_like_the_header_of_a_diff_are_compared_as_well() -> None:
    assert compare_texts("text", "-- gone", "++ new").unexpected == ("--- gone", "+++ new")


def test_every_line_of_a_missing_document_is_a_difference() -> None:
    assert len(compare_texts("help", "a\nb", "").unexpected) == 2


def test_rows_differ_where_a_field_or_an_item_does() -> None:
    before = {"head": 2, "versions": [{"number": 0, "digest": "aa"}, {"number": 1, "digest": "bb"}]}
    after = {"head": 2, "versions": [{"number": 0, "digest": "aa"}, {"number": 1, "digest": "cc"}, {"number": 2}]}

    assert list(list_differences(before, before)) == []
    assert list(list_differences(before, after)) == [
        "versions[1].digest: 'bb' before, 'cc' after",
        "versions[2]: 'nothing' before, {'number': 2} after",
    ]
    assert list(list_differences({"a": 0}, {})) == ["a: 0 before, 'nothing' after"]
    assert list(list_differences({"a": 1}, {"a": True})) == ["a: 1 before, True after"]


def test_fields_are_left_out_at_any_depth() -> None:
    row = {"id": "x", "number": 1, "measured": [{"at": "now", "score": 1.0}]}

    assert drop_fields(row, {"id", "at"}) == {"number": 1, "measured": [{"score": 1.0}]}


def test_the_interval_equals_that_of_the_exact_bootstrap_distribution() -> None:
    # Of n odd values, a sample's median is at most the k-th smallest if more than half of its draws are: a binomial tail.
    n = 25
    values = [float(value) for value in range(1, n + 1)]

    def at_most(k: int) -> float:
        return sum(comb(n, j) * (k / n) ** j * (1 - k / n) ** (n - j) for j in range(n // 2 + 1, n + 1))

    exact = [next(k for k in range(1, n + 1) if at_most(k) >= share) for share in (0.025, 0.975)]

    assert bootstrap_interval(list(reversed(values))) == tuple(map(float, exact))


def test_ratios_are_of_pairs_and_reproducible() -> None:
    before = [100.0, 400.0, 200.0, 800.0, 300.0]
    after = [second * ratio for second, ratio in zip(before, (1.1, 0.9, 1.0, 1.2, 1.4), strict=True)]

    result = compute_ratio(before, after)

    assert abs(result.median - 1.1) < 1e-12
    assert result.low <= result.median <= result.high
    assert result == compute_ratio(before, after)
    assert abs(result.median - median(after) / median(before)) > 0.01  # which would not be of pairs


def test_equal_times_have_the_ratio_one() -> None:
    result = compute_ratio([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])

    assert (result.median, result.low, result.high) == (1.0, 1.0, 1.0)


def test_the_commands_of_a_help_text_are_found_and_its_options_are_not() -> None:
    assert list_commands(HELP) == ["eval", "re-name"]
    assert list_commands(HELP.partition("╭─ Commands")[0]) == []


def test_texts_of_openapi_are_prose_and_names_and_types_are_structure() -> None:
    schema = {"type": "object", "title": "Edit", "properties": {"title": {"type": "string", "description": "A name."}}}
    document = {"components": {"Edit": schema}, "example": {"detail": "Not found.", "status": 404}}
    reworded = json.loads(json.dumps(document).replace("A name.", "The name.").replace("Not found.", "Nothing here."))
    changed = json.loads(json.dumps(document).replace('"string"', '"integer"'))

    assert split_json(document).structure == split_json(reworded).structure
    assert split_json(document).structure != split_json(changed).structure
    assert split_json(document).prose.splitlines() == [
        ".components.Edit.title: Edit",
        ".components.Edit.properties.title.description: A name.",
        ".example.detail: Not found.",
    ]


def test_a_field_named_like_a_word_of_openapi_is_structure() -> None:
    fields = {"properties": {"example": {"type": "string"}, "title": {"type": "string"}}}

    assert split_json({"Edit": fields}).prose == ""


def test_names_and_defaults_of_settings_are_structure_and_descriptions_are_prose() -> None:
    text = "# Settings\n\n| `ERRATA_PORT` | `8000` | port to listen on |\n| `ERRATA_REDIS_URL` |  | redis://… |\n"

    result = split_settings(text)

    assert result.structure.splitlines() == ["ERRATA_PORT = `8000`", "ERRATA_REDIS_URL = "]
    assert result.prose.splitlines() == ["# Settings", "", "ERRATA_PORT: port to listen on", "ERRATA_REDIS_URL: redis://…"]


def test_usage_options_and_commands_of_a_help_text_are_structure() -> None:
    narrow = HELP.replace("Show this message and exit. │", "Show this and exit.         │")

    assert split_help(HELP).structure.splitlines() == [
        "Usage: errata [OPTIONS] COMMAND [ARGS]...",
        "--help <bool>",
        "eval",
        "re-name",
    ]
    assert split_help(narrow).structure == split_help(HELP).structure
    assert split_help(narrow).prose != split_help(HELP).prose
    assert split_help(HELP.replace("--help ", "--helf ")).structure != split_help(HELP).structure


def test_the_order_of_constraints_is_no_difference() -> None:
    one = "CREATE TABLE a (\n\tx INTEGER, \n\tCONSTRAINT b CHECK (x > 0), \n\tCONSTRAINT c CHECK (x < 9)\n)"
    other = "CREATE TABLE a (\n\tx INTEGER, \n\tCONSTRAINT c CHECK (x < 9), \n\tCONSTRAINT b CHECK (x > 0)\n)"

    assert sort_lines(one) == sort_lines(other)
    assert sort_lines(one) != sort_lines(one.replace("x > 0", "x > 1"))


def test_facts_and_prompts_are_distinct() -> None:
    assert len({(fact.subject, fact.relation) for fact in FACTS}) == len(FACTS)
    assert len(set(PROMPTS)) == len(PROMPTS)


def tree(side: str, *, is_changed: bool = False) -> Tree:
    """A tree that nobody runs."""
    return Tree(side, Path(), Path(), commit=f"{side:0<40}", is_changed=is_changed)


def figures(file: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(file.read_text())["figures"]
    return result


def test_parts_of_earlier_runs_stay_if_the_revisions_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "compare_revisions.json"
    same = tree("before"), tree("after")
    write_result(file, same, {"store": 1})
    write_result(file, same, {"bytes": 2})
    assert set(figures(file)) == {"before", "after", "store", "bytes"}

    write_result(file, (tree("before"), tree("after", is_changed=True)), {"times": 3})

    assert set(figures(file)) == {"before", "after", "times"}


def test_the_document_has_the_differences_and_times_of_two_revisions(tmp_path: Path) -> None:
    ratio = {"median": 1.0123, "low": 0.9912, "high": 1.0301}
    sample = {"before_ms": 700.4, "after_ms": 709.6, "ratio": ratio}
    times = {"pairs": 24, "window": 5, "neutral_sentences": 600, "cores_of_others": 0.02}
    parts = {
        "bytes": {"versions": [{}] * 15, "answers": 600, "differences": []},
        "documents": {
            "documents": 24,
            "lines": 9,
            "expected": 2,
            "expected_texts": ["SETTLE"],
            "prose": ["y"],
            "differences": ["x"],
        },
        "times": times | dict.fromkeys(("edit", "answer", "retrain"), sample),
    }
    write_result(tmp_path / "compare_revisions.json", (tree("before"), tree("after")), parts)

    document = render(tmp_path)

    assert "| checkpoints and answers | SHA-256 of 15 versions, 600 greedy answers | 0 |" in document
    assert (
        "24 documents, 9 lines; 2 changed lines were expected (with `SETTLE`); 1 lines of prose are worded anew | **1** |"
        in document
    )
    assert "| an edit, from POST to applied | 700 ms | 710 ms | 1.012 | 0.991 to 1.030 |" in document
    assert "python -m benchmarks.compare_revisions before000000 --after after0000000" in document
