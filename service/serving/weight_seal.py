"""Integrity checks of the base model while it serves: of its tensors in memory, and of the files that they were loaded from.

A thread of its own checks piece by piece and yields to answers. A change on disk is reported and changes no answer. A change in
memory ends all serving, because the answers would come from an unknown model.
"""

import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from service.domain.errors import Refused
from service.lm.base import Base
from service.lm.file_identity import FileIdentity
from service.lm.fingerprint import fingerprint_of
from service.lm.model_files import identities

FILES_S = 5.0  # seconds between two checks of the files, which cost one `stat` a file
MEMORY_S = 600.0  # seconds between two checks of the tensors
PIECE_BYTES = 1 << 22
PAUSE_S = 0.02  # seconds between two pieces: at most 200 MB/s, so 16 GB take about 80 s and 3% of a core
log = logging.getLogger(__name__)


def _do_not_wait() -> None:
    """There are no answers to yield to."""


def _ignore_refusal(_sentence: str) -> None:
    """There is no scheduler to stop."""


class _CheckStopped(Exception):
    """The process ends, so the check need not be finished."""


class WeightSeal:
    """The checks of one base. `yield_to_answers` is called between two pieces. `refuse` is called with a sentence when nothing
    may be answered any more. `failure` and `note` may be read from any thread.
    """

    def __init__(
        self,
        base: Base,
        *,
        yield_to_answers: Callable[[], None] = _do_not_wait,
        refuse: Callable[[str], None] = _ignore_refusal,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._base = base
        self._yield_to_answers = yield_to_answers
        self._refuse = refuse
        self._pause_s = pause_s
        self._sums = {name: _checksum(tensor) for name, tensor in _tensors(base)}
        self._files: Mapping[str, FileIdentity] | None = None if base.origin is None else base.origin.files
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="errata-seal", daemon=True)
        self.failure: str | None = None  # the reason why nothing may be answered any more
        self.note: str | None = None  # a sentence about files that the next start will not accept

    @property
    def is_sound(self) -> bool:
        """Whether the last check found the tensors unchanged."""
        return self.failure is None

    def start(self) -> None:
        """Check in a thread of its own until `close`."""
        self._thread.start()

    def close(self) -> None:
        """End the thread, at its next piece."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(5.0)

    def check_memory(self) -> None:
        """Check all tensors once. A tensor that differs from the loaded one is logged by name and breaks the seal for good."""
        for name, tensor in _tensors(self._base):
            if _checksum(tensor, self._between) != self._sums.get(name):
                self.failure = "The base model in memory is no longer what was loaded; restart the server."
                log.error("the base model in memory has changed: nothing is answered any more; tensor %s", name)
                self._refuse(self.failure)
                return

    def check_files(self) -> None:
        """Check whether the files are the same. Other files of which the same is used, such as a restored copy, are accepted."""
        origin = self._base.origin
        if origin is None or self._files is None:
            return
        try:
            found = identities(origin.folder)
            if found == self._files:
                return
            is_same = self._is_same(origin.folder)
            if identities(origin.folder) != found:
                return  # the files are still being written: the next check decides
        except OSError:
            if not self._files:
                return  # unreadable files were reported before
            found, is_same = {}, False
        changed = sorted(name for name in {*found, *origin.files} if found.get(name) != self._files.get(name))
        self._files = found
        self._report(changed, is_same=is_same)

    def _is_same(self, folder: Path) -> bool:
        try:
            return fingerprint_of(folder, self._between) == self._base.fingerprint
        except Refused:  # a file is damaged, or half written
            return False

    def _report(self, changed: list[str], *, is_same: bool) -> None:
        before = self.note
        self.note = None
        if not is_same:
            self.note = (
                "The model's files are no longer those that are served: this server goes on with what it loaded, and a start"
                " with the files as they are is refused for this store."
            )
            log.warning("the model's files have changed on disk; answers stay as they are: %s", ", ".join(changed))
        elif before is not None:
            log.warning("the model's files are again those that are served")

    def _between(self) -> None:
        self._yield_to_answers()
        if self._stopping.wait(self._pause_s):
            raise _CheckStopped

    def _run(self) -> None:
        last_check = time.monotonic()
        while not self._stopping.wait(FILES_S) and self.is_sound:
            try:
                self.check_files()
                if time.monotonic() - last_check >= MEMORY_S:
                    self.check_memory()
                    last_check = time.monotonic()
            except _CheckStopped:
                return
            except Exception as error:  # a failed check is repeated at the next round
                log.error("the base model could not be checked: %s", type(error).__name__)


def _tensors(base: Base) -> Iterator[tuple[str, Tensor]]:
    """The tensors of the model's checkpoint, each once. Other buffers may be recomputed for longer prompts."""
    seen: set[int] = set()
    for name, tensor in base.model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            yield name, tensor


def _checksum(tensor: Tensor, between: Callable[[], None] = _do_not_wait) -> int:
    """The CRC-32 of a tensor's bytes. It detects accidents; only this process writes the memory, so forgery is no concern."""
    checksum = 0
    for piece in tensor.detach().reshape(-1).view(torch.uint8).split(PIECE_BYTES):
        checksum = zlib.crc32(piece.cpu().numpy().data, checksum)
        between()
    return checksum
