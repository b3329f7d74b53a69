"""Models of Hugging Face by the real client and a hub on this machine: resolved, pinned, and refused in one sentence."""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download

from service.cli.doctor import _model
from service.domain.errors import Conflict, Refused, Unavailable
from service.models import hub as module
from service.models.find import FoundModel, find_model
from service.models.hub import HubReference, parse_reference, pin
from service.runtime.assembly import open_server
from service.store import heads
from service.store.database import Store
from service.store.migrate import upgrade
from tests.api.live_server import tiny_settings
from tests.builders import save_model
from tests.models.fake_hub import FakeHub, running_hub

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with running_hub() as running:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        client = partial(snapshot_download, endpoint=running.url, cache_dir=tmp_path / "hub", token=False)
        monkeypatch.setattr(module, "snapshot_download", client)
        yield running


def find(model: str, tmp_path: Path, *, may_ask: bool = True, pinned: str | None = None) -> FoundModel:
    return find_model(model, models_folder=tmp_path / "models", may_ask_hub=may_ask, pinned_name=pinned, say=lambda _step: None)


def test_a_branch_is_resolved_to_the_commit_whose_files_are_served(hub: FakeHub, tiny_model: Path, tmp_path: Path) -> None:
    commit = hub.push(tiny_model)

    for name in ("org/tiny", "org/tiny@main", f"org/tiny@{commit}"):
        found = find(name, tmp_path)
        assert found.name == f"org/tiny@{commit}"
        assert (found.folder / "config.json").read_bytes() == (tiny_model / "config.json").read_bytes()


def test_a_pinned_model_stays_when_its_branch_moves_and_needs_no_hub(hub: FakeHub, tiny_model: Path, tmp_path: Path) -> None:
    hub.push(tiny_model)
    first = find("org/tiny", tmp_path)
    hub.push(save_model(tmp_path / "other", seed=5))
    hub.asked.clear()

    assert find("org/tiny@main", tmp_path, pinned=first.name) == first
    assert hub.asked == []
    assert find("org/tiny", tmp_path) != first


def test_a_server_starts_again_with_the_commit_of_its_first_start(hub: FakeHub, tiny_model: Path, tmp_path: Path) -> None:
    commit = hub.push(tiny_model)
    settings = tiny_settings(Path("org/tiny"), tmp_path / "data", models_dir=tmp_path / "models")
    with open_server(settings) as first:
        name = first.base.name
    moved = hub.push(save_model(tmp_path / "other", seed=5))

    with open_server(settings) as second:
        assert second.base.name == name == f"org/tiny@{commit}"
        assert second.base.fingerprint == first.base.fingerprint
    with (
        pytest.raises(Conflict, match="another base model"),
        open_server(settings.model_copy(update={"model": f"org/tiny@{moved}"})),
    ):
        pass


def test_without_the_hub_only_its_cache_is_looked_into(hub: FakeHub, tiny_model: Path, tmp_path: Path) -> None:
    hub.push(tiny_model)
    with pytest.raises(Refused, match="ERRATA_HUB"):
        find("org/tiny", tmp_path, may_ask=False)
    assert hub.asked == []

    first = find("org/tiny", tmp_path)
    hub.asked.clear()

    assert find("org/tiny", tmp_path, may_ask=False) == first
    assert hub.asked == []


def test_what_the_hub_does_not_have_is_refused_in_a_sentence(hub: FakeHub, tiny_model: Path, tmp_path: Path) -> None:
    hub.push(tiny_model)
    with pytest.raises(Refused, match="no such revision"):
        find("org/tiny@no-such-branch", tmp_path)
    with pytest.raises(Refused, match="check its name"):
        find("org/no-such-model", tmp_path)


def test_a_hub_that_does_not_answer_is_a_sentence_that_names_the_setting(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unavailable, match="ERRATA_HUB"):
        find("org/tiny", tmp_path)


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("gpt2", HubReference("gpt2")),
        ("org/tiny", HubReference("org/tiny")),
        ("org/tiny@v1.0", HubReference("org/tiny", "v1.0")),
        ("/models/tiny", None),
        ("./tiny", None),
        ("../org/tiny", None),
        ("a/b/c", None),
        ("org/tiny@", None),
        ("org/ti ny", None),
    ],
)
def test_a_reference_is_told_from_a_path(text: str, reference: HubReference | None) -> None:
    assert parse_reference(text) == reference


@pytest.mark.parametrize(
    ("asked", "pinned", "taken"),
    [
        ("org/tiny", f"org/tiny@{OLD}", f"org/tiny@{OLD}"),
        ("org/tiny@main", f"org/tiny@{OLD}", f"org/tiny@{OLD}"),
        (f"org/tiny@{NEW}", f"org/tiny@{OLD}", f"org/tiny@{NEW}"),
        ("org/tiny", f"org/other@{OLD}", "org/tiny"),
        ("org/tiny", "org/tiny", "org/tiny"),
        ("org/tiny", "/models/tiny", "org/tiny"),
        ("org/tiny", None, "org/tiny"),
    ],
)
def test_the_pinned_commit_is_taken_unless_another_is_named(asked: str, pinned: str | None, taken: str) -> None:
    reference = parse_reference(asked)
    assert reference is not None

    assert str(pin(reference, pinned)) == taken


def test_a_store_that_was_not_pinned_yet_is_pinned_at_its_next_start(hub: FakeHub, tiny_model: Path, tmp_path: Path) -> None:
    commit = hub.push(tiny_model)
    store = Store(f"sqlite:///{tmp_path / 'errata.db'}")
    upgrade(f"sqlite:///{tmp_path / 'errata.db'}")
    with store.write() as connection:
        for name in ("org/tiny", f"org/tiny@{commit}", "/elsewhere/tiny"):
            head = heads.create_or_check(connection, fingerprint="f", name=name, author="a", now=datetime.now(UTC))
    store.close()

    assert head.base_name == f"org/tiny@{commit}"


@pytest.mark.parametrize(
    ("model", "verdict", "words"),
    [("smollm2", "bad", "errata models get smollm2"), ("/no/such/folder", "bad", "ORG/NAME"), ("org/tiny", "note", "ERRATA_HUB")],
)
def test_the_doctor_says_where_a_model_would_come_from(model: str, verdict: str, words: str, tmp_path: Path) -> None:
    finding = _model(tiny_settings(Path(model), tmp_path, models_dir=tmp_path / "models", hub=False))

    assert finding.verdict == verdict and words in finding.detail
