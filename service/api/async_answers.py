"""Answers in progress, read on the event loop: no thread waits for a token."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any

from fastapi import Request

from service.domain.errors import Unavailable
from service.serving.answer_stream import Answer, AnswerStream
from service.serving.request import Generation
from service.serving.residents import Resident
from service.serving.scheduler import Scheduler

IDLE_SHARE = 9  # of the time that an answer takes to be read, before it is read again


def submit_all(serving: Scheduler, asked: Sequence[tuple[Generation, tuple[Resident, int]]]) -> list[AnswerStream]:
    """Submit requests, each to the version that it is pinned to, or none of them: if one finds no place, those before it are
    cancelled.
    """
    streams: list[AnswerStream] = []
    try:
        for generation, pinned in asked:
            streams.append(serving.submit(generation, pinned))
    except Exception:
        for stream in streams:
            stream.cancel()
        raise
    return streams


async def iterate_deltas(stream: AnswerStream) -> AsyncIterator[str]:
    """An answer's text in deltas, as they settle. Raises the answer's error. A reader that leaves early cancels the answer."""
    changed = _Change()
    stream.subscribe(changed.set)
    sent = 0
    try:
        while True:
            changed.clear()
            is_done = stream.answer.done()
            began_at = time.perf_counter()
            text = stream.answer.result().text if is_done else stream.settled()
            spent_s = time.perf_counter() - began_at
            if len(text) > sent:
                yield text[sent:]
                sent = len(text)
            if is_done:
                return
            await asyncio.sleep(IDLE_SHARE * spent_s)  # a long answer is read less often, so that the loop has time for others
            await changed.wait()
    finally:
        stream.cancel()


async def merge_deltas(streams: Sequence[AnswerStream]) -> AsyncIterator[tuple[int, str | None]]:
    """The deltas of several answers as they come, each with the number of its answer, and None at the end of each. Raises the
    first error of any; then, and when the reader leaves, all are cancelled.
    """
    pieces: asyncio.Queue[tuple[int, str | None, Exception | None]] = asyncio.Queue()

    async def read(number: int) -> None:
        try:
            async for delta in iterate_deltas(streams[number]):
                pieces.put_nowait((number, delta, None))
            pieces.put_nowait((number, None, None))
        except Exception as error:
            pieces.put_nowait((number, None, error))

    readers = [asyncio.create_task(read(number)) for number in range(len(streams))]
    try:
        left = len(streams)
        while left:
            number, delta, error = await pieces.get()
            if error is not None:
                raise error
            left -= delta is None
            yield number, delta
    finally:
        for stream in streams:
            stream.cancel()
        for reader in readers:
            reader.cancel()


class _Change:
    """An event of the running loop that other threads set."""

    def __init__(self) -> None:
        self._loop, self._event = asyncio.get_running_loop(), asyncio.Event()
        self.clear: Callable[[], None] = self._event.clear
        self.wait = self._event.wait

    def set(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: the server has stopped, and nobody reads
            self._loop.call_soon_threadsafe(self._event.set)


async def collect_answers(request: Request, streams: Sequence[AnswerStream]) -> list[Answer]:
    """All answers, or the first error of any. If the client goes away first, decoding stops, and nobody hears Unavailable."""
    everything = asyncio.gather(*(asyncio.wrap_future(stream.answer) for stream in streams))
    leaving = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        both: set[asyncio.Future[Any]] = {everything, leaving}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not everything.done():
            raise Unavailable("the client went away before the answer was complete")
        return list(everything.result())
    finally:
        for stream in streams:
            stream.cancel()
        leaving.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
