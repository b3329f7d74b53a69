"""The doorbell of several processes: a Redis Stream with one consumer group, by XADD, XREADGROUP, XACK, XDEL and XAUTOCLAIM.

While Redis is away, rings within this process still work, and the worker's sweep finds the rows of other processes.
"""

import threading
import time
import uuid
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeout
from redis.retry import Retry

from service.wakeup.in_process import InProcessDoorbell

RING_S = 0.05  # longest time that a ring may take in a request
PAUSE_S = 1.0  # after a fault no ring is sent for so long: a dead Redis must not cost every request its RING_S
READ_PAUSE_S = 5.0  # the same for reads that time out: during a read the worker does not notice rings of this process
SLICE_S = 0.25  # longest single read, so that a close or a ring of this process is noticed
STALE_MS = 60_000  # after so long without an acknowledgement, another consumer may claim a ring
MAX_LENGTH = 10_000  # of the stream, roughly; more than the edits that may wait
GROUP = "workers"
FAULTS = (RedisError, OSError)


class RedisDoorbell:
    """Rings as entries of the stream `<prefix>:rings`, read by the group `workers` and acknowledged once their rows are done."""

    def __init__(self, url: str, *, prefix: str = "errata") -> None:
        self._key = f"{prefix}:rings"
        self._consumer = uuid.uuid4().hex
        no_retry = Retry(NoBackoff(), 0)  # the client's own retries, with their pauses, would take seconds in a request
        self._ringer: Redis = Redis.from_url(url, socket_timeout=RING_S, socket_connect_timeout=RING_S, retry=no_retry)
        self._reader: Redis = Redis.from_url(url, socket_timeout=SLICE_S + 1.0, socket_connect_timeout=1.0, retry=no_retry)
        self._local = InProcessDoorbell()
        self._unacknowledged: list[Any] = []
        self._has_group = False
        self._no_ring_until = 0.0
        self._no_read_until = 0.0
        self._closed = threading.Event()
        self._reading = threading.Lock()  # a connection must not be closed during a read

    def ring(self, edit_id: str) -> None:
        """Add an entry to the stream, and ring within this process."""
        if time.monotonic() >= self._no_ring_until:
            try:
                self._ringer.xadd(self._key, {"edit": edit_id}, maxlen=MAX_LENGTH, approximate=True)
            except FAULTS:
                self._no_ring_until = time.monotonic() + PAUSE_S
        self._local.ring(edit_id)

    def wait(self, timeout_s: float) -> bool:
        """Wait for an entry, or for a ring of this process."""
        until = time.monotonic() + timeout_s
        while not self._closed.is_set():
            remaining = until - time.monotonic()
            if self._local.wait(0.0) or self._read(min(SLICE_S, max(0.0, remaining))):
                self._read(0.0)  # read the entries of this ring too, so that they do not ring again
                return True
            if remaining <= 0:
                return False
        return False

    def acknowledge(self) -> None:
        """Acknowledge and delete the entries that were read: the stream holds only rings that no worker has served."""
        entry_ids, self._unacknowledged = self._unacknowledged, []
        if entry_ids and not self._closed.is_set():
            try:
                self._reader.xack(self._key, GROUP, *entry_ids)
                self._reader.xdel(
                    self._key, *entry_ids
                )  # by its maximum length alone the stream would keep ids of edits for long
            except FAULTS:
                self._has_group = False

    def close(self) -> None:
        """End a wait and close the connections."""
        self._closed.set()
        self._local.close()
        with self._reading:
            self._ringer.close()
            self._reader.close()

    def _read(self, wait_s: float) -> bool:
        if time.monotonic() < self._no_read_until:
            return self._local.wait(wait_s)
        try:
            with self._reading:
                entry_ids = [] if self._closed.is_set() else self._entries(wait_s)
        except FAULTS as fault:
            self._has_group = False
            if isinstance(fault, TimeoutError | RedisTimeout):
                self._no_read_until = time.monotonic() + READ_PAUSE_S
            return self._local.wait(wait_s)
        self._unacknowledged += entry_ids
        return bool(entry_ids)

    def _entries(self, wait_s: float) -> list[Any]:
        """The ids of entries that a dead consumer did not acknowledge, and of new entries."""
        self._create_group()
        claimed: Any = self._reader.xautoclaim(self._key, GROUP, self._consumer, min_idle_time=STALE_MS, count=100)[1]
        # BLOCK 0 would wait for ever, so the shortest wait is one millisecond.
        block = max(1, int(wait_s * 1000))
        new: Any = self._reader.xreadgroup(GROUP, self._consumer, {self._key: ">"}, count=1000, block=block)
        return [entry_id for entry_id, _ in [*claimed, *(entry for _, entries in new or () for entry in entries)]]

    def _create_group(self) -> None:
        if self._has_group:
            return
        try:
            self._reader.xgroup_create(self._key, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        self._has_group = True
