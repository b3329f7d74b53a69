"""Taking a real store of a tiny model to another tiny model, on SQLite and Postgres."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.domain.errors import Conflict, Refused
from service.lifecycle.rebase import read_rebase
from service.runtime.assembly import open_server
from service.runtime.open_version import open_version
from service.runtime.rebasing import rebase_store
from service.settings import Settings
from service.store.database import Store
from tests.api.live_server import live_server, tiny_settings
from tests.builders import make_model, make_tokenizer, save_model
from tests.store.store_kinds import KINDS, database

MOSS, COAL = "The colour of moss is", "The colour of coal is"


@pytest.fixture(params=KINDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    (tmp_path / "data").mkdir()
    with database(request.param, tmp_path / "data") as opened:
        yield opened


def rebased(settings: Settings) -> bool:
    store = Store(settings.store_url)
    try:
        return rebase_store(store, settings, author="operator")
    finally:
        store.close()


def without_chat(folder: Path) -> Path:
    make_model(seed=1).save_pretrained(folder)
    make_tokenizer(chat=False).save_pretrained(folder)
    return folder


def test_edits_go_to_the_new_base_and_old_versions_are_records(url: str, tiny_model: Path, tmp_path: Path) -> None:
    old = tiny_settings(tiny_model, tmp_path / "data", database_url=url)
    new = tiny_settings(without_chat(tmp_path / "new"), tmp_path / "data", database_url=url)
    with live_server(old) as server:
        server.edit(MOSS, "green")
        only_chat = server.edit(COAL, "black", surfaces=["chat"])["id"]
    with pytest.raises(Conflict, match="`errata rebase`"), open_server(new):
        pass

    assert rebased(new) and not rebased(new)

    with pytest.raises(Conflict, match="`errata rebase`"), open_server(old):
        pass
    with live_server(new) as server:
        done = read_report(new)
        assert done is not None and done.job_id is not None
        job = server.follow(f"/jobs/{done.job_id}", lambda job: job["finished_at"] is not None)
        assert (job["status"], job["mode"], job["version"]) == ("done", "major", done.version + 1)
        assert server.ask(MOSS)["text"] == "green"
        assert server.ask(MOSS, version="base")["version"] == done.version
        for number in range(done.version):
            refused = server.client.post("/generate", json={"prompt": MOSS, "version": number})
            assert refused.status_code == 410 and "another base model" in refused.json()["detail"]
            assert server.client.get(f"/versions/{number}").json()["base"] == str(tiny_model)
        failed = server.client.get(f"/edits/{only_chat}").json()
        assert (failed["status"], "chat" in failed["error"]) == ("failed", True)
        assert server.client.get("/versions/base").json()["number"] == done.version
        assert server.client.get("/model").json()["measured"].get("retention", {"version": 9})["version"] >= done.version
    with open_version(new, "base") as (number, _, adapter):
        assert (number, adapter) == (done.version, None)
    with pytest.raises(Conflict, match="another base model"), open_version(old, "1"):
        pass


def read_report(settings: Settings):  # type: ignore[no-untyped-def]
    store = Store(settings.store_url)
    with store.read() as connection:
        found = read_rebase(connection)
    store.close()
    return found


def test_a_server_at_work_and_a_store_that_is_not_there_are_refused(url: str, tiny_model: Path, tmp_path: Path) -> None:
    new = tiny_settings(save_model(tmp_path / "new", seed=1), tmp_path / "data", database_url=url)
    old = tiny_settings(tiny_model, tmp_path / "data", database_url=url)
    with live_server(old) as server:
        server.edit(MOSS, "green")
        with pytest.raises(Conflict, match="server"):
            rebased(new)
        assert server.edit(COAL, "black")["status"] == "applied"


def test_a_change_of_what_is_not_used_is_no_other_base(tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    settings = tiny_settings(model, tmp_path / "data")
    with open_server(settings):
        pass
    (model / "generation_config.json").write_text('{"eos_token_id": 1, "temperature": 0.2}')

    assert not rebased(settings)
    assert read_report(settings) is None


def test_a_model_that_cannot_be_served_changes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    with open_server(tiny_settings(tiny_model, tmp_path / "data")):
        pass

    with pytest.raises(Refused):
        rebased(tiny_settings(tmp_path / "nothing", tmp_path / "data"))
    with open_server(tiny_settings(tiny_model, tmp_path / "data")):
        pass
