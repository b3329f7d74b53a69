"""A ground that was interrupted goes on where it was, and comes out as if it had not been."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from service.atlas import weights_path
from service.bench.ground import asking
from service.bench.ground.answer_journal import AnswerJournal
from service.bench.ground.asking import Ask, BaseAnswers
from service.bench.ground.facts import choose_facts, read_table
from service.bench.ground.generator import GroundOptions, build_ground
from service.bench.ground.records import Ground
from service.lm.base import load_base
from service.lm.overlay import View, make_view

ABOUT = {"model": "a fingerprint", "dtype": "torch.float32"}
ASKS = [Ask("one"), Ask("two", "chat", (("before", "so"),))]
IDS: list[tuple[int, ...]] = [(1, 2), ()]


def open_journal(folder: Path, **about: str) -> AnswerJournal:
    return AnswerJournal(folder / "answers", {**ABOUT, **about}, vocabulary=100)


def open_whole(folder: Path, view: View) -> AnswerJournal:
    return AnswerJournal(folder / "answers", ABOUT, vocabulary=view.base.model.get_input_embeddings().weight.shape[0])  # type: ignore[operator]


@pytest.fixture(scope="module")
def view() -> View:
    torch.set_num_threads(1)
    return make_view(load_base(weights_path(), dtype="float32"))


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The sizes of the batches that the model is asked."""
    sizes: list[int] = []
    decode = asking.decode_greedily

    def count(view: View, adapter: None, prompts: Sequence[Sequence[int]], **options: Any) -> list[tuple[int, ...]]:
        sizes.append(len(prompts))
        return decode(view, adapter, prompts, **options)

    monkeypatch.setattr(asking, "decode_greedily", count)
    yield sizes


def make(view: View, journal: AnswerJournal | None = None) -> Ground:
    table = read_table(None)
    facts = [fact for fact in choose_facts(table, 40) if fact.relation in ("capital", "currency", "continent")]
    return build_ground(BaseAnswers(view, journal), table, facts, (), "", GroundOptions(("qa",), edits=2))


def test_an_interrupted_ground_asks_only_what_is_missing_and_is_the_same(
    view: View, tmp_path: Path, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(view)
    all_batches = list(batches)
    batches.clear()

    def stop(*_: object) -> None:
        if len(batches) == len(all_batches) // 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        add = AnswerJournal.add
        patch.setattr(AnswerJournal, "add", lambda *arguments: (add(*arguments), stop())[0])
        with pytest.raises(KeyboardInterrupt):
            make(view, open_whole(tmp_path, view))

    assert make(view, open_whole(tmp_path, view)) == whole
    assert batches == all_batches


def test_answers_are_read_again_up_to_a_line_that_was_not_written_whole(tmp_path: Path) -> None:
    file = tmp_path / "answers"
    open_journal(tmp_path).add(ASKS, IDS)
    file.write_text(file.read_text(encoding="utf-8")[:-5], encoding="utf-8")

    journal = open_journal(tmp_path)
    assert journal.known == {ASKS[0]: IDS[0]}

    journal.add(ASKS[1:], IDS[1:])
    assert open_journal(tmp_path).known == dict(zip(ASKS, IDS, strict=True))


def test_answers_of_another_model_are_not_used(tmp_path: Path) -> None:
    open_journal(tmp_path).add(ASKS, IDS)

    assert open_journal(tmp_path, model="another").known == {}


@pytest.mark.parametrize(
    "line",
    [
        "null",
        '{"a": 1}',
        '["a", "raw"]',
        '["a", "raw", [["one"]], [1]]',
        '["a", "raw", [], null]',
        '["a", "raw", [], [100]]',
        "[]",
    ],
)
def test_a_line_that_is_none_of_ours_ends_what_is_read(tmp_path: Path, line: str) -> None:
    open_journal(tmp_path).add(ASKS[:1], IDS[:1])
    with (tmp_path / "answers").open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    with (tmp_path / "answers").open("a", encoding="utf-8") as file:
        file.write('["two", "chat", [["before", "so"]], []]\n')

    assert open_journal(tmp_path).known == {ASKS[0]: IDS[0]}
