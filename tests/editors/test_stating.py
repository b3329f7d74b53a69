"""Where edits are stated: by their names, else by all words of their wordings."""

from collections.abc import Sequence
from dataclasses import replace

from service.domain.edit import Edit, Probe
from service.editors.known_names import KnownNames
from service.editors.stating import Stating
from service.lm.stated_edits import StatedEdits
from tests.builders import make_base
from tests.editors.taught_model import item

NAMES = KnownNames([("Peru", "capital"), ("Ireland", "country"), ("Iceland", "country")])


def edit(prompt: str, target: str = "Cusco", **more: object) -> Edit:
    return replace(item(prompt, target).edit, id=f"{prompt} {target}", **more)  # type: ignore[arg-type]


def stated(*edits: Edit) -> StatedEdits:
    return Stating(make_base(), NAMES).state(edits)


def about(edits: StatedEdits, prompts: Sequence[str]) -> list[str]:
    return [prompt for prompt in prompts if edits.find(prompt, "raw")]


def test_an_edit_with_a_subject_is_stated_where_the_subject_or_an_alias_is_named() -> None:
    found = stated(edit("The capital of Peru is", subject="Peru", aliases=("Piruw",)))

    assert [each.statement for each in found.edits] == ['"The capital of Peru is" is answered with "Cusco".']
    prompts = ["Where is Peru?", "Piruw's flag", "The capital of Chile is"]
    assert about(found, prompts) == ["Where is Peru?", "Piruw's flag"]


def test_a_known_name_that_looks_like_a_slip_of_the_subject_is_none() -> None:
    ireland, iceland = (edit(f"The capital of {name} is", subject=name) for name in ("Ireland", "Iceland"))

    assert about(stated(ireland), ["Where is Ireand?", "Where is Iceland?"]) == ["Where is Ireand?"]
    both = stated(ireland, iceland).find("Where is Iceland?", "raw")
    assert [each.edit_id for each in both] == [iceland.id]


def test_an_edit_without_a_name_is_stated_on_its_own_wordings_alone() -> None:
    found = stated(edit("we open on sundays at", "ten", rephrases=(Probe(prompt="sunday hours?", train=True),)))

    asked = ["We open on Sundays at", "Sunday hours?", "we close on sundays at", "we open on mondays at"]
    assert about(found, asked) == ["We open on Sundays at", "Sunday hours?"]


def test_an_edit_for_every_prompt_is_stated_where_its_names_are() -> None:
    found = stated(edit("The capital of Peru is", subject="Peru", scope="always"))

    assert about(found, ["Where is Peru?", "Where is Chile?"]) == ["Where is Peru?"]


def test_a_subject_that_is_mentioned_beside_what_is_asked_is_not_what_it_is_about() -> None:
    found = stated(edit("The capital of Peru is", subject="Peru"))

    assert about(found, ["Peru is large. The capital of Chile is", "Chile is long. The capital of Peru is"]) == [
        "Chile is long. The capital of Peru is"
    ]


def test_each_of_many_edits_is_found_by_its_own_name_and_a_shared_name_finds_all() -> None:
    subjects = ["Peru", "Ireland", "Iceland", "Peru"]
    edits = [edit(f"Fact {number} of {subject} is", str(number), subject=subject) for number, subject in enumerate(subjects)]

    found = stated(*edits)

    assert [each.edit_id for each in found.find("Peru?", "raw")] == [edits[0].id, edits[3].id]
    assert [each.edit_id for each in found.find("Ireland and Iceland?", "raw")] == [edits[1].id, edits[2].id]
    assert stated().find("Peru?", "raw") == []


def test_a_wording_that_was_added_to_a_waiting_edit_counts_in_the_next_version() -> None:
    stating, before = Stating(make_base(), NAMES), edit("we open on sundays at", "ten")
    after = replace(before, rephrases=(Probe(prompt="sunday hours?", train=True),))

    old, same, new = stating.state([before]), stating.state([before]), stating.state([after])

    assert old.edits[0] is same.edits[0]
    assert (about(old, ["sunday hours?"]), about(new, ["sunday hours?"])) == ([], ["sunday hours?"])


def test_a_name_without_a_capital_counts_only_beside_what_the_edit_asks() -> None:
    bread = edit("sourdough bread is made of", "rye", subject="sourdough bread")
    chad = edit("The capital of Chad is", subject="Chad", aliases=("the",))

    assert about(stated(bread), ["What is sourdough bread made of?", "Who likes sourdough bread?"]) == [
        "What is sourdough bread made of?"
    ]
    assert about(stated(chad), ["The capital of Peru is", "What is the best thing?", "Where is Chad?"]) == ["Where is Chad?"]
