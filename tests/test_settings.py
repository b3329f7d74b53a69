"""Settings: refused names and values, old names of settings, and secrets that are never shown."""

import json
from pathlib import Path

import pytest

from service.cli.settings_table import markdown
from service.domain.errors import Refused
from service.settings import (
    Settings,
    environment_of,
    environment_without_settings,
    load_settings,
    mask_password,
    refuse_unknown_variables,
    variable_names,
)

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


def test_an_argument_wins_over_the_environment_and_none_is_no_argument(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_an_unknown_variable_is_refused_with_the_nearest_name(wrong: str, nearest: str) -> None:
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


@pytest.mark.parametrize("given", ["auto", "8", 8])
def test_threads_are_a_number_or_auto(given: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRATA_TORCH_THREADS", str(given))
    expected = None if given == "auto" else 8

    assert load_settings(torch_threads=given).asked_threads == load_settings().asked_threads == expected


@pytest.mark.parametrize("given", ["0", "257", "-1", "all", "", "1.5"])
def test_threads_of_another_kind_are_refused_in_one_sentence(given: str) -> None:
    with pytest.raises(Refused) as refused:
        load_settings(torch_threads=given)

    assert refused.value.message == "torch_threads: must be auto, or a number from 1 to 256"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_a_loopback_address_needs_no_permission(host: str) -> None:
    assert load_settings(host=host).is_loopback_only


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org", ""])
def test_a_public_address_is_refused_unless_allowed(host: str) -> None:
    with pytest.raises(Refused, match="--allow-public-bind"):
        load_settings(host=host)

    assert load_settings(host=host, allow_public_bind=True, allowed_hosts=("errata.example",)).host == host


def test_a_public_bind_without_allowed_hosts_is_refused() -> None:
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
def test_hosts_are_given_with_commas_or_as_json(monkeypatch: pytest.MonkeyPatch, written: str, hosts: tuple[str, ...]) -> None:
    monkeypatch.setenv("ERRATA_ALLOWED_HOSTS", written)

    settings = load_settings()

    assert settings.allowed_hosts == hosts
    monkeypatch.setenv("ERRATA_ALLOWED_HOSTS", environment_of(settings).get("ERRATA_ALLOWED_HOSTS", ""))
    assert load_settings().allowed_hosts == hosts


@pytest.mark.parametrize("wrong", ["http://errata.example", "errata.example/x", "*.example", "a b", "a:b:c", "[]x", "[1]"])
def test_a_malformed_host_is_refused(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("ERRATA_ALLOWED_HOSTS", wrong)

    with pytest.raises(Refused, match="allowed_hosts"):
        load_settings()


RENAMED = [("locft", "settle", "cooldown"), ("baft", "settled", "consolidated"), ("baft", "settled_pool", "consolidated_pool")]


def variable(group: str, name: str) -> str:
    return f"ERRATA_{group}__{name}".upper()


@pytest.mark.parametrize(("group", "old", "new"), RENAMED)
def test_a_renamed_setting_is_read_by_its_old_name(monkeypatch: pytest.MonkeyPatch, group: str, old: str, new: str) -> None:
    with monkeypatch.context() as environment:
        environment.setenv(variable(group, old), "7")
        by_variable = load_settings()
    with monkeypatch.context() as environment:
        environment.setenv(f"ERRATA_{group}".upper(), json.dumps({old: 7}))
        by_group = load_settings()
    by_call = load_settings(**{group: {old: 7}})

    by_new_name = load_settings(**{group: {new: 7}})
    assert getattr(getattr(by_new_name, group), new) == 7
    assert by_variable == by_group == by_call == by_new_name
    assert json.loads(environment_of(by_variable)[f"ERRATA_{group}".upper()])[new] == 7


@pytest.mark.parametrize(("group", "old", "new"), RENAMED)
@pytest.mark.parametrize("second", ["variable", "group", "call"])
def test_a_setting_under_both_its_names_is_refused_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, group: str, old: str, new: str, second: str
) -> None:
    monkeypatch.setenv(variable(group, old), "7")
    given: dict[str, object] = {}
    match second:
        case "variable":
            monkeypatch.setenv(variable(group, new), "8")
        case "group":
            monkeypatch.setenv(f"ERRATA_{group}".upper(), json.dumps({new: 8}))
        case "call":
            given = {group: {new: 8}}

    with pytest.raises(Refused) as refused:
        load_settings(**given)

    assert refused.value.message == f"{group}: {old} is the old name of {new}: give one of the two"


@pytest.mark.parametrize(("group", "old", "new"), RENAMED)
def test_the_table_of_settings_has_a_row_for_the_new_name_alone(group: str, old: str, new: str) -> None:
    rows = [line for line in markdown().splitlines() if line.startswith("| `ERRATA_")]

    assert sum(line.startswith(f"| `{variable(group, new)}` ") for line in rows) == 1
    assert not any(line.startswith(f"| `{variable(group, old)}` ") for line in rows)
    assert {variable(group, old), variable(group, new)} <= set(variable_names())


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().port = 1  # type: ignore[misc]


def test_secrets_are_not_printed() -> None:
    settings = Settings(database_url=f"postgresql://user:{SECRET}@host/db", redis_url=f"redis://:{SECRET}@host/0")  # type: ignore[arg-type]

    assert SECRET not in repr(settings) + str(settings) + settings.model_dump_json()
    assert SECRET in settings.store_url


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        (f"postgresql://ann:{SECRET}@db.example:5432/errata?password={SECRET}", "postgresql://ann:***@db.example:5432/errata"),
        (f"redis://:{SECRET}@cache:6379/0", "redis://:***@cache:6379/0"),
        ("sqlite:////srv/errata.db", "sqlite:////srv/errata.db"),
    ],
)
def test_a_masked_url_has_no_password(url: str, masked: str) -> None:
    assert mask_password(url) == masked


def test_models_are_kept_in_the_users_cache_folder_unless_another_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert load_settings().models_folder == tmp_path / "cache" / "errata" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_settings().models_folder == tmp_path / ".cache" / "errata" / "models"
    assert load_settings(models_dir=tmp_path).models_folder == tmp_path


def test_a_local_server_finds_the_models_of_this_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ERRATA_MODELS_DIR", str(tmp_path))
    monkeypatch.setenv("ERRATA_PORT", "1")

    kept = {name: value for name, value in environment_without_settings().items() if name.startswith("ERRATA_")}
    assert kept == {"ERRATA_MODELS_DIR": str(tmp_path)}


def test_a_variable_without_a_value_leaves_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEALTH_PORT", "PORT", "REDIS_URL", "TORCH_THREADS", "LIMITS__CONNECTIONS", "BAFT__RANK"):
        monkeypatch.setenv(f"ERRATA_{name}", "")

    assert load_settings() == load_settings(health_port=None)
    assert load_settings().port == 8000
