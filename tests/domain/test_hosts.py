"""Hosts as headers and settings write them."""

import pytest

from service.domain.hosts import Host, parse_origin


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("127.0.0.1:80", Host("127.0.0.1", 80)),
        ("[::1]:80", Host("[::1]", 80)),
        ("[::1]", Host("[::1]")),
        ("[0:0:0:0:0:0:0:1]", Host("[::1]")),
        ("LocalHost", Host("localhost")),
        ("errata.default.svc", Host("errata.default.svc")),
    ],
)
def test_a_host_is_a_name_and_perhaps_a_port(text: str, host: Host) -> None:
    assert Host.of(text) == host


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":80",
        "a b",
        "a/b",
        "http://a",
        "a@b",
        "a,b",
        "*",
        "*.example",
        "a..b",
        "a.",
        "[::1",
        "[::g]",
        "::1",
        "a:b",
        "a:",
        "x" * 301,
    ],
)
def test_an_invalid_host_is_none(text: str) -> None:
    assert Host.of(text) is None


@pytest.mark.parametrize(
    ("named", "other", "covers"),
    [
        ("a.example", "a.example", True),
        ("a.example", "a.example:8443", True),
        ("a.example:8443", "a.example:8443", True),
        ("a.example:8443", "a.example", False),
        ("a.example:8443", "a.example:8000", False),
        ("a.example:443", "a.example", True),
        ("a.example", "b.a.example", False),
        ("a.example", "a.example.evil", False),
    ],
)
def test_a_name_without_a_port_stands_for_every_port(named: str, other: str, covers: bool) -> None:
    first, second = Host.of(named), Host.of(other)
    assert first is not None
    assert second is not None
    assert first.covers(second) is covers


@pytest.mark.parametrize(
    "text", ["null", "", "a.example", "file://", "chrome-extension://abc", "http://a.example/x", "https://u@a"]
)
def test_an_invalid_origin_is_none(text: str) -> None:
    assert parse_origin(text) is None


def test_an_origin_loses_the_port_of_its_scheme() -> None:
    assert parse_origin("https://a.example:443") == ("https", Host("a.example"))
    assert parse_origin("http://a.example:443") == ("http", Host("a.example", 443))
