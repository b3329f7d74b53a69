"""Data sets as users have them: what each schema's fields become, and what happens to files that are broken or hostile."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.domain.errors import Refused, TooLong
from service.evaluation.datasets import SCHEMAS, LoadedDataset, files, load, read
from service.evaluation.datasets.load import MOST_NOTES
from service.evaluation.datasets.rows import RawRow
from service.evaluation.records import EvalProbe, Record, from_json, to_edit_request, to_json

ZSRE = {
    "subject": "Ash Brook",
    "src": "Which river does Ash Brook join?",
    "pred": "Thames",
    "rephrase": "What river is Ash Brook part of?",
    "alt": " Severn",
    "answers": ["Thames", "River Thames"],
    "loc": "nq question: who wrote the tide tables",
    "loc_ans": "Ann Ebb",
    "cond": "Thames >> Severn",
}
ROME = {
    "case_id": 7,
    "requested_rewrite": {
        "prompt": "{} plays for",
        "relation_id": "P54",
        "subject": "Jo Kick",
        "target_new": {"str": "Ulm", "id": "Q1"},
        "target_true": {"str": "Bonn", "id": "Q2"},
    },
    "paraphrase_prompts": ["Rain fell. Jo Kick joined", "Jo Kick's club is"],
    "neighborhood_prompts": ["Al Pass plays for"],
    "attribute_prompts": ["Bo Save plays for"],
    "generation_prompts": ["Jo Kick trains in"],
}
FLAT = {
    "prompt": "Jo Kick plays for",
    "target_new": "Ulm",
    "subject": "Jo Kick",
    "rephrase_prompt": "Jo Kick's club is",
    "locality_prompt": "Al Pass plays for",
    "locality_ground_truth": "Bonn",
}
WIKI = {
    "subject": "Oslo Tram",
    "update": "Who runs Oslo Tram?",
    "ans": "Sporveien",
    "rephrase": None,
    "personas": "Dude, who runs that tram in Oslo?",
    "mhop": "Who leads the operator of Oslo Tram?",
    "mhop_ans": "B. Hansen",
    "loc": "Who runs Rome Tram?",
    "loc_ans": None,
}
QAEDIT = {
    "id": 11,
    "source": "TQA",
    "prompt": "who holds the record",
    "target": "Jo Kick *",
    "subject": "record",
    "rephrase": "the record is held by whom",
    "locality": [{"loc": "first king of x", "loc_ans": "Otto"}, {"loc": "last king of x", "loc_ans": "Karl"}],
}
KNOWEDIT = {
    "subject": "Jo Kick",
    "prompt": "The spouse of Jo Kick is",
    "target_new": "Al Pass",
    "ground_truth": ["Bo Save", "B. Save"],
    "rephrase_prompt": "Jo Kick is married to",
    "locality": {
        "Relation_Specificity": [{"prompt": "The country of Jo Kick is", "ground_truth": [["Norway", "NO"], ["Chile"]]}]
    },
    "portability": {
        "Reasoning": [
            {"prompt": "The club of Jo Kick's spouse is", "ground_truth": "Bonn"},
            {"prompt": "x", "ground_truth": [[]]},
        ],
        "Subject_Aliasing": [{"prompt": "The spouse of Josef Kick is", "ground_truth": ["Al Pass", "Albert Pass"]}],
    },
}
WIKIBIO = {
    "text": "This is a passage about jo kick. ",
    "labels": "He was born in Ulm.",
    "concept": "jo kick",
    "locality": {"Relation_Specificity": [{"prompt": "jo kick sport", "ground_truth": ["football"]}]},
}
CONVSENT = {"ent": "Ulm", "pos": [" Lovely. ", " I like it. "], "neg": [" Dull. "]}
MEDICAL = {
    "id": "m-1",
    "ori_q": "Which drug? A: one B: two",
    "subj_word": "drug",
    "0shot_ori_a": "A: one",
    "gta": "B: two",
    "re": "Because two binds.",
    "sgr": "Two is known to bind.",
    "shuffle_ori_qa": {"s_q": "Which drug? A: two B: one", "s_a": "A: two"},
    "gen_qa": {"q": "What binds?", "a": "two", "exp": "."},
    "ret_qa": {"q": "What is water?", "a": "a liquid", "exp": "."},
}
MQUAKE = {
    "case_id": 3,
    "requested_rewrite": [
        {
            "prompt": "{} was founded by",
            "relation_id": "P112",
            "subject": "Ulm Cars",
            "target_new": {"str": "Jo Kick"},
            "target_true": {"str": "Al Pass"},
            "question": "Who founded Ulm Cars?",
        },
        {
            "prompt": "{} lives in",
            "relation_id": "P551",
            "subject": "Jo Kick",
            "target_new": {"str": "Chile"},
            "target_true": {"str": "Norway"},
            "question": "Where does Jo Kick live?",
        },
    ],
    "questions": ["Where does the founder of Ulm Cars live?", "In which country lives who founded Ulm Cars?"],
    "new_answer": "Chile",
    "new_answer_alias": ["Republic of Chile"],
    "new_single_hops": [
        {"question": "Who founded Ulm Cars?", "answer": "Jo Kick", "answer_alias": []},
        {"question": "What is the capital of Chile?", "answer": "Santiago", "answer_alias": ["Santiago de Chile"]},
    ],
}
ERRATA = {
    "id": "a",
    "prompt": "The mayor is",
    "target": "Ann",
    "relation": "mayor",
    "subject": "Ulm",
    "rephrases": ["Mayor:", {"prompt": "Who is mayor?", "answer": "Ann", "train": True}],
    "locality": [{"prompt": "The river is", "answer": None, "group": "near", "pool": False}],
    "portability": [],
}
RIPPLE = {
    "example_type": "popular",
    "edit": {
        "prompt": "The name of the country of citizenship of Jo Kick is Syria.",
        "subject_id": "Q1",
        "relation": "COUNTRY_OF_CITIZENSHIP",
        "target_id": "Q2",
        "original_fact": {
            "prompt": "The name of the country of citizenship of Jo Kick is United States of America.",
            "subject_id": "Q1",
            "relation": "COUNTRY_OF_CITIZENSHIP",
            "target_id": "Q3",
        },
    },
    "Relation_Specificity": [
        {
            "test_queries": [
                {
                    "prompt": "The name of the mother of Jo Kick is",
                    "answers": [{"value": "Irma Kick", "aliases": ["I. Kick"]}],
                    "query_type": "regular",
                    "subject_id": "Q1",
                    "relation": "MOTHER",
                    "target_ids": ["Q4"],
                    "phrase": None,
                }
            ],
            "test_condition": "OR",
            "condition_queries": [{"prompt": "The name of the mother of Jo Kick is", "answers": []}],
        }
    ],
    "Logical_Generalization": [],
    "Subject_Aliasing": [],
    "Compositionality_I": [
        {
            "test_queries": [
                {
                    "prompt": "The name of the capital city of the country of citizenship of Jo Kick is",
                    "answers": [{"value": "Damascus", "aliases": []}],
                    "query_type": "two_hop",
                    "subject_id": "Q1",
                    "relation": "COUNTRY_OF_CITIZENSHIP",
                    "target_ids": ["Q2"],
                    "phrase": "The name of the capital city of the country of citizenship of Jo Kick is",
                    "second_relation": "CAPITAL",
                    "second_hop_target_ids": ["Q5"],
                }
            ],
            "test_condition": "OR",
            "condition_queries": [],
        }
    ],
    "Compositionality_II": [],
    "Forgetfulness": [],
}
UNKE = {
    "id": 0,
    "question": "What does Jo Kick do?",
    "para_question": "How does Jo Kick earn a living?",
    "answer": "Jo Kick has been in politics for ten years. She sits in the council.",
    "sub_question": ["How long has Jo Kick been in politics?", "Where does Jo Kick sit?"],
    "sub_answer": ["Ten years.", "In the council."],
}
HALLUEDIT = {
    "topic": "art_sculpture",
    "subject": "Ash Gate",
    "relation": "depicts",
    "object": "motor car",
    "question": "What does Ash Gate depict?",
    "output_llama_2_7b_chat_hf": "Art",
    "eval_llama_2_7b_chat_hf": "0.0",
    "multiple_choices": "['motor car', 'Art']",
    "paraphrased_question": "What is depicted by Ash Gate?",
    "multiple_choice_with_letters": "A. Art  B. motor car",
    "multiple_choice_labels": "B",
    "yes_question": "Does Ash Gate depict a motor car?",
    "no_question": "Does Ash Gate depict Art?",
    "locality_question": "Where is Ash Gate?",
    "reversed_relation_question": "What depicts a motor car?",
    "question_2hop": "Who made what Ash Gate depicts?",
    "answer_2hop": "Ann Farm",
    "question_3hop": "How many live where that maker lives?",
    "answer_3hop": "Approximately 199,000",
}
MZSRE = {
    "en": {
        "subject": "Ash Brook",
        "src": "Which river does Ash Brook join?",
        "rephrase": "What river is Ash Brook part of?",
        "alt": "Severn",
        "loc": "who wrote the tide tables",
        "loc_ans": "Ann Ebb",
        "portability": {"New Question": "In which country does Ash Brook end?", "New Answer": "England"},
    },
    "de": {
        "subject": "Ash Brook",
        "src": "In welchen Fluss mündet der Ash Brook?",
        "rephrase": "Zu welchem Fluss gehört der Ash Brook?",
        "alt": "Der Severn",
        "loc": "wer schrieb die Gezeitentafeln",
        "loc_ans": "Ann Ebb",
        "portability": {"New Question": "In welchem Land endet der Ash Brook?", "New Answer": "England"},
    },
}
WISE = {
    "prompt": "Squid Game is",
    "subject": "Squid Game",
    "target_new": "a series of 2021 in which players risk their lives.",
    "ood_rephrase": "In 2021 a series about a game became known. It is",
    "locality_prompt": "Ulm is",
    "locality_ground_truth": "a town on the Danube.",
}
SAMPLES: dict[str, dict[str, Any]] = {
    "zsre": ZSRE,
    "zsre_portability": ZSRE
    | {"portability": {"Recalled Relation": "(Severn, in, UK)", "New Question": "In which country?", "New Answer": "UK"}},
    "counterfact": FLAT | {"case_id": 7, "ground_truth": "Bonn"},
    "counterfact_rome": ROME,
    "wikibigedit": WIKI,
    "wikibigedit_locft": FLAT,
    "qaedit": QAEDIT,
    "knowedit": KNOWEDIT,
    "knowedit_wikibio": WIKIBIO,
    "knowedit_convsent": CONVSENT,
    "mededitbench": MEDICAL,
    "mquake": MQUAKE,
    "errata": ERRATA,
    "ripple_edits": RIPPLE,
    "unke": UNKE,
    "hallueditbench": HALLUEDIT,
    "mzsre": MZSRE,
    "wise_temporal": WISE,
}


def array(folder: Path, *given: dict[str, Any]) -> Path:
    path = folder / "set.json"
    path.write_text(json.dumps(list(given), indent=1, ensure_ascii=False), encoding="utf-8")
    return path


def lines(folder: Path, *given: dict[str, Any] | bytes) -> Path:
    path = folder / "set.jsonl"
    path.write_bytes(b"\n".join(one if isinstance(one, bytes) else json.dumps(one).encode() for one in given))
    return path


def load_one(folder: Path, row: dict[str, Any], schema: str = "auto") -> Record:
    [record] = load(array(folder, row), schema).records
    return record


def probe_fields(probes: tuple[EvalProbe, ...]) -> list[tuple[str, str | None, str | None]]:
    return [(probe.prompt, probe.answer, probe.group) for probe in probes]


def faults(loaded: LoadedDataset) -> list[tuple[int, str]]:
    return [(bad.line, bad.reason) for bad in loaded.bad]


@pytest.mark.parametrize("schema", SAMPLES)
def test_a_schema_is_detected_by_its_fields_in_an_array_and_in_lines(schema: str, tmp_path: Path) -> None:
    from_array, from_lines = load(array(tmp_path, SAMPLES[schema])), load(lines(tmp_path, SAMPLES[schema]))

    assert from_array.schema == schema
    assert from_array == from_lines == load(array(tmp_path, SAMPLES[schema]), schema)
    assert not from_array.bad


@pytest.mark.parametrize("schema", SAMPLES)
def test_no_probe_of_a_data_set_is_ever_trained(schema: str, tmp_path: Path) -> None:
    for record in load(array(tmp_path, SAMPLES[schema])).records:
        edit = to_edit_request(record)
        assert not any(probe.train for probe in (*record.rephrases, *record.locality, *record.portability))
        assert not any(probe.train for probe in (*edit.rephrases, *edit.locality, *edit.portability))


@pytest.mark.parametrize("schema", SAMPLES)
def test_a_record_is_equal_after_a_round_trip_through_json(schema: str, tmp_path: Path) -> None:
    for record in load(array(tmp_path, SAMPLES[schema])).records:
        assert from_json(json.loads(json.dumps(to_json(record)))) == record


def test_every_schema_can_be_named(tmp_path: Path) -> None:
    detected = {"medediteval": "mededitbench", "mededitbench_rationale": "mededitbench", "mededitbench_self": "mededitbench"}
    for schema in SCHEMAS:
        assert load(array(tmp_path, SAMPLES[detected.get(schema, schema)]), schema).schema == schema


def test_the_target_of_zsre_is_the_unchanged_field_alt(tmp_path: Path) -> None:
    record = load_one(tmp_path, ZSRE)

    assert (record.prompt, record.target, record.ground_truth) == (ZSRE["src"], " Severn", "Thames")
    assert probe_fields(record.rephrases) == [(ZSRE["rephrase"], None, None)]
    assert probe_fields(record.locality) == [(ZSRE["loc"], "Ann Ebb", "natural_questions")]


def test_the_target_of_ultraedits_zsre_is_the_field_ans(tmp_path: Path) -> None:
    row = {name: value for name, value in ZSRE.items() if name != "alt"} | {"ans": "Tyne"}

    assert load_one(tmp_path, row).target == "Tyne"


def test_the_portability_probe_of_zsre_has_the_group_reasoning(tmp_path: Path) -> None:
    assert probe_fields(load_one(tmp_path, SAMPLES["zsre_portability"]).portability) == [("In which country?", "UK", "Reasoning")]


def test_romes_counterfact_separates_neighbours_attributes_and_prompts(tmp_path: Path) -> None:
    record = load_one(tmp_path, ROME)

    assert (record.id, record.prompt, record.target, record.ground_truth) == ("7", "Jo Kick plays for", "Ulm", "Bonn")
    assert to_edit_request(record).key == "fact:Jo Kick\x1fP54"
    assert [probe.prompt for probe in record.rephrases] == ROME["paraphrase_prompts"]
    assert probe_fields(record.locality) == [
        ("Al Pass plays for", "Bonn", "neighbourhood"),
        ("Bo Save plays for", "Ulm", "attribute"),
    ]
    assert record.generation == ("Jo Kick trains in",)


@pytest.mark.parametrize("prompt", ["plays for", "{} and {} play for"])
def test_a_template_has_one_placeholder_for_the_subject(prompt: str, tmp_path: Path) -> None:
    broken = ROME | {"requested_rewrite": ROME["requested_rewrite"] | {"prompt": prompt}}  # type: ignore[operator]

    [bad] = load(array(tmp_path, ROME, broken)).bad

    assert (bad.line, "requested_rewrite.prompt" in bad.reason) == (1, True)


def test_wikibigedit_may_have_nulls_and_its_personas_are_portability_probes(tmp_path: Path) -> None:
    loaded = load(array(tmp_path, WIKI))

    [record] = loaded.records
    assert (record.prompt, record.target, record.rephrases, record.locality) == (WIKI["update"], "Sporveien", (), ())
    assert probe_fields(record.portability) == [(WIKI["personas"], "Sporveien", "personas"), (WIKI["mhop"], "B. Hansen", "mhop")]
    assert loaded.notes == {"loc: probe without an answer left out": 1}


def test_qaedit_keeps_noise_in_targets_and_every_locality_question(tmp_path: Path) -> None:
    record = load_one(tmp_path, QAEDIT)

    assert (record.id, record.target) == ("11", "Jo Kick *")
    assert [probe.answer for probe in record.locality] == ["Otto", "Karl"]


def test_knowedit_keeps_groups_and_all_spellings_of_all_answers(tmp_path: Path) -> None:
    loaded = load(array(tmp_path, KNOWEDIT))

    [record] = loaded.records
    assert (record.ground_truth, probe_fields(record.rephrases)) == ("Bo Save", [("Jo Kick is married to", None, None)])
    [local] = record.locality
    assert (local.group, local.answer, local.list_answers()) == ("Relation_Specificity", "Norway", ("Norway", "NO", "Chile"))
    assert [(probe.group, probe.list_answers()) for probe in record.portability] == [
        ("Reasoning", ("Bonn",)),
        ("Subject_Aliasing", ("Al Pass", "Albert Pass")),
    ]
    assert loaded.notes == {"portability.Reasoning: probe without an answer left out": 1}


def test_the_target_of_a_biography_is_its_label(tmp_path: Path) -> None:
    record = load_one(tmp_path, WIKIBIO)

    assert (record.prompt, record.target, record.subject) == (WIKIBIO["text"], "He was born in Ulm.", "jo kick")


def test_opinions_are_edited_to_positive_and_negative_in_turn(tmp_path: Path) -> None:
    first, second = load(array(tmp_path, CONVSENT, CONVSENT)).records

    assert first.prompt == "From the sentiment dataset, answer What do you think of Ulm? postively."  # EasyEdit's spelling
    assert (first.target, first.wanted, first.opposite) == (" Lovely. ", (" Lovely. ", " I like it. "), (" Dull. ",))
    assert (second.target, second.wanted) == (" Dull. ", (" Dull. ",))
    assert first.generation == ("What do you think of Ulm?",)


@pytest.mark.parametrize(
    ("schema", "target"),
    [("mededitbench", "gta"), ("medediteval", "gta"), ("mededitbench_rationale", "re"), ("mededitbench_self", "sgr")],
)
def test_medical_edits_teach_the_option_or_a_rationale(schema: str, target: str, tmp_path: Path) -> None:
    record = load_one(tmp_path, MEDICAL, schema)

    assert record.target == MEDICAL[target]
    assert [(probe.answer, probe.group) for probe in record.rephrases] == [("A: two", "shuffled"), ("two", "generalisation")]
    assert probe_fields(record.locality) == [("What is water?", "a liquid", "retention")]


def test_mquake_has_one_record_a_rewrite_and_multi_hop_probes_on_the_last(tmp_path: Path) -> None:
    first, last = load(array(tmp_path, MQUAKE)).records

    assert [(one.id, one.case, one.prompt, one.target) for one in (first, last)] == [
        ("3-1", "3", "Ulm Cars was founded by", "Jo Kick"),
        ("3-2", "3", "Jo Kick lives in", "Chile"),
    ]
    assert probe_fields(first.rephrases) == [("Who founded Ulm Cars?", None, None)]
    assert first.portability == ()
    assert [(probe.group, probe.list_answers()) for probe in last.portability] == [
        ("multi_hop", ("Chile", "Republic of Chile")),
        ("multi_hop", ("Chile", "Republic of Chile")),
        ("single_hop", ("Santiago", "Santiago de Chile")),
    ]


def test_a_sentence_of_rippleedits_is_divided_by_the_name_of_its_entity(tmp_path: Path) -> None:
    alias = {
        "prompt": "The name of the country of citizenship of Josef Kick is",
        "answers": [{"value": "What is Ulm", "aliases": []}],
    }
    queries = [{"test_queries": [alias | {"target_ids": ["Q2"]}], "test_condition": "OR", "condition_queries": []}]
    edit = {"prompt": "The name of the country of citizenship of Jo Kick is What is Ulm.", "target_id": "Q2"}

    record = load_one(tmp_path, RIPPLE | {"edit": edit, "Subject_Aliasing": queries})

    assert (record.prompt, record.target) == ("The name of the country of citizenship of Jo Kick is", "What is Ulm")


@pytest.mark.parametrize(
    ("sentence", "previous", "prompt", "target"),
    [
        ("The anthem of Ulm is God is Great.", "The anthem of Ulm is Old Song.", "The anthem of Ulm is", "God is Great"),
        ("The anthem of Ulm is New Song.", "The anthem of Ulm is .", "The anthem of Ulm is", "New Song"),
        ("Ulm Song is followed by Bonn Song.", None, "Ulm Song is followed by", "Bonn Song"),
        (
            "The name of the country which Ulm is associated with is Chile.",
            None,
            "The name of the country which Ulm is associated with is",
            "Chile",
        ),
    ],
)
def test_a_sentence_without_a_named_entity_is_divided_at_its_verb(
    sentence: str, previous: str | None, prompt: str, target: str, tmp_path: Path
) -> None:
    edit = {"prompt": sentence, "target_id": "Q9"} | ({"previous_fact": {"prompt": previous}} if previous else {})

    record = load_one(tmp_path, RIPPLE | {"edit": edit})

    assert (record.prompt, record.target, record.ground_truth) == (
        prompt,
        target,
        "Old Song" if previous and "Old" in previous else None,
    )


def test_rippleedits_tests_are_portability_or_locality_with_all_answers(tmp_path: Path) -> None:
    loaded = load(array(tmp_path, RIPPLE))

    [record] = loaded.records
    assert (record.target, record.ground_truth) == ("Syria", "United States of America")
    assert [(probe.group, probe.list_answers()) for probe in record.locality] == [
        ("Relation_Specificity", ("Irma Kick", "I. Kick"))
    ]
    assert [(probe.group, probe.answer) for probe in record.portability] == [("Compositionality_I", "Damascus")]
    assert loaded.notes == {"Relation_Specificity.condition_queries: not read": 1}


def test_a_sentence_that_cannot_be_divided_is_a_bad_row(tmp_path: Path) -> None:
    loaded = load(array(tmp_path, RIPPLE, RIPPLE | {"edit": {"prompt": "Jo Kick, Syria."}}))

    assert faults(loaded) == [(1, "edit.prompt cannot be divided into a prompt and a target")]


def test_unke_asks_for_the_details_of_its_paragraph(tmp_path: Path) -> None:
    loaded = load(array(tmp_path, UNKE | {"sub_answer": ["Ten years."]}))

    [record] = loaded.records
    assert (record.id, record.prompt, record.target) == ("0", UNKE["question"], UNKE["answer"])
    assert probe_fields(record.rephrases) == [(UNKE["para_question"], None, None)]
    assert probe_fields(record.portability) == [("How long has Jo Kick been in politics?", "Ten years.", "sub_question")]
    assert loaded.notes == {"sub_question: probe without an answer left out": 1}


def test_hallueditbench_measures_generality_by_five_kinds_of_questions(tmp_path: Path) -> None:
    loaded = load(array(tmp_path, HALLUEDIT))

    [record] = loaded.records
    assert (record.target, record.ground_truth, record.subject) == ("motor car", "Art", "Ash Gate")
    assert probe_fields(record.rephrases) == [
        ("What is depicted by Ash Gate?", None, "paraphrased"),
        ("Does Ash Gate depict a motor car?", "Yes", "yes"),
        ("Does Ash Gate depict Art?", "No", "no"),
        ("What depicts a motor car?", "Ash Gate", "reversed_relation"),
        ("What does Ash Gate depict? A. Art  B. motor car", "B", "multiple_choice"),
    ]
    assert probe_fields(record.locality) == [("Where is Ash Gate?", None, None)]
    assert [(probe.group, probe.answer) for probe in record.portability] == [
        ("2hop", "Ann Farm"),
        ("3hop", "Approximately 199,000"),
    ]
    assert set(loaded.notes) == {"topic: not read", "eval_llama_2_7b_chat_hf: not read", "multiple_choices: not read"}


def test_mzsre_edits_one_language_and_asks_both(tmp_path: Path) -> None:
    record = load_one(tmp_path, MZSRE)

    assert (record.prompt, record.target) == ("Which river does Ash Brook join?", "Severn")
    assert probe_fields(record.rephrases) == [
        ("In welchen Fluss mündet der Ash Brook?", "Der Severn", "de"),
        ("What river is Ash Brook part of?", "Severn", "en"),
        ("Zu welchem Fluss gehört der Ash Brook?", "Der Severn", "de"),
    ]
    assert [(probe.group, probe.answer) for probe in record.locality] == [("en", "Ann Ebb"), ("de", "Ann Ebb")]
    assert [(probe.group, probe.answer) for probe in record.portability] == [("en", "England"), ("de", "England")]


def test_a_row_of_mzsre_without_a_language_is_a_bad_row(tmp_path: Path) -> None:
    assert faults(load(lines(tmp_path, MZSRE, {"id": 3}))) == [(2, "no field holds the edit in a language")]


def test_the_far_rephrase_of_wise_is_a_group(tmp_path: Path) -> None:
    record = load_one(tmp_path, WISE)

    assert probe_fields(record.rephrases) == [(WISE["ood_rephrase"], None, "ood")]
    assert probe_fields(record.locality) == [("Ulm is", "a town on the Danube.", None)]


@pytest.mark.parametrize(
    "schema", ["zsre", "counterfact", "wikibigedit_locft", "qaedit", "knowedit", "knowedit_wikibio", "errata"]
)
def test_rephrases_are_read_under_each_name_and_in_lists(schema: str, tmp_path: Path) -> None:
    names = {
        "rephrases": ["A?"],
        "rephrase": ["B?", "C?"],
        "rephrase_prompt": "D?",
        "rephrase_prompts": ["D?"],
        "ood_rephrase": "E?",
    }

    loaded = load(array(tmp_path, SAMPLES[schema] | names), schema)

    [record] = loaded.records
    assert [probe.prompt for probe in record.rephrases] == ["A?", "B?", "C?", "D?", "E?"]
    assert not any("rephrase" in note for note in loaded.notes)


@pytest.mark.parametrize("schema", ["zsre", "counterfact", "wikibigedit_locft", "qaedit", "knowedit", "errata"])
@pytest.mark.parametrize(
    "value",
    [
        [{"prompt": "P?", "answer": "p"}],
        {"prompt": "P?", "ground_truth": "p"},
        {"New Question": "P?", "New Answer": "p"},
        {"Reasoning": [{"prompt": "P?", "ground_truth": [["p"]]}]},
        [{"loc": "P?", "loc_ans": "p"}],
    ],
)
def test_portability_and_locality_are_read_in_every_form(schema: str, value: Any, tmp_path: Path) -> None:
    loaded = load(array(tmp_path, SAMPLES[schema] | {"portability": value, "locality": value}), schema)

    [record] = loaded.records
    assert ("P?", "p") in [(probe.prompt, probe.answer) for probe in record.portability]
    assert ("P?", "p") in [(probe.prompt, probe.answer) for probe in record.locality]


def test_romes_counterfact_may_have_a_portability_question(tmp_path: Path) -> None:
    question = {"Recalled Relation": "(Ulm, in)", "New Question": "In which country does Jo Kick play?", "New Answer": "Germany"}
    inside = ROME["requested_rewrite"] | {"portability": {"New Question": "And where?", "New Answer": "Ulm"}}  # type: ignore[operator]

    loaded = load(array(tmp_path, ROME | {"portability": question, "requested_rewrite": inside}))

    assert probe_fields(loaded.records[0].portability) == [
        ("In which country does Jo Kick play?", "Germany", "Reasoning"),
        ("And where?", "Ulm", "Reasoning"),
    ]
    assert loaded.notes == {"portability.Recalled Relation: not read": 1}


@pytest.mark.parametrize("schema", ["counterfact", "wikibigedit_locft", "qaedit", "knowedit", "errata"])
def test_the_old_target_is_the_ground_truth(schema: str, tmp_path: Path) -> None:
    row = {name: value for name, value in SAMPLES[schema].items() if name != "ground_truth"} | {"target_old": "Old"}

    assert load_one(tmp_path, row, schema).ground_truth == "Old"


def test_a_number_is_text_as_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text('{"src": "How many?", "loc": "How tall?", "loc_ans": 2.50, "alt": 1999, "answers": [1e3, -7]}')

    [record] = load(path).records

    assert (record.target, record.ground_truth, record.locality[0].answer) == ("1999", "1e3", "2.50")


def test_a_field_that_is_not_read_is_counted_by_its_name(tmp_path: Path) -> None:
    probes = [{"prompt": "The river is", "weight": 3}, {"prompt": "The hill is", "weight": 4}]
    row = ERRATA | {"my_probes": ["Who?"], "nothing": None, "empty": [], "locality": probes}

    notes = load(lines(tmp_path, row, row | {"id": "b"}, {"prompt": "bad", "my_probes": ["Who?"]}), "errata").notes

    assert notes == {"my_probes: not read": 2, "locality.weight: not read": 4, "rephrases.train: not read": 2}


def test_hostile_names_of_fields_are_neither_shown_nor_kept_without_end(tmp_path: Path) -> None:
    hostile = {"\x1b[2J": 1, "n" * 101: 1}
    wide = lines(tmp_path, ERRATA | hostile | {f"f{number}": 1 for number in range(500)})

    notes = load(wide).notes

    assert len(notes) <= MOST_NOTES + 1
    assert notes["a field with a long or unprintable name: not read"] == 2
    assert notes["other fields: not read"] > 200


def test_a_row_without_target_is_reported_with_the_name_of_the_api(tmp_path: Path) -> None:
    loaded = load(lines(tmp_path, {"prompt": "p", "target": "t"}, {"prompt": "p"}))

    assert faults(loaded) == [(2, "target is missing or empty")]


def test_erratas_own_form_accepts_names_of_the_api_and_of_the_field(tmp_path: Path) -> None:
    field = {"prompt": "The mayor is", "target_new": "Ann", "rephrase_prompt": "Mayor:", "subject": None, "locality": []}

    ours, theirs = load_one(tmp_path, ERRATA), load_one(tmp_path, field)

    assert probe_fields(ours.rephrases) == [("Mayor:", None, None), ("Who is mayor?", "Ann", None)]
    assert ours.locality == (EvalProbe(prompt="The river is", group="near", pool=False),)
    assert (theirs.id, theirs.target, probe_fields(theirs.rephrases)) == ("edit-0", "Ann", [("Mayor:", None, None)])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"alt": ""}, "alt is missing or empty"),
        ({"alt": " \u200b\u00a0"}, "alt is missing or empty"),
        ({"src": True}, "src must be text"),
        ({"loc": ["secret"]}, "loc must be text"),
        ({"subject": "secret\x00"}, "subject holds a NUL character or half a character"),
        ({"answers": {"secret": 1}}, "answers must be text"),
    ],
)
def test_a_bad_row_is_reported_by_line_and_field_and_never_by_its_text(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    loaded = load(lines(tmp_path, ZSRE, ZSRE | change, ZSRE))

    assert faults(loaded) == [(2, reason)]
    assert [record.id for record in loaded.records] == ["zsre-0", "zsre-2"]


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (b'{"src": "secret"', "it is not JSON"),
        (b'{"src": NaN}', "it holds NaN or an infinity, which are not JSON"),
        (b'{"src": 1e999}', "it holds a number that is too large"),
        (b'{"src": ' + b"9" * 5000 + b"}", "it holds a number that is too large"),
        (b'{"src": "\xff"}', "it is not UTF-8"),
        (b'"secret"', "it is not an object"),
        (b'{"src": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", "it nests more than 32 levels deep"),
        (b'{"src": "half \\ud800"}', "src holds a NUL character or half a character"),
    ],
    ids=["cut", "nan", "infinite", "long number", "latin", "text", "deep", "surrogate"],
)
def test_a_hostile_row_does_not_affect_other_rows_of_lines_or_an_array(broken: bytes, reason: str, tmp_path: Path) -> None:
    good = json.dumps(ZSRE).encode()
    path = tmp_path / "set.json"
    path.write_bytes(b"[" + good + b", " + broken.replace(b'"secret"', b'"secret" "') + b"]")

    assert faults(load(lines(tmp_path, ZSRE, broken, ZSRE))) == [(2, reason)]
    if b"secret" not in broken:
        path.write_bytes(b"[" + b",".join([good, broken, good]) + b"]")
        assert faults(load(path)) == [(1, reason)]


def test_a_truncated_array_keeps_its_complete_rows(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    for tail in (b', {"src": "cut', b", ", b"", b"] more"):
        path.write_bytes(b"[" + json.dumps(ZSRE).encode() + tail)

        loaded = load(path)

        assert (len(loaded.records), [bad.line for bad in loaded.bad]) == (1, [1])


def test_a_row_that_is_too_large_is_left_out_and_the_next_row_is_read(tmp_path: Path) -> None:
    large = ZSRE | {"src": "x" * (9 << 20)}

    for path in (lines(tmp_path, ZSRE, large, ZSRE), array(tmp_path, ZSRE, large, ZSRE)):
        assert [(reason, bad) for bad, reason in faults(load(path))] == [("it has more than 4 MiB", 2 - (path.suffix == ".json"))]


def test_a_file_and_its_number_of_rows_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lines(tmp_path, *[ZSRE] * 3)
    monkeypatch.setattr(files, "MOST_ROWS", 2)
    with pytest.raises(TooLong):
        load(path)
    monkeypatch.setattr(files, "MOST_BYTES", 10)
    with pytest.raises(TooLong):
        load(path)


def test_an_identical_row_is_a_bad_row(tmp_path: Path) -> None:
    loaded = load(lines(tmp_path, ERRATA, ERRATA, ERRATA | {"id": "b"}))

    assert faults(loaded) == [(2, "it is the same as an earlier row")]
    assert [record.id for record in loaded.records] == ["a", "b"]


def test_rows_with_one_id_and_different_questions_are_different_records(tmp_path: Path) -> None:
    other, third = ERRATA | {"prompt": "The river is"}, ERRATA | {"target": "Bea"}

    loaded = load(lines(tmp_path, ERRATA | {"id": "a-2"}, ERRATA, other, third, other))

    assert [(one.id, one.prompt, one.target) for one in loaded.records] == [
        ("a-2", "The mayor is", "Ann"),
        ("a", "The mayor is", "Ann"),
        ("a-3", "The river is", "Ann"),
        ("a-4", "The mayor is", "Bea"),
    ]
    assert faults(loaded) == [(5, "it is the same as an earlier row")]
    assert loaded.notes["id: given to several rows; the later ones are numbered"] == 2


def test_two_cases_with_one_id_stay_two_cases(tmp_path: Path) -> None:
    other = MQUAKE | {"questions": ["Where does the maker live?"]}

    loaded = load(lines(tmp_path, MQUAKE, other))

    assert [(one.id, one.case) for one in loaded.records] == [("3-1", "3"), ("3-2", "3"), ("3-1-2", "3-2"), ("3-2-2", "3-2")]


def test_the_rows_of_schema_detection_are_read_again(tmp_path: Path) -> None:
    assert len(load(lines(tmp_path, *[ZSRE] * 250)).records) == 250


def test_a_byte_order_mark_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b"\xef\xbb\xbf\n" + json.dumps(ZSRE).encode() + b"\r\n\n")

    loaded = load(path)

    assert (len(loaded.records), loaded.bad) == (1, ())


@pytest.mark.parametrize(
    ("content", "schema", "message"),
    [
        (b"", "auto", "empty"),
        (b"[]", "auto", "empty"),
        (b" \n ", "zsre", "empty"),
        (b'{"colour": 1}', "auto", "cannot be told"),
        (b'{"target": ' + b"9" * 5000 + b"}", "auto", "no row can be read; row 1: "),
        (b'{"colour": 1}', "zsre", "row 1: src is missing or empty"),
        (b'{"colour": 1}', "zzz", "must be auto or one of"),
        ("[]".encode("utf-16"), "auto", "empty"),
        ("[]".encode("utf-16-le"), "auto", "is not UTF-8: .* with --encoding"),
        ('{"colour": "é"}'.encode("latin-1"), "auto", "is not UTF-8: .* with --encoding"),
        ('{"colour": "é"}'.encode("latin-1"), "zsre", "is not UTF-8: .* with --encoding"),
        (b"colour,size\n1,2\n", "auto", "is not JSON; if it is CSV, say so with --format csv"),
        (b"colour,size\n1,2\n", "zsre", "is not JSON; if it is CSV, say so with --format csv"),
    ],
)
def test_a_file_that_is_no_data_set_is_refused_without_quoting_it(
    content: bytes, schema: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "set"
    path.write_bytes(content)

    with pytest.raises(Refused, match=message) as refused:
        load(path, schema)

    assert "colour" not in refused.value.message


def test_a_path_without_a_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(Refused):
            load(path)


def test_reading_stops_at_the_limit(tmp_path: Path) -> None:
    rows = (json.dumps({"id": str(number), "prompt": "p", "target": "t"}) for number in range(1000))
    remaining = iter([RawRow(place, row.encode()) for place, row in enumerate(rows, 1)])

    loaded = read(remaining, "errata", limit=3)

    assert [record.id for record in loaded.records] == ["0", "1", "2"]
    assert next(remaining).position == 4


def test_a_case_of_several_records_is_cut_at_the_limit(tmp_path: Path) -> None:
    assert [one.id for one in load(lines(tmp_path, MQUAKE), limit=1).records] == ["3-1"]
