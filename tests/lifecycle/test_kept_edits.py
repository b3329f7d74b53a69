"""Consolidated edits that a fit of the window keeps: beyond the sample those in the scope of what the window will carry."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from service.domain import liveset
from service.domain.edit import EditStatus
from service.editors.protocol import FitItem
from service.lifecycle.settings import LifecycleSettings
from service.lm.scope import Scope
from tests.lifecycle.ledger import Ledger
from tests.lifecycle.local_service import MANUAL, LocalService, new_local_service, retrained

NAMES = ("Kenya", "Peru", "Chad", "Oman", "Togo", "Cuba")
SAMPLED = 2


class Asking(Ledger):
    """A ledger that notes the targets of the consolidated items of each fit."""

    def __init__(self, *, scoped: bool) -> None:
        super().__init__(scope=_scope_of if scoped else lambda items: None)
        self.kept_targets: list[set[str]] = []

    def baft(self, parent: object, new: object, window: Sequence[FitItem], *more: object) -> object:  # type: ignore[override]
        self.kept_targets.append({item.target for item in window if item.is_consolidated})
        return super().baft(parent, new, window, *more)  # type: ignore[arg-type]


def _scope_of(items: Sequence[FitItem]) -> Scope:
    """The names in the items' prompts."""
    return Scope(names=tuple(name for name in (*NAMES, "South Sudan") if any(name in item.edit.prompt for item in items)))


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a server with a consolidated edit of each name, of which fits sample two. Gives it with a name outside the sample."""
    monkeypatch.setattr(liveset, "CONSOLIDATED_SAMPLE", SAMPLED)
    made: list[LocalService] = []

    def build(*, scoped: bool = True) -> tuple[LocalService, Asking, str]:
        ledger = Asking(scoped=scoped)
        local = new_local_service(tmp_path, ledger=ledger, settings=LifecycleSettings(cadence=MANUAL))
        made.append(local)
        local.live(*((f"The capital of {name} is", f"city of {name}") for name in NAMES))
        retrained(local)
        ledger.kept_targets.clear()
        sampled = {item.edit_id for item in local.live_set.consolidated_sample}
        outside = [edit for edit in local.all_edits() if edit.id not in sampled]
        assert (len(sampled), len(outside)) == (SAMPLED, len(NAMES) - SAMPLED)
        return local, ledger, outside[0].target.removeprefix("city of ")

    yield build
    for local in made:
        local.close()


def test_a_fit_gets_the_consolidated_edits_in_scope_beside_the_sample(make) -> None:
    local, ledger, name = make()

    local.live((f"The president of {name} is", "new"))

    (kept,) = ledger.kept_targets
    assert f"city of {name}" in kept
    assert len(kept) == SAMPLED + 1


def test_an_edit_that_loses_a_consolidated_edit_outside_the_sample_is_deferred(make) -> None:
    local, ledger, name = make()
    ledger.forgotten_targets = {f"city of {name}"}

    (edit,) = local.live((f"The president of {name} is", "new"))

    assert local.statuses([edit]) == [EditStatus.DEFERRED]


def test_an_edit_whose_scope_has_no_consolidated_edit_brings_none_but_the_sample(make) -> None:
    local, ledger, _ = make()

    local.live(("The president of Fiji is", "new"))

    assert [len(kept) for kept in ledger.kept_targets] == [SAMPLED]


def test_without_a_scope_a_fit_gets_the_sample_alone(make) -> None:
    local, ledger, name = make(scoped=False)

    local.live((f"The president of {name} is", "new"))

    assert [len(kept) for kept in ledger.kept_targets] == [SAMPLED]


def test_the_next_edit_brings_the_edits_in_the_scope_of_the_whole_window(make) -> None:
    local, ledger, name = make()
    local.live((f"The president of {name} is", "new"))

    local.live(("The president of Fiji is", "newer"))

    assert f"city of {name}" in ledger.kept_targets[-1]


def test_a_retraction_learns_the_rest_of_the_window_with_the_edits_in_its_scope(make) -> None:
    local, ledger, name = make()
    first, _ = local.live(("The president of Fiji is", "new"), (f"The president of {name} is", "new"))
    ledger.kept_targets.clear()

    local.retract(first)
    local.worker.drain()

    (kept,) = ledger.kept_targets
    assert f"city of {name}" in kept


def test_consolidated_edits_that_came_later_are_found_too(make) -> None:
    local, ledger, name = make()
    later = [(f"The {thing} of {name} is", f"{thing} of {name}") for thing in ("president", "anthem", "flag", "king")]
    local.live(*later)
    retrained(local)
    assert len(local.live_set.consolidated) == len(NAMES) + len(later)

    local.live((f"The river of {name} is", "new"))

    assert {target for _, target in later} <= ledger.kept_targets[-1]


def test_an_edit_with_the_words_of_a_name_in_another_order_is_not_in_scope(make) -> None:
    local, ledger, _ = make()
    local.live(*((f"Of Sudan the {thing} South is", thing) for thing in ("deep", "hot", "far")))
    retrained(local)

    local.live(("The capital of South Sudan is", "new"))

    assert len(ledger.kept_targets[-1]) == SAMPLED
