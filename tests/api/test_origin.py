"""Requests from pages of other sites: the hosts that are answered, and the refusals, also with a public bind."""

from collections.abc import Iterator, Mapping

import httpx
import pytest
from fastapi import APIRouter

from service.settings import Settings
from tests.api.edge_server import edge_app, serve_edge

PUBLIC = Settings(host="0.0.0.0", allow_public_bind=True, allowed_hosts=("errata.example", "api.example:8443"))
EDIT = {"prompt": "The capital of Australia is", "target": "Sydney"}
OURS = {"Host": "errata.example", "Origin": "http://errata.example"}
PROBLEM = "urn:errata:problem:"


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """A client of an edge with the settings of a public bind, which still listens on this machine only."""
    app = edge_app(PUBLIC)
    router = APIRouter()

    @router.get("/generate")
    @router.get("/health/live")
    @router.delete("/edits/1")
    def answer() -> dict[str, str]:
        app.state.reached += 1
        return {}

    app.include_router(router)
    with serve_edge(app, Settings()) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        client.app = app  # type: ignore[attr-defined]
        yield client


def kind(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, "" if response.is_success else response.json()["type"].removeprefix(PROBLEM)


def post(client: httpx.Client, headers: Mapping[str, str] | list[tuple[str, str]]) -> tuple[int, str]:
    """The outcome of posting an edit. Checks that a refused request reached no route."""
    before = client.app.state.reached  # type: ignore[attr-defined]
    outcome = kind(client.post("/edits", json=EDIT, headers=headers))
    assert client.app.state.reached == before + (outcome[0] == 200)  # type: ignore[attr-defined]
    return outcome


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_dns_rebinding_is_refused_on_a_public_bind(client: httpx.Client, method: str) -> None:
    rebound = {"Host": "evil.example", "Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}

    assert kind(client.request(method, "/edits", headers=rebound)) == (400, "host")


@pytest.mark.parametrize(
    "host", ["errata.example", "ERRATA.example:9000", "api.example:8443", "localhost:8000", "127.0.0.1", "[::1]"]
)
def test_the_hosts_of_the_settings_and_of_this_machine_are_answered(client: httpx.Client, host: str) -> None:
    assert post(client, {"Host": host}) == (200, "")


@pytest.mark.parametrize(
    "host", ["api.example", "api.example:80", "errata.example.evil", "x.errata.example", "10.0.0.1", "*", ""]
)
def test_every_other_host_is_refused(client: httpx.Client, host: str) -> None:
    assert post(client, {"Host": host}) == (400, "host")


@pytest.mark.parametrize("path", ["/health/live"])
def test_health_checks_are_answered_on_any_host(client: httpx.Client, path: str) -> None:
    assert client.get(path, headers={"Host": "10.244.0.17:8000"}).status_code == 200
    assert client.post(path, headers={"Host": "10.244.0.17:8000"}).status_code == 400


@pytest.mark.parametrize(
    "foreign",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://errata.example.evil.example"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://localhost:3000"},
        {"Origin": "http://errata.example", "Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "anything"},
        {"Origin": "chrome-extension://abcdef"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_a_page_of_another_origin_changes_nothing(client: httpx.Client, method: str, foreign: dict[str, str]) -> None:
    path = "/edits/1" if method == "DELETE" else "/edits"

    answer = client.request(method, path, json=EDIT, headers={"Host": "errata.example"} | foreign)

    assert kind(answer) == (403, "origin")


def test_a_second_origin_does_not_hide_the_first(client: httpx.Client) -> None:
    both = [("Host", "errata.example"), ("Origin", "http://evil.example"), ("Origin", "http://errata.example")]

    assert post(client, both) == (403, "origin")
    assert post(client, [both[0], both[2], both[1]]) == (403, "origin")


@pytest.mark.parametrize(
    "own",
    [
        OURS,
        OURS | {"Sec-Fetch-Site": "same-origin"},
        {"Host": "errata.example", "Sec-Fetch-Site": "none"},
        {"Host": "localhost:8000", "Origin": "http://localhost:8000"},
        {"Host": "errata.example", "Origin": "https://errata.example:443"},
        {"Host": "127.0.0.1:8000", "Origin": "https://errata.example"},  # a proxy that writes a Host of its own
        {"Host": "errata.example"},
    ],
)
def test_the_own_page_and_clients_without_a_browser_may_post(client: httpx.Client, own: dict[str, str]) -> None:
    assert post(client, own) == (200, "")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_s_page_cannot_have_the_model_answer(client: httpx.Client, site: str) -> None:
    image = {"Host": "localhost", "Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    link = {"Host": "localhost", "Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    frame = link | {"Sec-Fetch-Dest": "iframe"}

    for path, headers in (("/generate", image), ("/generate", link), ("/generate", frame), ("/edits", image), ("/edits", frame)):
        assert kind(client.get(path, headers=headers)) == (403, "origin")


def test_a_link_from_another_site_may_be_followed(client: httpx.Client) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}

    assert client.get("/edits", headers=link).status_code == 200


def test_no_answer_has_cors_headers(client: httpx.Client) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST", "Host": "errata.example"}
    answers = [
        client.options("/edits", headers=headers),
        client.options("/edits", headers=headers | {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}),
        client.get("/edits", headers=headers),
        client.post("/edits", json=EDIT, headers=OURS),
    ]

    assert [answer.status_code for answer in answers] == [403, 403, 403, 200]
    for answer in answers:
        assert not any(name.startswith("access-control") for name in answer.headers)
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"


def test_with_any_host_allowed_foreign_pages_still_change_nothing() -> None:
    settings = Settings(host="0.0.0.0", allow_public_bind=True, allowed_hosts=("*",))
    with (
        serve_edge(edge_app(settings), Settings()) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        assert client.get("/edits", headers={"Host": "whatever.example"}).status_code == 200
        posted = client.post("/edits", json=EDIT, headers={"Host": "whatever.example", "Origin": "http://evil.example"})

    assert posted.status_code == 403
