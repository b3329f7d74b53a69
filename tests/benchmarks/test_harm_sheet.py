"""Labels of the candidates of acceptance trials: read by a person, kept by what was read."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import harm_sheet
from benchmarks.harm_sheet import RememberingContender, count_by_hand, describe, digest_of, read_changes, read_labels
from service.bench.ground.asking import Ask, BaseAnswers
from service.bench.ground.contenders import PromptContender
from service.bench.ground.records import GroundEdit, GroundProbe
from service.lm.overlay import make_view
from tests.builders import make_base


def row(changed: list[list[str]], *, refused: bool = False, harmful: bool = False) -> dict[str, Any]:
    return {
        "changes": {"edits": [["Where?", "here", "there"]], "groups": {"near": {"asked": 4, "changed": changed}}},
        "kept": {"prose": 0.987, "divergence": 0.0123},
        "refused": refused,
        "refused before": True,
        "harmful": harmful,
    }


def test_a_reader_sees_what_changed_and_not_what_acceptance_said() -> None:
    text = describe(row([["Who?", "Ann", "Bob"]], refused=True, harmful=True))

    assert "edit: 'Where?': 'here' becomes 'there'" in text
    assert "near: 1 of 4 changed" in text and "'Who?': 'Ann' becomes 'Bob'" in text
    assert text == describe(row([["Who?", "Ann", "Bob"]]))


def test_labels_are_counted_against_acceptance_the_earlier_rule_and_the_rule_of_harm() -> None:
    rows = [row([], harmful=True), row([["Who?", "Ann", "Bob"]]), row([["Who?", "Ann", "Eve"]], refused=True)]
    labels = dict(zip(map(digest_of, rows), ("harmless", "harmful", "harmful"), strict=True))

    counts = count_by_hand(rows, labels)

    assert counts is not None and (counts["candidates"], counts["harmful"]) == (3, 2)
    assert counts["now"] == {"agreement": pytest.approx(2 / 3), "harm accepted": 1, "harmless refused": 0}
    assert counts["before"] == {"agreement": pytest.approx(2 / 3), "harm accepted": 0, "harmless refused": 1}
    assert counts["rule"] == {"agreement": 0.0, "harm accepted": 2, "harmless refused": 1}


def test_a_trial_with_an_answer_that_nobody_read_has_no_count() -> None:
    rows = [row([]), row([["Who?", "Ann", "Bob"]])]

    assert count_by_hand(rows, {digest_of(rows[0]): "harmless"}) is None
    assert count_by_hand([{"refused": True}], {}) is None
    assert count_by_hand([], {}) is None


def test_labels_are_read_from_the_file_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harm_sheet, "LABELS", tmp_path)
    (tmp_path / "harm_toy.json").write_text(json.dumps({"0123": "harmful"}))

    assert read_labels("toy") == {"0123": "harmful"}
    assert read_labels("another") == {}


def test_of_the_locality_of_an_edit_the_changed_answers_are_shown() -> None:
    view = make_view(make_base("llama"))
    asks = [Ask("The sky is"), Ask("The sea is")]
    probes = [GroundProbe("near", ask, "any", 0.9, "colour", ask.text) for ask in asks]
    edit = GroundEdit(
        id="one",
        half="development",
        surface="qa",
        relation="place",
        subject="oak",
        ask=Ask("The oak is"),
        target="B",
        truth="A",
        confidence=0.9,
        names_subject=True,
        wordings=(),
        locality=tuple(probes),
    )
    untouched = PromptContender(BaseAnswers(view), states=False)
    changed = RememberingContender(view, None, {asks[1]: "something else", edit.ask: "B"})

    seen = read_changes(changed, untouched, [edit])

    (before,) = untouched.answer(asks[1:], ())
    assert seen["edits"] == [["The oak is", "A", "B"]]
    assert seen["groups"]["near"]["asked"] == 2
    ((prompt, old, new),) = seen["groups"]["near"]["changed"]
    assert (prompt, new) == ("The sea is", "something else") and before.startswith(old)
