"""The OpenAPI document of the service, made from the declarations of its routes.

FastAPI adds a 422 with a schema of its own to every route. The service answers problems, so that schema is removed.
"""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service import __version__
from service.api.openai_api.documents import declare_errors
from service.api.problems import (
    BAD_HOST,
    CROSS_ORIGIN,
    HEAD_TOO_LARGE,
    INTERNAL,
    MALFORMED,
    MEDIA,
    MEDIA_TYPE,
    TOO_LARGE,
    UNAVAILABLE,
    ProblemOut,
    responses,
)

DESCRIPTION = """\
A language model whose facts can be corrected while it serves. About a second after an edit is posted, the model answers with it.
All other answers stay as they were. An edit is stored, has an author, and can be taken back.

Errors are RFC 9457 problems (`application/problem+json`) with a stable `type`. They name the field at fault and never repeat the
request; under `/v1` they have the envelope of the OpenAI API. Lists answer `{items, next}`; `next` is the cursor of the next
page.
"""


def describe(app: FastAPI) -> None:
    """Give `app` an OpenAPI document that declares its problems and no errors of the framework."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title="Errata", version=__version__, description=DESCRIPTION, routes=app.routes)
            _replace_validation_errors(document)
            declare_errors(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _replace_validation_errors(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    problem = ProblemOut.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= problem.pop("$defs", {}) | {"ProblemOut": problem}
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for schema in schemas.values():
        for example in schema.get("examples", ()):
            _put_nulls_back(example, schema)
    _give_pages_examples(schemas)
    for operations in document["paths"].values():
        for operation in operations.values():
            _declare_common(operation)
            for response in operation["responses"].values():
                _complete_example(response, schemas)


def _declare_common(operation: dict[str, Any]) -> None:
    """Declare the problems of every route (host, origin, head, failure, overload), and those of a body where there is one."""
    declared = operation["responses"]
    if MEDIA_TYPE not in declared.get("422", {}).get("content", {}):
        declared.pop("422", None)
    common = [BAD_HOST, CROSS_ORIGIN, HEAD_TOO_LARGE, INTERNAL, UNAVAILABLE]
    if "requestBody" in operation:
        common += [MALFORMED, TOO_LARGE, MEDIA]
    for status, response in responses(*common).items():
        existing = declared.setdefault(str(status), response)
        problems = existing["content"].setdefault(MEDIA_TYPE, response["content"][MEDIA_TYPE])
        problems["examples"] |= response["content"][MEDIA_TYPE]["examples"]


def _give_pages_examples(schemas: dict[str, Any]) -> None:
    """Give the schema of a page the first example of its item."""
    for schema in schemas.values():
        item = schema.get("properties", {}).get("items", {}).get("items", {}).get("$ref", "").rpartition("/")[2]
        if "next" in schema.get("properties", {}) and schemas.get(item, {}).get("examples"):
            schema["examples"] = [{"items": schemas[item]["examples"][:1], "next": None}]


def _put_nulls_back(example: dict[str, Any], schema: dict[str, Any]) -> None:
    """Restore the null members of an example, which FastAPI leaves out."""
    for name in schema.get("required", ()):
        example.setdefault(name, None)


def _complete_example(response: dict[str, Any], schemas: dict[str, Any]) -> None:
    media = response.get("content", {}).get("application/json", {})
    schema = schemas.get(media.get("schema", {}).get("$ref", "").rpartition("/")[2], {})
    example = media.get("example")
    if not example:
        return
    if "items" in example and schema.get("examples"):
        media["example"] = schema["examples"][0]
    else:
        _put_nulls_back(example, schema)
