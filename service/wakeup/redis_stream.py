"""The doorbell of several processes: a Redis Stream with one consumer group, by XADD, XREADGROUP, XACK, XDEL and XAUTOCLAIM.

While Redis is away, rings within this process still work and the others are found by the sweep.
"""

import threading
import time
import uuid
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as NotInTime
from redis.retry import Retry

from service.wakeup.in_process import InProcessDoorbell

RING_S = 0.05  # longest time a ring may cost the request that makes it
PAUSE_S = 1.0  # after a fault Redis is left alone for so long: a dead Redis must not cost every request its RING_S
READ_PAUSE_S = 5.0  # the same for reading from a frozen one: while that is waited for, rings of this process are not heard
SLICE_S = 0.25  # longest single wait inside Redis, so that a close or a ring of this process is noticed
STALE_MS = 60_000  # a ring that a consumer took and never acknowledged belongs to anybody after this
LENGTH = 10_000  # rings kept, roughly; more than edits may wait
GROUP = "workers"
FAULTS = (RedisError, OSError)


class RedisDoorbell:
    """Rings as entries of the stream `<prefix>:rings`, read by the group of workers; acknowledged once their rows are done."""

    def __init__(self, url: str, *, prefix: str = "errata") -> None:
        self._key = f"{prefix}:rings"
        self._name = uuid.uuid4().hex
        once = Retry(NoBackoff(), 0)  # the client's own repetitions, with their pauses, would add up to seconds in a request
        self._ringer: Redis = Redis.from_url(url, socket_timeout=RING_S, socket_connect_timeout=RING_S, retry=once)
        self._reader: Redis = Redis.from_url(url, socket_timeout=SLICE_S + 1.0, socket_connect_timeout=1.0, retry=once)
        self._here = InProcessDoorbell()
        self._taken: list[Any] = []
        self._has_group = False
        self._away_until = 0.0
        self._unread_until = 0.0
        self._closed = threading.Event()
        self._reading = threading.Lock()  # the connection must not be closed under a read

    def ring(self, edit_id: str) -> None:
        """Add an entry; if that fails, at least this process hears it."""
        if time.monotonic() >= self._away_until:
            try:
                self._ringer.xadd(self._key, {"edit": edit_id}, maxlen=LENGTH, approximate=True)
            except FAULTS:
                self._away_until = time.monotonic() + PAUSE_S
        self._here.ring(edit_id)

    def wait(self, timeout_s: float) -> bool:
        """Wait for an entry, or for a ring of this process."""
        until = time.monotonic() + timeout_s
        while not self._closed.is_set():
            left = until - time.monotonic()
            if self._here.wait(0.0) or self._read(min(SLICE_S, max(0.0, left))):
                self._read(0.0)  # take the entries of this ring too, so that they do not ring again
                return True
            if left <= 0:
                return False
        return False

    def heard(self) -> None:
        """Acknowledge what was taken, and delete it: the stream holds only what nobody has heard."""
        taken, self._taken = self._taken, []
        if taken and not self._closed.is_set():
            try:
                self._reader.xack(self._key, GROUP, *taken)
                self._reader.xdel(self._key, *taken)  # its bound alone would keep the ids of edits until so many came after
            except FAULTS:
                self._has_group = False

    def close(self) -> None:
        """End a wait and close the connections."""
        self._closed.set()
        self._here.close()
        with self._reading:
            self._ringer.close()
            self._reader.close()

    def _read(self, wait_s: float) -> bool:
        if time.monotonic() < self._unread_until:
            return self._here.wait(wait_s)
        try:
            with self._reading:
                found = [] if self._closed.is_set() else self._entries(wait_s)
        except FAULTS as fault:
            self._has_group = False
            if isinstance(fault, TimeoutError | NotInTime):
                self._unread_until = time.monotonic() + READ_PAUSE_S
            return self._here.wait(wait_s)
        self._taken += found
        return bool(found)

    def _entries(self, wait_s: float) -> list[Any]:
        """The ids of entries that a dead consumer left, and of new ones."""
        self._make_group()
        claimed: Any = self._reader.xautoclaim(self._key, GROUP, self._name, min_idle_time=STALE_MS, count=100)[1]
        # BLOCK 0 would wait for ever; one millisecond stands for not waiting.
        block = max(1, int(wait_s * 1000))
        fresh: Any = self._reader.xreadgroup(GROUP, self._name, {self._key: ">"}, count=1000, block=block)
        return [entry_id for entry_id, _ in [*claimed, *(entry for _, entries in fresh or () for entry in entries)]]

    def _make_group(self) -> None:
        if self._has_group:
            return
        try:
            self._reader.xgroup_create(self._key, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._has_group = True
