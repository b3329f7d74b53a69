"""An answer as a stream: its deltas together are the text of the whole, and its reader holds up nobody."""

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.domain.errors import Corrupt
from service.lm.base import Base
from service.lm.overlay import EMPTY, make_view
from service.lm.tokenizing import decode_ids
from service.serving.answer_stream import AnswerStream
from service.serving.answer_text import settled_text
from service.serving.request import FinishReason, Generation
from service.serving.residents import Resident
from tests.builders import make_base
from tests.lm.test_tokenizing import base_with_byte_fallback, bytes_of, drawn_ids
from tests.serving.test_scheduler import PATIENCE_S, asked, serving


def stream_of(base: Base, *, max_new_tokens: int = 1000, stop: Sequence[str] = ()) -> AnswerStream:
    """An answer to which the test itself adds tokens."""
    generation = Generation(prompt_ids=[5], max_new_tokens=max_new_tokens, stop=tuple(stop))
    return AnswerStream(base, generation, resident=Resident(3, make_view(base, EMPTY.tensors), None), epoch=4)


def text_of(base: Base, ids: Sequence[int], stop: Sequence[str] = ()) -> str:
    """The text of an answer as it is defined: decoded whole, cut before the first stop string, without white space in front."""
    text = decode_ids(base, ids)
    return text[: min([text.index(one) for one in stop if one in text], default=len(text))].lstrip()


def write(stream: AnswerStream, ids: Sequence[int], reason: FinishReason = "cancelled") -> None:
    """Add tokens until one ends the answer, with time to read between them."""
    for token in ids:
        time.sleep(0.0002)
        if found := stream.take(token):
            reason = found
            break
    stream.finish(reason)


def read(stream: AnswerStream) -> tuple[list[str], FinishReason]:
    """All deltas, and what the iteration returns."""
    deltas, reading = [], iter(stream)
    while True:
        try:
            deltas.append(next(reading))
        except StopIteration as end:
            return deltas, end.value


@pytest.mark.parametrize("build", [make_base, base_with_byte_fallback])
def test_the_deltas_are_the_text_of_the_answer_for_any_tokens_and_stop_strings(build: Callable[[], Base]) -> None:
    base, draw = build(), random.Random(7)
    several = 0
    with ThreadPoolExecutor(1) as threads:
        for _ in range(150):
            stop = draw.sample(["a ", " €", "😀", "aéa", "  ", "€€", "\ufffda"], draw.randint(0, 3))
            ids = drawn_ids(base, draw) + drawn_ids(base, draw)
            stream = stream_of(base, stop=stop)
            writing = threads.submit(write, stream, ids)

            deltas, reason = read(stream)

            writing.result(PATIENCE_S)
            answer = stream.result(0)
            assert "".join(deltas) == answer.text == text_of(base, answer.ids, stop)
            assert all(deltas) and reason == answer.finish_reason
            several += len(deltas) > 1
    assert several


def test_what_may_begin_a_stop_string_is_held_back_until_it_is_known() -> None:
    base = make_base()
    ids = bytes_of(base, "  ab, abc, xyz")

    shown = [settled_text(base, ids[: length + 1], ("abcd", ", x")) for length in range(len(ids))]

    assert shown == [""] * 4 + ["ab"] * 2 + ["ab, "] * 3 + ["ab, abc"] * 5


def test_a_stop_string_that_spans_deltas_is_never_shown() -> None:
    base = make_base()
    stream = stream_of(base, stop=("END",))
    reading = iter(stream)
    *start, last = bytes_of(base, "hello EN")
    for token in (*start, last):
        assert stream.take(token) is None
    first = next(reading)
    write(stream, bytes_of(base, "D!"))

    assert [first, *reading] == ["hello "]
    assert stream.result(0).finish_reason == "stop" and stream.result(0).text == "hello "


def test_text_is_read_while_the_answer_is_in_progress() -> None:
    base = make_base()
    stream = stream_of(base)
    reading = iter(stream)

    for token, character in zip(bytes_of(base, "abc"), "abc", strict=True):
        stream.take(token)
        assert next(reading) == character
    assert not stream.answer.done()
    stream.finish("length")

    assert list(reading) == []


def test_half_a_character_at_the_end_is_shown_when_the_answer_ends() -> None:
    base = make_base()
    stream = stream_of(base)
    write(stream, bytes_of(base, "a€")[:-1], "deadline")

    assert read(stream) == (["a\ufffd"], "deadline")


def test_a_reader_that_comes_late_finds_all_of_the_text_in_one_delta() -> None:
    base = make_base()
    stream = stream_of(base, max_new_tokens=4)
    write(stream, bytes_of(base, "abcdef"))

    assert read(stream) == (["abcd"], "length")


def test_a_reader_that_leaves_cancels_the_answer() -> None:
    base = make_base()
    stream = stream_of(base)
    stream.take(bytes_of(base, "a")[0])
    assert stream.interruption() is None

    for _ in stream:
        break

    assert stream.interruption() == "cancelled"


def test_a_failed_answer_raises_its_error_after_the_text_before_it() -> None:
    base = make_base()
    stream = stream_of(base)
    reading = iter(stream)
    stream.take(bytes_of(base, "a")[0])
    assert next(reading) == "a"
    stream.fail(Corrupt("The version gives numbers that are not finite."))

    with pytest.raises(Corrupt):
        next(reading)


def test_a_reader_that_stops_reading_holds_up_no_other_answer() -> None:
    base = make_base()
    with serving(base) as opened:
        slow = opened.submit(asked(base, 3, max_new_tokens=60))
        reading = iter(slow)
        first = next(reading)
        other = opened.submit(asked(base, 3, max_new_tokens=60)).result(PATIENCE_S)
        absent = slow.result(PATIENCE_S)  # it ended, though nobody read on

        assert "".join([first, *reading]) == absent.text == other.text


@pytest.mark.parametrize(
    "settings", [{}, {"stop": ("e", "\n")}, {"temperature": 1.5, "seed": 4}, {"temperature": 3.0, "seed": 5}]
)
def test_streams_of_a_server_are_the_text_of_their_answers(settings: dict[str, object]) -> None:
    base = make_base()
    with serving(base) as opened:
        streams = [opened.submit(asked(base, prompt, version=prompt, max_new_tokens=60, **settings)) for prompt in range(5)]
        with ThreadPoolExecutor(5) as readers:
            texts = list(readers.map(lambda stream: "".join(stream), streams))
        answers = [stream.result(PATIENCE_S) for stream in streams]

    assert texts == [answer.text for answer in answers]
    assert texts == [text_of(base, answer.ids, settings.get("stop", ())) for answer in answers]  # type: ignore[arg-type]
