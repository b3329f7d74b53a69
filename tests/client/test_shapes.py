"""The shapes of the client are those of the OpenAPI document."""

from typing import Any, get_args, get_origin, get_type_hints

import pytest

from service.client import shapes
from service.runtime.app import create_app
from service.settings import Settings

SCHEMAS: dict[str, Any] = create_app(Settings()).openapi()["components"]["schemas"]
NAMES = {
    "AnswerData": "AnswerOut",
    "BasesData": "BasesOut",
    "AliasData": "AliasOut",
    "AliasesData": "AliasesOut",
    "BasisData": "BasisOut",
    "BlockData": "BlockOut",
    "ComparedAnswersData": "ComparedAnswersOut",
    "ComparedData": "ComparedOut",
    "ComparedFigureData": "SideBySideOut",
    "ComparisonData": "ComparisonOut",
    "DeferralData": "DeferralOut",
    "EditData": "EditOut",
    "EditInput": "EditIn",
    "EvaluationData": "EvalOut",
    "ExplanationData": "ExplanationOut",
    "FaultData": "Fault",
    "GenerateInput": "GenerateIn",
    "HealthData": "HealthOut",
    "JobData": "JobOut",
    "ListedEditData": "ListedEditOut",
    "ListedEvaluationData": "ListedEvalOut",
    "LogLineData": "LogLine",
    "MeasuredData": "MeasuredOut",
    "ModelData": "ModelOut",
    "NextTryData": "NextTryOut",
    "PageData": "Page_ListedEditOut_",
    "ProbeData": "ProbeOut",
    "ProbeInput": "ProbeIn",
    "ProblemData": "ProblemOut",
    "PurgedData": "PurgedOut",
    "RevokedData": "RevokedOut",
    "RollbackData": "RollbackOut",
    "TurnInput": "Turn",
    "VersionData": "VersionOut",
}
JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", dict: "object", list: "array", type(None): "null"}


def json_types(hint: Any) -> set[str]:
    """The JSON types that a Python type allows."""
    if get_args(hint) and all(isinstance(word, str) for word in get_args(hint)):
        return {"string"}  # a Literal
    if hint in JSON_TYPES:
        return {JSON_TYPES[hint]}
    origin = get_origin(hint)
    if origin in JSON_TYPES:
        return {JSON_TYPES[origin]}
    if get_args(hint):
        return set().union(*map(json_types, get_args(hint)))
    return {"object"}  # another shape


def schema_types(schema: dict[str, Any]) -> set[str]:
    """The JSON types that a schema allows."""
    if "$ref" in schema:
        return {"object"}
    forms = schema.get("anyOf") or schema.get("oneOf")
    return set().union(*map(schema_types, forms)) if forms else {schema["type"]}


@pytest.mark.parametrize("name", NAMES)
def test_a_shape_has_the_fields_of_its_schema_with_their_requiredness(name: str) -> None:
    shape, schema = getattr(shapes, name), SCHEMAS[NAMES[name]]

    assert shape.__required_keys__ == set(schema.get("required", ()))
    assert shape.__required_keys__ | shape.__optional_keys__ == set(schema["properties"])


@pytest.mark.parametrize("name", sorted(NAMES.keys() - {"PageData"}))
def test_a_field_has_the_type_of_its_schema(name: str) -> None:
    hints, schema = get_type_hints(getattr(shapes, name)), SCHEMAS[NAMES[name]]

    assert {field: json_types(hint) for field, hint in hints.items()} == {
        field: schema_types(found) for field, found in schema["properties"].items()
    }


def test_the_statuses_of_an_edit_are_those_of_its_schema() -> None:
    for shape in ("EditData", "ListedEditData"):
        words = get_args(get_type_hints(getattr(shapes, shape))["status"])

        assert list(words) == SCHEMAS[NAMES[shape]]["properties"]["status"]["enum"]


def test_the_moments_of_a_next_try_are_those_of_its_schema() -> None:
    assert list(get_args(shapes.NextTryText)) == SCHEMAS["NextTryOut"]["properties"]["when"]["enum"]


def test_every_shape_is_held_to_a_schema() -> None:
    found = {name for name, shape in vars(shapes).items() if hasattr(shape, "__required_keys__")}

    assert found - {"GenerateOptions", "CompareOptions"} == set(NAMES)


def test_the_options_of_a_prompt_are_the_fields_of_its_schema_but_the_prompt() -> None:
    assert set(shapes.GenerateOptions.__annotations__) == set(SCHEMAS["GenerateIn"]["properties"]) - {"prompt", "stream"}
    assert set(shapes.CompareOptions.__annotations__) == set(SCHEMAS["CompareIn"]["properties"]) - {"prompt", "versions"}
