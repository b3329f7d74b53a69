"""The shipped model behind the real server: the example that `errata serve` prints, with real answers."""

from pathlib import Path

from service.settings import Settings
from tests.api.live_server import live_server


def test_an_edit_changes_every_wording_of_its_fact_and_no_other_answer(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, port=0, neutral={"sentences": 200, "held_out": 60})  # type: ignore[arg-type]
    prompt, others = "The capital of Australia is", {"The capital of Austria is": "Vienna", "The capital of France is": "Paris"}
    with live_server(settings) as server:
        before = server.ask(prompt)["text"]
        edit = server.edit(prompt, "Sydney")
        wordings = ("What is the capital of Australia?", "Which city is the capital of Australia?")
        heard = {wording: server.ask(wording)["text"] for wording in (prompt, *wordings)}
        answers = {other: server.ask(other)["text"] for other in others}

    assert before == "Canberra"
    assert edit["status"] == "applied"
    assert set(heard.values()) == {"Sydney"}
    assert answers == others
