"""The OpenAPI document: every route, an example for each request and answer, and the declared problems."""

from collections.abc import Iterator
from typing import Any

import pytest

from service.api.problems import KINDS, MEDIA_TYPE, TYPE_PREFIX
from service.runtime.app import create_app
from service.settings import Settings

DOCUMENT = create_app(Settings()).openapi()
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
TABLE = {
    "/edits": {"get", "post"},
    "/edits/batch": {"post"},
    "/edits/{edit_id}": {"get", "delete"},
    "/generate": {"get", "post"},
    "/compare": {"post"},
    "/aliases": {"get"},
    "/aliases/{alias}": {"get", "put", "delete"},
    "/v1/models": {"get"},
    "/v1/models/{name}": {"get"},
    "/v1/completions": {"post"},
    "/v1/chat/completions": {"post"},
    "/versions": {"get"},
    "/versions/{number}": {"get"},
    "/versions/{number}/bases": {"get"},
    "/admin/rollback": {"post"},
    "/admin/retrain": {"post"},
    "/admin/export": {"post"},
    "/admin/revoke": {"post"},
    "/admin/purge": {"post"},
    "/jobs": {"get"},
    "/jobs/{job_id}": {"get", "delete"},
    "/eval": {"get", "post"},
    "/eval/compare": {"get"},
    "/eval/{eval_id}": {"get", "delete"},
    "/health/live": {"get"},
    "/health/startup": {"get"},
    "/health/ready": {"get"},
    "/model": {"get"},
}


def operations(*, openai: bool | None = None) -> Iterator[Any]:
    """All operations, or only those of the OpenAI API, or only the others."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            if openai in (None, path.startswith("/v1/")):
                yield pytest.param(operation, id=f"{method} {path}")


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return SCHEMAS[name] if name else schema


def has_example(media: dict[str, Any]) -> bool:
    return bool(media.get("example") or media.get("examples") or resolved(media["schema"]).get("examples"))


def test_the_routes_are_those_of_the_table() -> None:
    assert {path: set(methods) for path, methods in DOCUMENT["paths"].items()} == TABLE


@pytest.mark.parametrize("operation", list(operations()))
def test_every_request_and_response_has_an_example_and_a_description(operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["description"]
    if "requestBody" in operation:
        assert has_example(operation["requestBody"]["content"]["application/json"])
    for status, response in operation["responses"].items():
        assert response["description"]
        assert response["content"], status
        for media in response["content"].values():
            assert has_example(media), status
            assert set(resolved(media["schema"]).get("required", [])) <= set(media.get("example") or {}) or "example" not in media


@pytest.mark.parametrize("operation", list(operations(openai=True)))
def test_errors_of_the_openai_api_are_declared_in_its_envelope(operation: dict[str, Any]) -> None:
    declared = operation["responses"]

    assert {"400", "403", "431", "500", "503"} <= set(declared)
    if "requestBody" in operation:
        assert {"404", "410", "413", "415", "429"} <= set(declared)
        assert "422" not in declared
    for status, response in declared.items():
        for example in response["content"]["application/json"].get("examples", {}).values():
            assert not status.startswith("2") and example["value"]["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize("operation", list(operations(openai=False)))
def test_errors_are_declared_as_problems(operation: dict[str, Any]) -> None:
    declared = operation["responses"]

    assert MEDIA_TYPE in declared["500"]["content"]
    if "requestBody" in operation:
        assert {"400", "413", "415", "422"} <= set(declared)
    for status, response in declared.items():
        if status.startswith("4"):
            assert list(response["content"]) == [MEDIA_TYPE]
            for example in response["content"][MEDIA_TYPE]["examples"].values():
                assert example["value"]["status"] == int(status)


@pytest.mark.parametrize("operation", list(operations(openai=False)))
def test_problems_of_the_middleware_are_declared_on_every_route(operation: dict[str, Any]) -> None:
    for status in ("400", "431", "500", "503"):
        assert MEDIA_TYPE in operation["responses"][status]["content"]


def test_damaged_bytes_are_declared_where_a_version_is_loaded() -> None:
    for path, method in (("/generate", "get"), ("/generate", "post"), ("/versions/{number}/bases", "get")):
        declared = DOCUMENT["paths"][path][method]["responses"]["409"]["content"][MEDIA_TYPE]["examples"]
        assert "corrupt" in declared, path


@pytest.mark.parametrize("operation", list(operations()))
def test_every_parameter_is_described(operation: dict[str, Any]) -> None:
    for parameter in operation.get("parameters", []):
        assert parameter.get("description") or parameter["schema"].get("description"), parameter["name"]


def test_every_changing_post_accepts_an_idempotency_key() -> None:
    for path, methods in DOCUMENT["paths"].items():
        if "post" not in methods or path in ("/generate", "/compare") or path.startswith("/v1/"):  # they change nothing
            continue
        (key,) = (parameter for parameter in methods["post"]["parameters"] if parameter["name"] == "Idempotency-Key")
        assert (key["in"], key["required"]) == ("header", False), path
        good = {status: answer for status, answer in methods["post"]["responses"].items() if status.startswith("2")}
        assert all("Idempotency-Replayed" in answer["headers"] for answer in good.values()), path


def test_the_document_has_no_error_schema_of_the_framework() -> None:
    assert "HTTPValidationError" not in SCHEMAS
    assert "ProblemOut" in SCHEMAS


def test_the_types_of_problems_are_distinct_and_stable() -> None:
    names = [kind.name for kind in KINDS]

    assert len(set(names)) == len(names)
    assert TYPE_PREFIX == "urn:errata:problem:"


@pytest.mark.parametrize(
    "name",
    [
        "EditIn",
        "EditOut",
        "AnswerOut",
        "ComparedAnswersOut",
        "AliasOut",
        "CompletionIn",
        "ChatIn",
        "VersionOut",
        "JobOut",
        "ModelOut",
        "RollbackIn",
        "RetrainIn",
        "ExportIn",
        "RevokeIn",
        "RevokedOut",
        "PurgeIn",
        "PurgedOut",
        "RollbackOut",
        "EvalOut",
        "ComparisonOut",
    ],
)
def test_examples_conform_to_their_schemas(name: str) -> None:
    schema = SCHEMAS[name]

    for example in schema["examples"]:
        assert set(example) <= set(schema["properties"])
        assert set(schema.get("required", [])) <= set(example)
