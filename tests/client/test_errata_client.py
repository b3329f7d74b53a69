"""Both clients against a real server: every call, lists page by page, following, and problems."""

import asyncio
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.api import problems
from service.client import calls, following
from service.client.call_methods import AsyncCall, AsyncListing, BlockingCall, BlockingListing
from service.client.errata_client import AsyncErrataClient, ErrataClient
from service.client.errors import ServerProblem, TimedOut, Unreachable
from service.client.local_server import free_port
from service.domain.errors import Conflict, Refused
from service.runtime.app import create_app
from service.settings import Settings
from tests.api.live_server import LiveServer, live_server, tiny_settings
from tests.builders import save_model
from tests.client.scripted_network import ScriptedNetwork

ROOT = Path(__file__).parent.parent.parent
MOSS = "The colour of moss is"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("client")
    with live_server(tiny_settings(save_model(folder / "tiny", "llama"), folder / "data")) as live:
        yield live


@pytest.fixture
def url(server: LiveServer) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture
def client(url: str) -> Iterator[ErrataClient]:
    with ErrataClient(url) as client:
        yield client


def test_both_clients_have_every_call() -> None:
    public = {
        function
        for module in (calls, following)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if not name.startswith("_") and function.__module__ == module.__name__
    }

    blocking = {found.call for found in vars(ErrataClient).values() if isinstance(found, BlockingCall | BlockingListing)}
    asynchronous = {found.call for found in vars(AsyncErrataClient).values() if isinstance(found, AsyncCall | AsyncListing)}

    assert blocking == asynchronous == public


def test_every_operation_of_the_api_has_a_call() -> None:
    network = ScriptedNetwork(*(httpx.Response(200, json={"items": [], "next": None}) for _ in range(30)))
    client = network.client()
    client.post_edit({"prompt": "a", "target": "b"})
    client.post_edits([{"prompt": "a", "target": "b"}])
    client.get_edit("1")
    list(client.list_edits())
    client.retract("1")
    client.generate("a")
    list(client.list_versions())
    client.get_version(1)
    client.get_bases(1)
    client.rollback(0, "why")
    client.retrain("why")
    client.export()
    client.revoke("local", "2026-11-20T12:00:00Z", "why")
    client.purge(["1"])
    list(client.list_jobs())
    client.get_job("1")
    client.cancel_job("1")
    client.evaluate()
    list(client.list_evaluations())
    client.get_evaluation("1")
    client.cancel_evaluation("1")
    client.compare_versions([1, 2])
    client.ask_versions("x", ["base", "head"])
    client.list_aliases()
    client.get_alias("1")
    client.set_alias("1", 1)
    client.remove_alias("1")
    client.get_model()
    for probe in ("live", "startup", "ready"):
        client.get_health(probe)  # type: ignore[arg-type]

    sent = {(request.method.lower(), request.url.path) for request in network.requests}
    paths = create_app(Settings()).openapi()["paths"]
    names = ("edit_id", "job_id", "eval_id", "number", "alias")
    operations = {(method, path) for path, methods in paths.items() for method in methods} - {("get", "/generate")}
    operations = {(method, path) for method, path in operations if not path.startswith("/v1/")}  # these have clients of their own
    for name in names:
        operations = {(method, path.replace(f"{{{name}}}", "1")) for method, path in operations}
    assert sent == operations
    changing = [one for one in network.requests if one.method == "POST" and one.url.path not in ("/generate", "/compare")]
    assert all(request.headers["Idempotency-Key"] for request in changing)


def test_an_edit_is_posted_followed_asked_retracted_and_purged(client: ErrataClient) -> None:
    posted = client.post_edit({"prompt": MOSS, "target": "green"})
    edit = client.wait_for_edit(posted["id"])
    answer = client.generate(MOSS, max_new_tokens=8)

    assert (edit["status"], answer["text"]) == ("applied", "green")
    assert client.generate(MOSS, max_new_tokens=8, version="base")["text"] != "green"
    assert client.retract(edit["id"], wait_s=30)["status"] == "retracted"
    client.wait_for_refits()
    assert client.generate(MOSS, max_new_tokens=8)["text"] != "green"
    assert client.purge([edit["id"]])["rows"] > 0


def test_several_edits_are_listed_page_by_page_newest_first(client: ErrataClient) -> None:
    posted = client.post_edits([{"prompt": f"The colour of {name} is", "target": "blue"} for name in ("a", "b", "c")], wait_s=60)

    listed = [edit["id"] for edit in client.list_edits(limit=1)]

    assert listed[:3] == [edit["id"] for edit in reversed(posted["items"])]
    assert len(listed) == len(set(listed)) == len(list(client.list_edits()))


def test_a_retrain_and_an_evaluation_are_followed_to_their_end(client: ErrataClient) -> None:
    client.post_edit({"prompt": "The colour of ink is", "target": "blue"}, wait_s=60)
    states: list[float] = []

    job = client.follow_job(client.retrain("test"), on_progress=lambda job: states.append(job["progress"]))
    evaluation = client.follow_evaluation(client.evaluate("live", version=job["version"] or 0))

    assert (job["status"], states[-1]) == ("done", 1.0)
    assert evaluation["result"] is not None and evaluation["result"]["edits"] >= 1
    assert [found["id"] for found in client.list_evaluations(version=job["version"])] == [evaluation["id"]]
    assert client.get_version(job["version"] or 0)["kind"] == "locft"


def test_a_rollback_is_refused_where_the_head_has_moved(client: ErrataClient) -> None:
    epoch = client.get_model()["epoch"]

    assert client.rollback(0, "test", expected_epoch=epoch)["restored"] == 0
    with pytest.raises(ServerProblem) as caught:
        client.rollback(0, "test", expected_epoch=epoch)

    assert caught.value.status == 412


def test_a_problem_has_its_status_type_title_sentence_and_fields(client: ErrataClient) -> None:
    with pytest.raises(ServerProblem) as caught:
        client.post_edit({"prompt": "a"})  # type: ignore[typeddict-item]

    problem = caught.value
    assert (problem.status, problem.type) == (422, "urn:errata:problem:invalid")
    assert problem.title == problems.INVALID.title
    assert str(problem) == problem.detail == "target is missing"
    assert problem.fields == ({"field": "target", "detail": "target is missing"},)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"title": "no detail"}', b""])
def test_an_answer_that_is_no_problem_document_is_reported_by_its_status(body: bytes) -> None:
    with pytest.raises(ServerProblem, match=r"^the server answered 502$"):
        ScriptedNetwork(httpx.Response(502, content=body)).client().get_model()


def test_an_answer_that_is_not_json_is_a_sentence() -> None:
    with pytest.raises(ServerProblem, match=r"^the server's answer is not JSON$"):
        ScriptedNetwork(httpx.Response(200, content=b"<html>")).client().get_model()


def test_the_health_of_a_server_that_is_not_ready_is_read_and_not_waited_for() -> None:
    network = ScriptedNetwork(httpx.Response(503, json={"status": "unavailable", "checks": {"worker": "has died"}}))

    assert network.client().get_health()["checks"] == {"worker": "has died"}
    assert network.pauses == []


def test_following_ends_at_its_time_limit() -> None:
    network = ScriptedNetwork(*(httpx.Response(200, json={"id": "1", "status": "queued"}) for _ in range(5)))

    with pytest.raises(TimedOut, match=r"^the edit did not end within 0 s$"):
        network.client().wait_for_edit("1", timeout_s=0)


@pytest.mark.parametrize(
    ("error", "sentence"), [("it was not accepted", "it was not accepted"), (None, "the retrain was failed")]
)
def test_a_job_that_did_not_end_well_is_a_conflict_with_its_reason(error: str | None, sentence: str) -> None:
    job = {"kind": "retrain", "status": "failed", "error": error, "finished_at": "2026-11-20T12:00:00Z"}

    with pytest.raises(Conflict, match=rf"^{sentence}$"):
        ScriptedNetwork(httpx.Response(200, json=job)).client().follow_job("1")


@pytest.mark.parametrize("address", ["", "127.0.0.1:8000", "ftp://server", "http://", "http://a:b"])
def test_a_client_of_no_address_is_refused(address: str) -> None:
    with pytest.raises(Refused, match="address"):
        ErrataClient(address)


def test_a_port_on_which_nothing_listens_is_reported_at_once() -> None:
    with ErrataClient(f"http://127.0.0.1:{free_port()}") as client, pytest.raises(Unreachable, match="ConnectError"):
        client.get_model()


def test_the_asynchronous_client_does_the_same(url: str) -> None:
    async def work() -> tuple[str, str, list[str], str]:
        async with AsyncErrataClient(url) as client:
            edit = await client.wait_for_edit(
                (await client.post_edit({"prompt": "The colour of tar is", "target": "black"}))["id"]
            )
            answer = await client.generate("The colour of tar is", max_new_tokens=8)
            listed = [found["id"] async for found in client.list_edits(limit=1)]
            try:
                await client.get_edit("nobody")
            except ServerProblem as problem:
                return edit["id"], answer["text"], listed, problem.title
            raise AssertionError("the edit is not there")

    edit_id, text, listed, title = asyncio.run(work())

    assert text == "black"
    assert listed[0] == edit_id and len(listed) == len(set(listed))
    assert title == problems.NOT_FOUND.title


def test_the_client_loads_neither_torch_nor_the_server() -> None:
    code = "import sys, json, service.client.errata_client; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True).stdout)

    assert {"torch", "fastapi", "pydantic", "sqlalchemy", "transformers"} & set(loaded) == set()
    rooms = {name.split(".")[1] for name in loaded if name.startswith("service.")}
    assert rooms == {"client", "domain"}


def test_the_example_of_the_readme_works_as_it_stands(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    section = (ROOT / "README.md").read_text().partition("## From Python\n")[2]
    example = section.partition("```python\n")[2].partition("```")[0]
    assert "http://127.0.0.1:8000" in example

    exec(example.replace("http://127.0.0.1:8000", url), {})  # noqa: S102 - the example is ours

    assert capsys.readouterr().out == "applied Sydney\n"


def test_the_example_of_the_readme_for_openai_s_client_works_as_it_stands(
    url: str, client: ErrataClient, capsys: pytest.CaptureFixture[str]
) -> None:
    edit = client.wait_for_edit(client.post_edit({"prompt": "The capital of Australia is", "target": "Sydney"})["id"])
    example = (ROOT / "README.md").read_text().partition("from openai import")[2].partition("```")[0]

    example = example.replace("http://127.0.0.1:8000", url).replace("atlas", "tiny")
    exec("from openai import" + example, {})  # noqa: S102 - the example is ours

    edited, base = capsys.readouterr().out.split("\n", 1)
    assert edited == f"tiny@v{client.get_model()['head']}  Sydney"
    assert base.startswith("tiny@v0 ") and "Sydney" not in base
    assert edit["status"] == "applied"
