"""Where an edit is stated: by its names, else by all words of its wordings."""

from service.editors.known_names import KnownNames
from service.editors.stating import state_edits
from service.lm.stated_edits import StatedEdit
from tests.builders import make_base
from tests.editors.taught_model import item

NAMES = KnownNames([("Peru", "capital"), ("Ireland", "country"), ("Iceland", "country")])


def about(edit: StatedEdit, *prompts: str) -> list[str]:
    return [prompt for prompt in prompts if edit.is_about(prompt, "raw")]


def stated(prompt: str, target: str = "Cusco", **more: object) -> StatedEdit:
    (edit,) = state_edits(make_base(), [item(prompt, target, **more).edit], NAMES)  # type: ignore[arg-type]
    return edit


def test_an_edit_with_a_subject_is_stated_where_the_subject_or_an_alias_is_named() -> None:
    edit = stated("The capital of Peru is", subject="Peru", aliases=("Piruw",))

    assert edit.statement == '"The capital of Peru is": "Cusco"'
    assert about(edit, "Where is Peru?", "Piruw's flag", "The capital of Chile is") == ["Where is Peru?", "Piruw's flag"]


def test_a_known_name_that_looks_like_a_slip_of_the_subject_is_none() -> None:
    edit = stated("The capital of Ireland is", subject="Ireland")

    assert about(edit, "Where is Ireand?", "Where is Iceland?") == ["Where is Ireand?"]


def test_an_edit_without_a_name_is_stated_on_its_own_wordings_alone() -> None:
    edit = stated("we open on sundays at", "ten", rephrases=("sunday hours?",))

    asked = ["We open on Sundays at", "Sunday hours?", "we close on sundays at", "we open on mondays at"]
    assert about(edit, *asked) == ["We open on Sundays at", "Sunday hours?"]


def test_an_edit_for_every_prompt_is_stated_where_its_names_are() -> None:
    edit = stated("The capital of Peru is", subject="Peru", scope="always")

    assert about(edit, "Where is Peru?", "Where is Chile?") == ["Where is Peru?"]
