"""No text from outside is looked through in steps that grow faster than its length: what reads four times as much takes about
four times as long, and never the sixteen times of a step for every pair of places.

Each case is the worst text that is known for what reads it. Compared are times of one thread on one text and on its fourfold.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import Any

import pytest

from service.api.middleware import CLIENT_REQUEST_ID
from service.api.pagination import decode_id, decode_position
from service.api.problems import Problem
from service.api.schemas.evaluations import CompareQuery
from service.api.schemas.jobs import ExportIn
from service.api.strict_json import read
from service.api.text_types import check_json, check_text, check_words
from service.domain.edit import normalise
from service.domain.errors import Refused
from service.domain.hosts import HOST_PATTERN, Host, parse_origin
from service.editors.clauses import says
from service.editors.forms import read_form
from service.editors.known_names import NO_NAMES
from service.editors.name_search import make_name_finder
from service.editors.wordings import reword
from service.evaluation.datasets import read as read_rows
from service.evaluation.datasets.csv_rows import split_csv
from service.evaluation.datasets.rows import BadRow, RawRow, parse_row
from service.evaluation.metrics.fluency import entropy
from service.evaluation.metrics.matching import extract_number, matches_field, normalise_squad
from service.lm.scope import Asked, KeyWords, Scope
from service.store.wording_search import Wordings
from tests.editors.taught_model import item

TIMES = 5
ASKING = Scope(("France",), asked=(Asked(("France",), KeyWords({"the": 0.1, "capital": 5.0}, 0.55), "of"),))
LEAST_S = 1e-3
REFUSALS = (Problem, Refused, BadRow, ValueError)
LINEAR = 4.0
QUADRATIC = 16.0


def seconds(work: Callable[[Any], object], given: Any, repeats: int) -> float:
    """The least time of a piece of work in this thread, done `repeats` times: what else runs on the machine only adds to it."""
    least = float("inf")
    for _ in range(TIMES):
        began = time.thread_time()
        for _ in range(repeats):
            with suppress(*REFUSALS):
                work(given)
        least = min(least, time.thread_time() - began)
    return least


def repeats_of(work: Callable[[Any], object], given: Any) -> int:
    """How often a piece of work is done to take so long that a clock can tell two of them apart."""
    return min(1_000, 1 + int(LEAST_S / max(seconds(work, given, 1), 1e-6)))


def json_of(body: bytes) -> object:
    return read(body, None)


def number_rows(count: int) -> object:
    return read_rows(RawRow(number, b'{"id": "a", "prompt": "p", "target": "%d"}' % number) for number in range(count))


CASES: list[tuple[str, Callable[[Any], object], Callable[[int], Any], int]] = [
    ("open text of quotes", json_of, lambda n: b'"' + b'\\"' * n, 4_000),
    ("open text of backslashes", json_of, lambda n: b'"' + b"\\\\" * n, 4_000),
    ("many open texts", json_of, lambda n: b'"\\"a' * n, 4_000),
    ("brackets", json_of, lambda n: b"[" * n, 20_000),
    ("values", json_of, lambda n: b"[" + b"0," * n + b"0]", 10_000),
    ("members", json_of, lambda n: b"{" + b",".join(b'"%x":[]' % k for k in range(n)) + b"}", 3_000),
    ("blanks", json_of, lambda n: b" " * n + b"x", 100_000),
    ("digits", json_of, lambda n: b"1" * n, 100_000),
    ("row of a data set", parse_row, lambda n: RawRow(0, b'{"a": "' + b'\\"' * n), 4_000),
    ("texts in a row", parse_row, lambda n: RawRow(0, b'{"a": ' + b'"\\"a' * n), 4_000),
    ("quotes of a CSV file", lambda body: list(split_csv(BytesIO(body))), lambda n: b"a,b\n" + b'"x\n' * n, 20_000),
    ("header of a CSV file", lambda body: list(split_csv(BytesIO(body))), lambda n: b'"a",' * n + b'"\n', 20_000),
    ("rows with one id", number_rows, lambda n: n, 1_000),
    ("marks on a letter", normalise, lambda n: "a" + "\u0301\u0316" * n, 4_000),
    ("white space", normalise, lambda n: "\u00e9 " * n, 20_000),
    ("blank text", check_words, lambda n: " \u200b" * n, 50_000),
    ("text", check_text, lambda n: "\u00e9" * n, 50_000),
    ("nested metadata", check_json, lambda n: {"a": [[]] * n}, 10_000),
    ("articles", normalise_squad, lambda n: "a " * n, 20_000),
    ("an answer", lambda text: matches_field(text, "b."), lambda n: ". \n" * n, 20_000),
    ("numbers", extract_number, lambda n: "1," * n, 20_000),
    ("words", entropy, lambda n: "a." * n, 5_000),
    ("wordings", lambda n: Wordings(["a " * n + "b"]).match("a " * n), lambda n: n, 2_000),
    ("question and answer", read_form, lambda n: "Q:" + " " * n + "y", 1_000),
    ("lines of a question", read_form, lambda n: "Q: a" + "\n" * n + "b", 1_000),
    ("forms of a prompt", lambda text: list(reword(text, "raw")), lambda n: "Q: a" + " " * n + "\nA:" + " " * n + "b", 2_000),
    ("words with capitals", NO_NAMES.find_subject, lambda n: item("Ab x " * n, "t").edit, 500),
    ("spaces before a name", NO_NAMES.find_subject, lambda n: item("a" + " " * n + "Ab" + " " * n + "Ab", "t").edit, 4_000),
    ("questions in a scope", ASKING.covers, lambda n: "France. The capital of Spain is? " * n, 1_000),
    ("names in a scope", ASKING.covers, lambda n: "France " * n + ". The capital of Spain is", 2_000),
    ("words of a clause", lambda text: says(text, "a a b"), lambda n: "a " * n, 4_000),
    ("names", make_name_finder([("a " * n).strip() for n in range(1, 20)]), lambda n: "a " * n + "b", 2_000),
    ("ids", lambda text: CompareQuery(ids=text), lambda n: "a," * n, 20_000),
    ("size", lambda text: ExportIn(max_shard_size=text), lambda n: "1" * n, 50_000),
    ("host", Host.of, lambda n: "a." * n, 20_000),
    ("host's form", HOST_PATTERN.fullmatch, lambda n: "a." * n + "!", 20_000),
    ("origin", parse_origin, lambda n: "http://" + ":" * n, 20_000),
    ("request's id", CLIENT_REQUEST_ID.fullmatch, lambda n: b"a" * n, 50_000),
    ("position", decode_position, lambda n: "YWZ0ZXI6" * n, 20_000),
    ("id in a cursor", decode_id, lambda n: "aWQ6" * n, 20_000),
]


@pytest.mark.parametrize(("name", "work", "made", "length"), CASES, ids=[case[0] for case in CASES])
def test_four_times_as_much_text_takes_about_four_times_as_long(
    name: str, work: Callable[[Any], object], made: Callable[[int], Any], length: int
) -> None:
    few, many = made(length), made(4 * length)
    repeats = repeats_of(work, few)
    ratios = []
    for _ in range(3):  # a machine that stalls makes one comparison wrong, and not three
        ratios.append(seconds(work, many, repeats) / seconds(work, few, repeats))
        if ratios[-1] < (LINEAR + QUADRATIC) / 2:
            return
    raise AssertionError(f"{name}: {min(ratios):.1f} times as long")
