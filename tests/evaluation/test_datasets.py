"""Data sets as users have them: what each schema's fields become, and what happens to files that are broken or hostile."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.domain.errors import Refused, TooLong
from service.evaluation.datasets import SCHEMAS, LoadedDataset, load, read, rows
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
    assert loaded.notes == {"probe without an answer left out": 1}


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
    assert loaded.notes == {"probe without an answer left out": 1}


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
        ({"src": 5}, "src must be text"),
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


def test_a_row_that_is_too_large_is_left_out_and_the_next_row_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MOST_ROW_BYTES", 1 << 20)
    large = ZSRE | {"src": "x" * (3 << 20)}

    for path in (lines(tmp_path, ZSRE, large, ZSRE), array(tmp_path, ZSRE, large, ZSRE)):
        assert [(reason, bad) for bad, reason in faults(load(path))] == [("it has more than 1 MiB", 2 - (path.suffix == ".json"))]


def test_a_file_and_its_number_of_rows_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lines(tmp_path, *[ZSRE] * 3)
    monkeypatch.setattr(rows, "MOST_ROWS", 2)
    with pytest.raises(TooLong):
        load(path)
    monkeypatch.setattr(rows, "MOST_BYTES", 10)
    with pytest.raises(TooLong):
        load(path)


def test_a_row_with_a_repeated_id_is_a_bad_row(tmp_path: Path) -> None:
    loaded = load(lines(tmp_path, ERRATA, ERRATA, ERRATA | {"id": "b"}))

    assert faults(loaded) == [(2, "its id is that of an earlier row")]
    assert [record.id for record in loaded.records] == ["a", "b"]


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
        (b'{"colour": 1}', "zsre", "row 1: src is missing or empty"),
        (b'{"colour": 1}', "zzz", "must be auto or one of"),
        ("[]".encode("utf-16"), "auto", "UTF-8"),
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
