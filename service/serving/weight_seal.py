"""What a base model is held to while it serves: its tensors in memory, which must stay as they were, and the files they are from.

Checked by a thread of its own, a piece at a time and giving way to answers. A change on disk is said and changes no answer; a
change in memory ends all serving, for its answers would be of no known model.
"""

import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from service.lm.base import Base
from service.lm.file_identity import FileIdentity
from service.lm.model_files import fingerprint_of, identities

FILES_S = 5.0  # between two looks at the files, which cost a `stat` each
MEMORY_S = 600.0  # between two rounds over the tensors
PIECE_BYTES = 1 << 22
PAUSE_S = 0.02  # between two pieces: at most 200 MB/s, so 16 GB take about 80 s and 3% of a core
log = logging.getLogger(__name__)


def _do_not_wait() -> None:
    """Nobody has to be given way to."""


def _ignore_refusal(_sentence: str) -> None:
    """Nobody answers with this base."""


class _CheckStopped(Exception):
    """The process ends, and no check need be finished."""


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
        self.failure: str | None = None  # why nothing may be answered any more
        self.note: str | None = None  # what the next start will find

    @property
    def is_sound(self) -> bool:
        """Whether the tensors are still those that were loaded, as far as was seen."""
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
        """One round over all tensors; what differs from what was loaded is logged by name and breaks the seal for good."""
        for name, tensor in _tensors(self._base):
            if _checksum(tensor, self._between) != self._sums.get(name):
                self.failure = "The base model in memory is no longer what was loaded; restart the server."
                log.error("the base model in memory has changed: nothing is answered any more; tensor %s", name)
                self._refuse(self.failure)
                return

    def check_files(self) -> None:
        """Look whether the files are still the same; others with the same content, such as a restored copy, are as good."""
        origin = self._base.origin
        if origin is None or self._files is None:
            return
        try:
            found = identities(origin.folder)
            if found == self._files:
                return
            is_same = fingerprint_of(origin.folder, self._between) == self._base.fingerprint
            if identities(origin.folder) != found:
                return  # somebody is still writing: the next look judges
        except OSError:
            if not self._files:
                return  # that they cannot be read was said before
            found, is_same = {}, False
        changed = sorted(name for name in {*found, *origin.files} if found.get(name) != self._files.get(name))
        self._files = found
        self._say(changed, is_same=is_same)

    def _say(self, changed: list[str], *, is_same: bool) -> None:
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
        looked = time.monotonic()
        while not self._stopping.wait(FILES_S) and self.is_sound:
            try:
                self.check_files()
                if time.monotonic() - looked >= MEMORY_S:
                    self.check_memory()
                    looked = time.monotonic()
            except _CheckStopped:
                return
            except Exception as error:  # a check that cannot be made now is made at the next look
                log.error("the base model could not be checked: %s", type(error).__name__)


def _tensors(base: Base) -> Iterator[tuple[str, Tensor]]:
    """The tensors a checkpoint holds, each once. Buffers beside them may be computed anew for longer prompts."""
    seen: set[int] = set()
    for name, tensor in base.model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            yield name, tensor


def _checksum(tensor: Tensor, between: Callable[[], None] = _do_not_wait) -> int:
    """A check sum of a tensor's bytes: it notices accidents, and nobody forges what only this process writes."""
    found = 0
    for piece in tensor.detach().reshape(-1).view(torch.uint8).split(PIECE_BYTES):
        found = zlib.crc32(piece.cpu().numpy().data, found)
        between()
    return found
