"""Settings: what is refused at start, and what is never shown."""

import pytest

from service.domain.errors import Refused
from service.settings import Settings, environment_of, load_settings, mask_password, refuse_unknown_variables, variable_names

SECRET = "hunter2-do-not-show"


def test_every_field_of_every_group_is_a_variable() -> None:
    names = set(variable_names())

    assert {
        "ERRATA_PORT",
        "ERRATA_DATABASE_URL",
        "ERRATA_REDIS_URL",
        "ERRATA_METHOD",
        "ERRATA_LIMITS__BODY_BYTES",
        "ERRATA_BAFT",
    } <= names


def test_a_variable_sets_a_field_of_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRATA_LIMITS__BODY_BYTES", "2000")
    monkeypatch.setenv("ERRATA_METHOD", "locft")

    settings = load_settings()

    assert (settings.limits.body_bytes, settings.method) == (2000, "locft")


def test_what_is_given_wins_over_the_environment_and_none_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRATA_PORT", "9001")

    assert load_settings(port=9002).port == 9002
    assert load_settings(port=None).port == 9001


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("ERRATA_PROT", "ERRATA_PORT"),
        ("ERRATA_LIMITS__BODY_BYTE", "ERRATA_LIMITS__BODY_BYTES"),
        ("errata_metod", "ERRATA_METHOD"),
    ],
)
def test_an_unknown_variable_is_refused_and_the_nearest_name_suggested(wrong: str, nearest: str) -> None:
    with pytest.raises(Refused, match=nearest) as refused:
        refuse_unknown_variables({wrong: SECRET, "PATH": "/bin"})

    assert SECRET not in refused.value.message


def test_an_unknown_name_in_a_call_is_refused() -> None:
    with pytest.raises(Refused, match="the nearest one is port"):
        load_settings(prot=1)


@pytest.mark.parametrize(
    "given",
    [
        {"database_url": f"mysql://user:{SECRET}@host/db"},
        {"redis_url": f"http://:{SECRET}@host"},
        {"database_url": f"postgresql://user:{SECRET}@[::1"},
        {"database_url": f"postgresql://user:{SECRET}@host:port/db"},
        {"database_url": f"postgresql:{SECRET}"},
        {"database_url": f"sqlite://{SECRET}/errata.db"},
        {"redis_url": f"redis://:{SECRET}@[::1"},
        {"redis_url": f"redis://:{SECRET}@host:port/0"},
        {"port": SECRET},
        {"limits": {"body_bytes": SECRET}},
        {"window": {"soft": 9, "hard": 8}},
        {"reservoir": {"size": 5}},
        {"reservoir": {"size": 5, "callers": [SECRET + " "]}},
    ],
)
def test_a_wrong_value_is_refused_by_name_and_never_repeated(given: dict[str, object]) -> None:
    with pytest.raises(Refused) as refused:
        load_settings(**given)

    assert next(iter(given)) in refused.value.message
    assert SECRET not in refused.value.message


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machine_may_be_listened_on(host: str) -> None:
    assert load_settings(host=host).is_loopback_only


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org", ""])
def test_more_than_this_machine_is_refused_unless_allowed(host: str) -> None:
    with pytest.raises(Refused, match="--allow-public-bind"):
        load_settings(host=host)

    assert load_settings(host=host, allow_public_bind=True, allowed_hosts=("errata.example",)).host == host


def test_a_public_bind_without_the_names_of_its_clients_is_refused() -> None:
    with pytest.raises(Refused, match="--allowed-host"):
        load_settings(host="0.0.0.0", allow_public_bind=True)


@pytest.mark.parametrize(
    ("written", "hosts"),
    [
        ("errata.example, 10.0.0.5:8000", ("errata.example", "10.0.0.5:8000")),
        ('["errata.example", "*"]', ("errata.example", "*")),
        ("[fd00::5]:80,::1", ("[fd00::5]:80", "[::1]")),
        ("", ()),
    ],
)
def test_hosts_are_written_with_commas_or_as_json(monkeypatch: pytest.MonkeyPatch, written: str, hosts: tuple[str, ...]) -> None:
    monkeypatch.setenv("ERRATA_ALLOWED_HOSTS", written)

    settings = load_settings()

    assert settings.allowed_hosts == hosts
    monkeypatch.setenv("ERRATA_ALLOWED_HOSTS", environment_of(settings)["ERRATA_ALLOWED_HOSTS"])
    assert load_settings().allowed_hosts == hosts


@pytest.mark.parametrize("wrong", ["http://errata.example", "errata.example/x", "*.example", "a b", "a:b:c", "[]x", "[1]"])
def test_what_is_no_host_is_refused_as_one(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("ERRATA_ALLOWED_HOSTS", wrong)

    with pytest.raises(Refused, match="allowed_hosts"):
        load_settings()


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1  # type: ignore[misc]


def test_secrets_are_not_in_what_is_printed() -> None:
    settings = Settings(database_url=f"postgresql://user:{SECRET}@host/db", redis_url=f"redis://:{SECRET}@host/0")  # type: ignore[arg-type]

    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()
    assert SECRET in settings.store_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"postgresql://ann:{SECRET}@db.example:5432/errata?password={SECRET}", "postgresql://ann:***@db.example:5432/errata"),
        (f"redis://:{SECRET}@cache:6379/0", "redis://:***@cache:6379/0"),
        ("sqlite:////srv/errata.db", "sqlite:////srv/errata.db"),
    ],
)
def test_a_masked_url_has_no_password(url: str, shown: str) -> None:
    assert mask_password(url) == shown
