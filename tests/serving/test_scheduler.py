"""Answers of many versions at once: each is what its version says alone, and nobody's trouble is another's."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from service.domain.errors import Conflict, Corrupt, NotFound, Refused, TooLong, Unavailable, Uncomputable
from service.lm.base import Base, build_base
from service.lm.intervention import Adapter
from service.lm.overlay import EMPTY, Overlay
from service.lm.scoring import decode_greedily
from service.lm.tokenizing import decode_answer
from service.serving.scheduler import Answer, Generation, Scheduler
from tests.builders import make_adapter, make_base, make_intervention, make_model, make_rows, make_tokenizer
from tests.lm.test_overlay import some_tensors

PROMPTS = [(6, 1), (1, 1), (12, 1), (2, 1), (3, 1)]
PATIENCE_S = 60.0


def overlays(base: Base) -> dict[int, Overlay]:
    tensors = some_tensors(base)
    return {
        0: EMPTY,
        1: Overlay({}, make_adapter(seed=1)),
        2: Overlay({}, make_adapter(seed=2)),
        3: Overlay(tensors, None),
        4: Overlay(tensors, make_adapter(seed=1)),
    }


@contextmanager
def serving(base: Base, *, start: bool = True, **settings: Any) -> Iterator[Scheduler]:
    opened = Scheduler(base, **settings)
    for version, overlay in overlays(base).items():
        opened.adopt(version, overlay)
    opened.set_head(2, 7)
    if start:
        opened.start()
    try:
        yield opened
    finally:
        opened.close(PATIENCE_S)


def asked(base: Base, prompt: int = 0, **settings: Any) -> Generation:
    ids = make_rows(base, PROMPTS)[prompt].prompt_ids
    return Generation(**{"prompt_ids": ids, "max_new_tokens": 8, **settings})


def expected(opened: Scheduler, version: int, generation: Generation) -> tuple[int, ...]:
    """What the version says alone, by the plain decoding function, less the ending token."""
    overlay = overlays(opened.base)[version]
    view = opened.view_of(overlay)
    (ids,) = decode_greedily(view, overlay.adapter, [generation.prompt_ids], max_new_tokens=generation.max_new_tokens)
    return tuple(i for i in ids if i not in opened.base.eos_ids)


def test_requests_of_five_versions_from_many_threads_are_each_answered_by_their_own() -> None:
    base = make_base()
    with serving(base, max_batch=6) as opened:
        cases = [(v, asked(base, p, version=v, max_new_tokens=3 + p + v)) for v in range(5) for p in range(5)]
        answers: dict[int, Answer] = {}

        def ask(number: int) -> None:
            answers[number] = opened.submit(cases[number][1]).result(PATIENCE_S)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(cases))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)

        for number, (version, generation) in enumerate(cases):
            assert answers[number].version == version
            assert answers[number].ids == expected(opened, version, generation)
        assert opened.load == (0, 0)


def test_an_answer_names_its_version_and_its_token_counts() -> None:
    base = make_base()
    with serving(base) as opened:
        answer = opened.submit(asked(base, 2, max_new_tokens=4)).result(PATIENCE_S)

    assert (answer.version, answer.epoch, answer.prompt_tokens) == (2, 7, 12)
    assert answer.completion_tokens == len(answer.ids) == 4 and answer.finish_reason == "length"
    assert answer.text == decode_answer(base, answer.ids)


def test_a_request_keeps_the_version_it_was_submitted_to() -> None:
    base = make_base()
    with serving(base, start=False) as opened:
        before, pinned = opened.submit(asked(base)), opened.submit(asked(base, version=4))
        opened.set_head(1, 8)
        after = opened.submit(asked(base))
        opened.drop(2)
        opened.drop(4)
        opened.start()

        given = [future.result(PATIENCE_S) for future in (before, pinned, after)]

    assert [(answer.version, answer.epoch) for answer in given] == [(2, 7), (4, 7), (1, 8)]
    assert opened.head == (1, 8) and not opened.is_resident(4)


def test_an_ending_token_ends_an_answer_and_is_not_part_of_it() -> None:
    base = make_base()
    with serving(base) as opened:
        plain = opened.submit(asked(base, version=0, max_new_tokens=8)).result(PATIENCE_S)
    model = make_model()
    model.generation_config.eos_token_id = [1, plain.ids[3]]
    ending = build_base(model, make_tokenizer())
    with serving(ending) as opened:
        answer = opened.submit(asked(ending, version=0, max_new_tokens=8)).result(PATIENCE_S)

    assert plain.ids[3] not in plain.ids[:3]
    assert answer.finish_reason == "stop" and answer.ids == plain.ids[:3]


def test_generation_defaults_of_the_checkpoint_do_not_leak_in() -> None:
    model = make_model()
    for name, value in {"repetition_penalty": 50.0, "do_sample": True, "temperature": 9.0, "max_length": 3, "top_k": 1}.items():
        setattr(model.generation_config, name, value)
    leaky = build_base(model, make_tokenizer())
    with serving(make_base()) as opened:
        want = opened.submit(asked(opened.base, version=0)).result(PATIENCE_S)
    with serving(leaky) as opened:
        assert opened.submit(asked(leaky, version=0)).result(PATIENCE_S).ids == want.ids


def test_an_answer_is_cut_before_the_first_stop_string() -> None:
    base = make_base()
    with serving(base) as opened:
        whole = opened.submit(asked(base, 3, max_new_tokens=30)).result(PATIENCE_S)
        stop = whole.text[10:12]
        place = whole.text.index(stop)
        answer = opened.submit(asked(base, 3, max_new_tokens=30, stop=("never there", stop))).result(PATIENCE_S)

    assert answer.finish_reason == "stop"
    assert answer.text == whole.text[:place].lstrip()
    assert answer.completion_tokens < whole.completion_tokens


def test_a_seed_gives_the_same_text_alone_and_beside_others() -> None:
    base = make_base()
    warm = {"temperature": 1.0, "max_new_tokens": 20}
    with serving(base) as opened:
        alone = opened.submit(asked(base, seed=5, **warm)).result(PATIENCE_S)
    with serving(base, start=False) as opened:
        others = [opened.submit(asked(base, p, seed=p + 10, top_p=0.7, **warm)) for p in range(5)]
        beside = opened.submit(asked(base, seed=5, **warm))
        opened.start()
        assert beside.result(PATIENCE_S).ids == alone.ids
        assert len({future.result(PATIENCE_S).ids for future in others}) == 5


def test_without_a_seed_answers_differ() -> None:
    base = make_base()
    with serving(base) as opened:
        futures = [opened.submit(asked(base, temperature=1.5, max_new_tokens=20)) for _ in range(4)]
        assert len({future.result(PATIENCE_S).ids for future in futures}) == 4


def test_a_long_answer_does_not_hold_up_a_short_one() -> None:
    base, ended = make_base(), []
    with serving(base, start=False) as opened:
        for name, version, tokens in (("long", 1, 60), ("other long", 2, 60), ("short", 2, 2), ("short elsewhere", 3, 2)):
            future = opened.submit(asked(base, version=version, max_new_tokens=tokens))
            future.answer.add_done_callback(lambda _, name=name: ended.append(name))
        opened.start()
        future.result(PATIENCE_S)
        opened.close(PATIENCE_S)
    assert {"short", "short elsewhere"} == set(ended[:2])


class CancelledAt(threading.Event):
    """A client that is found gone the n-th time somebody looks."""

    def __init__(self, looks: int) -> None:
        super().__init__()
        self.looks = looks

    def is_set(self) -> bool:
        self.looks -= 1
        return self.looks < 0


class BreaksAt(CancelledAt):
    """Trouble inside a decoding step that is nobody else's."""

    def is_set(self) -> bool:
        if super().is_set():
            raise RuntimeError("trouble")
        return False


def test_a_client_that_goes_away_stops_costing_at_the_next_token() -> None:
    base = make_base()
    with serving(base) as opened:
        gone = opened.submit(asked(base, max_new_tokens=60, cancelled=CancelledAt(4))).result(PATIENCE_S)
        before = opened.submit(asked(base, max_new_tokens=60, cancelled=CancelledAt(0))).result(PATIENCE_S)

    assert (gone.finish_reason, gone.completion_tokens) == ("cancelled", 3)  # one look was while it waited
    assert (before.finish_reason, before.completion_tokens, before.text) == ("cancelled", 0, "")


def test_a_deadline_that_has_passed_ends_an_answer_between_tokens() -> None:
    base = make_base()
    with serving(base) as opened:
        late = opened.submit(asked(base, deadline=time.monotonic())).result(PATIENCE_S)
        full = opened.submit(asked(base, deadline=time.monotonic() + PATIENCE_S)).result(PATIENCE_S)

    assert (late.finish_reason, late.completion_tokens) == ("deadline", 0)
    assert full.finish_reason == "length"


def test_a_version_that_cannot_compute_fails_its_own_requests_only() -> None:
    base = make_base()
    with serving(base, start=False) as opened:
        opened.adopt(8, Overlay({}, Adapter({1: make_intervention(width=16)})))
        name, tensor = next(iter(some_tensors(base).items()))
        opened.adopt(9, Overlay({name: tensor * float("nan")}, None))
        broken, senseless, fine = [opened.submit(asked(base, version=v)) for v in (8, 9, 1)]
        opened.start()

        with pytest.raises(Uncomputable):
            broken.result(PATIENCE_S)
        with pytest.raises(Corrupt, match="finite"):
            senseless.result(PATIENCE_S)
        assert fine.result(PATIENCE_S).ids == expected(opened, 1, asked(base))
        assert opened.submit(asked(base, version=1)).result(PATIENCE_S).ids == expected(opened, 1, asked(base))


def test_a_row_without_finite_numbers_fails_alone_beside_other_versions() -> None:
    base, broken = make_base(), make_adapter(seed=1)
    broken.interventions[2].bias.fill_(float("nan"))
    with serving(base, start=False) as opened:
        opened.adopt(9, Overlay({}, broken))
        streams = [opened.submit(asked(base, version=version)) for version in (1, 9, 2, 0)]
        opened.start()

        with pytest.raises(Corrupt, match="finite"):
            streams.pop(1).result(PATIENCE_S)
        for version, stream in zip((1, 2, 0), streams, strict=True):
            assert stream.result(PATIENCE_S).ids == expected(opened, version, asked(base))


def test_an_exception_in_the_step_of_a_row_fails_that_row_alone() -> None:
    base = make_base()
    with serving(base, start=False) as opened:
        broken, *fine = [
            opened.submit(asked(base, version=version, **settings))
            for version, settings in ((1, {"cancelled": BreaksAt(3)}), (1, {}), (2, {}))
        ]
        opened.start()

        with pytest.raises(Uncomputable):
            broken.result(PATIENCE_S)
        for version, stream in zip((1, 2), fine, strict=True):
            assert stream.result(PATIENCE_S).ids == expected(opened, version, asked(base))


def test_versions_with_the_same_tensors_share_every_forward_pass() -> None:
    base, passes = make_base(), []
    with serving(base, start=False) as opened:
        for version in range(10, 16):
            opened.adopt(version, Overlay({}, make_adapter(seed=version)))
        view = opened.view_of(EMPTY)
        view.model.register_forward_hook(lambda *_: passes.append(1))
        streams = [opened.submit(asked(base, version=version, max_new_tokens=6)) for version in (0, 1, *range(10, 16))]
        opened.start()
        answers = [stream.result(PATIENCE_S) for stream in streams]
        opened.close(PATIENCE_S)

    assert len(passes) == max(answer.completion_tokens for answer in answers) == 6
    assert len({answer.ids for answer in answers}) == 8


def fail_passes(opened: Scheduler, is_failing: Callable[[Tensor], bool], error: Exception, *, most: int = 10_000) -> None:
    """Let the forward passes of the base's view raise `error` for the input ids (B, T) that `is_failing` names, `most` times."""
    left = [most]

    def check(_module: nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        if left[0] and is_failing(kwargs["input_ids"]):
            left[0] -= 1
            raise error

    opened.view_of(EMPTY).model.register_forward_pre_hook(check, with_kwargs=True)


def test_of_many_prompts_the_one_that_cannot_be_computed_fails_alone() -> None:
    base = make_base()
    with serving(base, start=False) as opened:
        fail_passes(opened, lambda ids: bool((ids == 260).any()), RuntimeError("a row"))
        cases = [(version, asked(base, prompt)) for version in (0, 1, 2) for prompt in range(5)]
        streams = [opened.submit(replace(generation, version=version)) for version, generation in cases]
        broken = opened.submit(asked(base, prompt_ids=(0, 260, 7)))
        opened.start()

        with pytest.raises(Uncomputable, match="each time; change the prompt"):
            broken.result(PATIENCE_S)
        for (version, generation), stream in zip(cases, streams, strict=True):
            assert stream.result(PATIENCE_S).ids == expected(opened, version, generation)


def test_a_row_that_fails_in_the_middle_of_its_answer_fails_alone() -> None:
    base = make_base()
    with serving(base, start=False) as opened:
        cases = [(version, asked(base, prompt, max_new_tokens=9)) for version in (0, 1, 2) for prompt in range(4)]
        wanted = [expected(opened, version, generation) for version, generation in cases]
        counts = Counter(token for ids in wanted for token in set(ids[2:-1]) - set(ids[:2]))
        poison = next(token for token, count in counts.items() if count == 1)  # some answer's own, in its middle
        fail_passes(opened, lambda ids: bool((ids == poison).any()), RuntimeError("a row"))
        streams = [opened.submit(replace(generation, version=version)) for version, generation in cases]
        opened.start()

        for ids, stream in zip(wanted, streams, strict=True):
            if poison in ids[:-1]:
                with pytest.raises(Uncomputable):
                    stream.result(PATIENCE_S)
            else:
                assert stream.result(PATIENCE_S).ids == ids


def test_a_batch_that_is_too_large_for_the_memory_goes_on_in_smaller_ones() -> None:
    base = make_base()
    with serving(base, start=False) as opened:
        cases = [(version, asked(base, prompt)) for version in (0, 1, 2) for prompt in range(5)]
        wanted = [expected(opened, version, generation) for version, generation in cases]
        fail_passes(opened, lambda ids: ids.shape[0] > 4, torch.OutOfMemoryError("no room"))
        streams = [opened.submit(replace(generation, version=version)) for version, generation in cases]
        opened.start()

        assert [stream.result(PATIENCE_S).ids for stream in streams] == wanted


def test_a_lack_of_memory_for_one_row_may_pass_and_says_so() -> None:
    base = make_base()
    with serving(base, start=False) as opened:
        fail_passes(opened, lambda ids: ids.shape[1] > 10, torch.OutOfMemoryError("no room"))
        large, small = opened.submit(asked(base, 2)), opened.submit(asked(base, 0, version=0))
        opened.start()

        with pytest.raises(Unavailable, match="not enough memory"):
            large.result(PATIENCE_S)
        assert small.result(PATIENCE_S).ids == expected(opened, 0, asked(base))


@pytest.mark.parametrize("width", [1, 6])
def test_a_failure_that_passes_costs_no_answer(width: int) -> None:
    base = make_base()
    with serving(base, start=False) as opened:
        wanted = expected(opened, 1, asked(base))
        fail_passes(opened, lambda ids: ids.shape[1] == width, RuntimeError("once"), most=1)
        stream = opened.submit(asked(base, version=1))
        opened.start()

        assert stream.result(PATIENCE_S).ids == wanted


@pytest.mark.parametrize(("looks", "error"), [(0, Unavailable), (3, Uncomputable)])
def test_an_exception_in_a_step_fails_its_answer_and_the_thread_goes_on(looks: int, error: type[Exception]) -> None:
    base = make_base()
    with serving(base) as opened:
        with pytest.raises(error):
            opened.submit(asked(base, cancelled=BreaksAt(looks))).result(PATIENCE_S)
        assert opened.submit(asked(base, version=1)).result(PATIENCE_S).ids == expected(opened, 1, asked(base))
        assert opened.load == (0, 0)


def test_an_invalid_generation_is_refused_at_once() -> None:
    base = make_base()
    with serving(base, start=False) as opened:
        for error, settings in (
            (TooLong, {"max_new_tokens": base.context_length - 5}),
            (Refused, {"max_new_tokens": 0}),
            (Refused, {"prompt_ids": ()}),
            (Refused, {"prompt_ids": (0, base.id_count)}),
            (Refused, {"temperature": -1.0}),
            (Refused, {"temperature": float("nan")}),
            (Refused, {"temperature": float("inf")}),
            (Refused, {"top_p": 0.0}),
            (Refused, {"top_p": 1.1}),
            (Refused, {"stop": ("",)}),
            (NotFound, {"version": 77}),
        ):
            with pytest.raises(error):
                opened.submit(asked(base, **settings))
        assert opened.load == (0, 0)


def test_a_full_queue_is_unavailable() -> None:
    base = make_base()
    with serving(base, start=False, queue_limit=2) as opened:
        futures = [opened.submit(asked(base)) for _ in range(2)]
        with pytest.raises(Unavailable):
            opened.submit(asked(base))
        opened.start()
        assert all(future.result(PATIENCE_S) for future in futures)


def test_the_least_recently_used_version_is_evicted_but_never_the_base_or_the_head() -> None:
    base = make_base()
    opened = Scheduler(base, resident=4)
    opened.adopt(1, Overlay({}, make_adapter(seed=1)))
    opened.set_head(1, 1)
    opened.adopt(2, EMPTY)
    opened.adopt(3, EMPTY)
    opened.submit(asked(base, version=2))

    opened.adopt(4, EMPTY)

    assert [opened.is_resident(version) for version in range(5)] == [True, True, True, False, True]
    for version in (0, 1):
        with pytest.raises(Conflict):
            opened.drop(version)
    with pytest.raises(NotFound):
        opened.set_head(3, 2)
    opened.close()


def test_versions_with_the_same_tensors_share_one_view() -> None:
    opened = Scheduler(make_base())
    sets = overlays(opened.base)
    assert opened.view_of(sets[3]) is opened.view_of(sets[4])
    assert opened.view_of(sets[1]) is opened.view_of(EMPTY)
    assert opened.view_of(sets[1]) is not opened.view_of(sets[3])


def test_closing_completes_running_answers_and_refuses_new_ones() -> None:
    base = make_base()
    with serving(base) as opened:
        running = opened.submit(asked(base))
        opened.close(PATIENCE_S)
        assert running.result(0).completion_tokens > 0
        with pytest.raises(Unavailable):
            opened.submit(asked(base))
    with serving(base, start=False) as opened:
        waiting = opened.submit(asked(base))
        opened.close(0)
        with pytest.raises(Unavailable):
            waiting.result(0)


def test_a_close_without_timeout_fails_the_answer_in_progress() -> None:
    base = make_base()
    looked = threading.Event()

    class Looked(threading.Event):
        def is_set(self) -> bool:
            looked.set()
            return False

    with serving(base) as opened:
        future = opened.submit(asked(base, max_new_tokens=100, cancelled=Looked()))
        assert looked.wait(PATIENCE_S)
        opened.close(0.001)
        with pytest.raises(Unavailable):
            future.result(PATIENCE_S)


def test_a_fit_waits_for_answers_but_never_long() -> None:
    base = make_base()
    with serving(base, start=False) as opened:
        started = time.monotonic()
        opened.yield_to_answers()
        idle_s = time.monotonic() - started
        future = opened.submit(asked(base))

        started = time.monotonic()
        opened.yield_to_answers()  # the thread does not run, so the answer never ends
        busy_s = time.monotonic() - started

        opened.start()
        future.result(PATIENCE_S)
    assert idle_s < 0.04 < busy_s < 2.0


def test_serving_leaves_the_base_bits_as_they_were() -> None:
    base = make_base()
    ids = torch.tensor([make_rows(base, PROMPTS)[2].prompt_ids])
    want = base.model(ids).logits
    with serving(base) as opened:
        for version in range(5):
            opened.submit(asked(base, version=version)).result(PATIENCE_S)
    assert torch.equal(base.model(ids).logits, want)
