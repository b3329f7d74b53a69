"""The subjects that live edits are about."""

from service.domain.edit import EditRequest
from service.lifecycle.edited_subjects import EditedSubjects
from tests.lifecycle.local_service import LocalService
from tests.submission import submit

NAMES = ("France", "Kenya", "New York", "York")


def test_the_known_names_in_prompts_and_subjects_of_live_edits_are_found(local: LocalService) -> None:
    made = local.post(("The capital of France is", "1"), ("Mayor of New York:", "2"), ("Frances is", "3"), ("it is", "4"))
    subjects, ids = EditedSubjects(), [edit.id for edit in made]

    assert subjects.find(local.store, NAMES, ids) == {"France", "New York", "York"}
    assert subjects.find(local.store, NAMES, ids[:1]) == {"France"}
    assert subjects.find(local.store, NAMES, ids[2:]) == set()


def test_the_known_names_in_aliases_of_live_edits_are_found(local: LocalService) -> None:
    request = EditRequest(prompt="It is", target="5", subject="the Hexagon", aliases=("Republic of Kenya", "France"))
    (edit,) = submit(local.store, [request], author="ann").edits

    assert EditedSubjects().find(local.store, NAMES, [edit.id]) == {"Kenya", "France"}


def test_edits_that_came_later_are_read_too(local: LocalService) -> None:
    subjects = EditedSubjects()
    (first,) = (edit.id for edit in local.post(("France is", "1")))
    assert subjects.find(local.store, NAMES, [first]) == {"France"}

    (later,) = (edit.id for edit in local.post(("Kenya is", "1")))

    assert subjects.find(local.store, NAMES, [first, later]) == {"France", "Kenya"}
