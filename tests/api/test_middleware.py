"""Requests that the HTTP edge refuses with problems, which name a field and repeat nothing of the request."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ValidationError

from service.api.schemas.edits import EditIn
from service.api.schemas.evaluations import CompareQuery, EvalIn
from service.api.schemas.generate import GenerateIn, GenerateQuery
from service.api.schemas.jobs import ExportIn
from service.api.strict_json import DEEPEST, depth_of, outside_of_texts
from service.api.text_types import check_json
from service.api.validation import to_faults
from service.settings import Settings
from tests.api.edge_server import connect, edge_app, read_all, serve_edge

SECRET = "XYZZY-do-not-echo"
EDIT = {"prompt": "The capital of Australia is", "target": "Sydney"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    settings = Settings(limits={"body_bytes": 10_000, "batch_body_bytes": 20_000})  # type: ignore[arg-type]
    app = edge_app(settings)
    with serve_edge(app, settings) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        client.app = app  # type: ignore[attr-defined]
        yield client


def check_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """Check the rules of all problems. Returns the problem of the answer."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert len(response.content) <= 2048
    assert SECRET not in response.text
    problem: dict[str, Any] = response.json()
    assert problem["type"].startswith("urn:errata:problem:")
    assert problem["status"] == status
    return problem


def post(client: httpx.Client, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post("/edits", content=content, headers=JSON)


def test_a_valid_edit_reaches_the_route(client: httpx.Client) -> None:
    response = post(
        client, EDIT | {"rephrases": ["one", {"prompt": "two", "train": False}], "metadata": {"a": [1, 2.5, None, True]}}
    )

    assert response.status_code == 200
    assert response.headers["x-content-type-options"] == "nosniff"
    assert len(response.headers["x-request-id"]) == 32


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \t\u200b\u2003"}, "prompt"),
        ({"target": " "}, "target"),
        ({"prompt": SECRET + "\x00"}, "prompt"),
        ({"subject": "x" * 501}, "subject"),
        ({"rephrases": "one"}, "rephrases"),
        ({"rephrases": ["x"] * 65}, "rephrases"),
        ({"rephrases": ["fine", {"prompt": " "}]}, "rephrases[1].prompt"),
        ({"rephrases": ["fine", {"prompt": "p", "train": 1}]}, "rephrases[1].train"),
        ({"locality": [{"prompt": "p", SECRET: 1}]}, "locality[0]"),
        ({"method": "rome"}, "method"),
        ({"locality": [["p"]]}, "locality[0]"),
        ({"surfaces": ["raw", SECRET]}, "surfaces[1]"),
        ({"metadata": [1]}, "metadata"),
        ({"metadata": {SECRET: "\x00"}}, "metadata"),
        ({"metadata": {SECRET + "\x00": 1}}, "metadata"),
        ({"metadata": {"n": 2**63}}, "metadata"),
        ({SECRET: 1}, "the body"),
    ],
)
def test_a_wrong_field_is_named_and_not_repeated(client: httpx.Client, change: dict[str, Any], field: str) -> None:
    reached = client.app.state.reached  # type: ignore[attr-defined]
    response = post(client, EDIT | change)

    assert check_problem(response, 422)["errors"][0]["field"] == field
    assert client.app.state.reached == reached  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("model", "value", "sentence"),
    [
        (EditIn, EDIT | {"rephrases": ["x", 3]}, "rephrases[1] must be text or an object with a prompt"),
        (EditIn, EDIT | {"method": "rome"}, "method must be 'auto', 'baft', 'locft' or 'lora'"),
        (
            GenerateIn,
            {"prompt": "x", "version": "HEAD"},
            "version must be a whole number, or must be a version's number, head, base, or an alias",
        ),
        (GenerateQuery, {"prompt": "x", "version": "01"}, "version must be a version's number, head, base, or an alias"),
        (EvalIn, {"edits": 3}, "edits must be 'live', 'none', a list of ids or a list of records"),
        (EvalIn, {"edits": "all"}, "edits must be 'live' or 'none'"),
        (EvalIn, {"edits": [EDIT, {}]}, "edits[1].prompt is missing"),
        (EvalIn, {"edits": ["a b"]}, "edits[0] must be an id: letters, digits and dashes, at most 64"),
        (CompareQuery, {"ids": "a"}, "ids must be 2 to 10 ids, separated by commas"),
        (CompareQuery, {}, "give either ids or versions"),
        (ExportIn, {"max_shard_size": "5"}, "max_shard_size must be a size such as 500MB (KB, MB or GB)"),
        (
            ExportIn,
            {"version": 0, "consolidate": True},
            "version must be head with consolidate: what the retrain publishes is exported",
        ),
    ],
)
def test_a_fault_names_the_field_and_all_that_is_allowed(model: type[BaseModel], value: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(value)

    details = [{**error, "loc": ("body", *error["loc"])} for error in caught.value.errors()]
    assert to_faults(details)[0].detail == sentence


@pytest.mark.parametrize("name", ["text", "live", "records", "word", "ids", "probe"])
def test_a_field_name_is_never_taken_for_a_form_name(name: str) -> None:
    (fault,) = to_faults([{"type": "missing", "loc": ("query", name)}])

    assert fault.field == name


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"null", 422),
        (b"[]", 422),
        (b"{", 400),
        (b'{"prompt": "a" "target": "b"}', 400),
        (b"\xff\xfe{", 400),
        (json.dumps(EDIT).encode("utf-16"), 400),
        (b"\xef\xbb\xbf{}", 400),
        (b'{"prompt": "a", "target": "b", "metadata": {"x": NaN}}', 422),
        (b'{"prompt": "a", "target": "b", "metadata": {"x": -Infinity}}', 422),
        (b'{"prompt": "a", "target": "b", "metadata": {"x": 1e999}}', 422),
        (b'{"prompt": "a", "target": "b", "metadata": {"x": ' + b"9" * 5000 + b"}}", 422),
        (b'{"prompt": "\\ud800", "target": "b"}', 422),
        (b'{"prompt": "a", "target": "b", "metadata": {"\\udfff": 1}}', 422),
        (b'{"prompt": "a", "target": "b", "\\udfff": 1}', 422),
        (b"[" * 5000, 422),
        (b'{"a":' * 40 + b"1" + b"}" * 40, 422),
    ],
)
def test_invalid_json_is_refused(client: httpx.Client, body: bytes, status: int) -> None:
    check_problem(post(client, body), status)


def test_of_equal_keys_the_last_one_counts(client: httpx.Client) -> None:
    assert post(client, b'{"prompt": 1, "prompt": "a", "target": "b"}').status_code == 200
    check_problem(post(client, b'{"prompt": "a", "target": "b", "target": 1}'), 422)


def test_a_surrogate_pair_is_one_valid_character(client: httpx.Client) -> None:
    assert post(client, b'{"prompt": "\\ud83d\\ude00", "target": "b"}').status_code == 200


def test_a_body_of_another_kind_is_refused(client: httpx.Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""):
        check_problem(client.post("/edits", content=json.dumps(EDIT), headers={"Content-Type": kind}), 415)
    assert (
        client.post("/edits", content=json.dumps(EDIT), headers={"Content-Type": "application/json; charset=utf-8"}).status_code
        == 200
    )


def test_a_body_over_its_limit_is_refused_with_and_without_a_length(client: httpx.Client) -> None:
    body = json.dumps(EDIT | {"metadata": {"x": "y" * 9_950}}).encode()
    assert len(body) > 10_000

    check_problem(client.post("/edits", content=body, headers=JSON), 413)
    check_problem(client.post("/edits", content=iter([body[:5_000], body[5_000:]]), headers=JSON), 413)
    assert (
        client.post(
            "/edits/batch", content=json.dumps({"edits": [EDIT | {"metadata": {"x": "y" * 9_950}}]}), headers=JSON
        ).status_code
        == 200
    )


def test_a_batch_names_the_edit_at_fault_and_at_most_eight(client: httpx.Client) -> None:
    wrong = [EDIT, *[{"prompt": SECRET}] * 20]
    problem = check_problem(client.post("/edits/batch", json={"edits": wrong}), 422)

    assert problem["errors"][0] == {"field": "edits[1].target", "detail": "edits[1].target is missing"}
    assert len(problem["errors"]) == 8


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "limit=true", f"status={SECRET}", f"{SECRET}=1", "limit=1e3"]
)
def test_a_wrong_query_is_refused(client: httpx.Client, query: str) -> None:
    check_problem(client.get(f"/edits?{query}"), 422)


def test_unknown_addresses_and_methods_are_problems_too(client: httpx.Client) -> None:
    check_problem(client.get(f"/{SECRET}"), 404)
    check_problem(client.get("/edits/"), 404)
    assert "allow" in client.put("/edits").headers
    check_problem(client.put("/edits"), 405)


@pytest.mark.parametrize(
    ("name", "status"), [("stale", 412), ("gone", 410), ("long", 422), ("later", 503), ("corrupt", 409), ("bug", 500)]
)
def test_every_error_has_its_status(client: httpx.Client, name: str, status: int) -> None:
    response = client.get(f"/errors/{name}")

    problem = check_problem(response, status)
    assert "secret" not in response.text
    if name == "later":
        assert response.headers["retry-after"] == "3"
    if name == "long":
        assert problem["errors"] == [{"field": "prompt", "detail": "prompt must have at most 3 tokens"}]


def test_a_request_keeps_the_id_of_its_client_if_it_is_safe_to_log(client: httpx.Client) -> None:
    def answered_id(*ids: str) -> str:
        headers = [(b"X-Request-ID", request_id.encode()) for request_id in ids]
        return str(client.get("/edits", headers=headers).headers["x-request-id"])

    for sound in ("a", "01936b0e-6f2a-7c3d_9a41.7", "x" * 64):
        assert answered_id(sound) == sound
    for wrong in (("",), ("x" * 65,), ("a b",), ('a"b',), ("é",), ("a", "b")):
        assert len(answered_id(*wrong)) == 32


def test_a_foreign_host_name_is_refused_while_listening_on_this_machine(client: httpx.Client) -> None:
    check_problem(client.get("/edits", headers={"Host": "evil.example"}), 400)
    assert client.get("/edits", headers={"Host": "localhost:1"}).status_code == 200


def test_metadata_may_not_be_long() -> None:
    with pytest.raises(ValueError, match="16000"):
        check_json({"long": "x" * 20_000})


def test_brackets_in_text_do_not_count_as_nesting() -> None:
    assert depth_of(outside_of_texts(b'{"a": "[[[[[ \\" [[[", "b": [[1], [2]]}')) == 3
    assert depth_of(b"[" * DEEPEST + b"]" * DEEPEST) == DEEPEST


def test_a_body_with_two_lengths_is_refused_and_the_connection_closed(client: httpx.Client) -> None:
    request = (
        b"POST /edits HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /edits HTTP/1.1\r\nHost: localhost\r\n\r\n"
    )
    with connect(client.base_url.port or 0) as connection:
        connection.sendall(request)
        received = read_all(connection)

    assert received.startswith(b"HTTP/1.1 400 ") and received.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in received.lower()
