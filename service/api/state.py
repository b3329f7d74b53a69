"""The state of a running server that the routes use. `runtime` opens and closes its parts."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from anyio import CapacityLimiter
from fastapi import Depends, Request

from service.api.readiness import Readiness
from service.api.version_details import read_details
from service.api.wait_limit import WaitLimit
from service.background.prompt_reservoir import PromptReservoir
from service.domain.arithmetic import Arithmetic
from service.domain.errors import ServiceError, Stale, Unavailable
from service.editors.known_names import KnownNames
from service.editors.neutral import NeutralSentences
from service.editors.stating import Stating
from service.lifecycle import context as lifecycle
from service.lifecycle.checkpoints import load_overlay
from service.lifecycle.context_versions import publish_stated
from service.lifecycle.locality import kept_of
from service.lifecycle.notifications import Announcer
from service.lm.base import Base
from service.serving.scheduler import Scheduler
from service.serving.weight_seal import WeightSeal
from service.settings import Settings
from service.store import aliases, edits, heads, stated_edits, versions
from service.store.database import Store

EXPORTS = "exports"  # the folder in the data folder for exports that are requested over HTTP
STATING_TRIES = 3  # of a request that lets the head state its edit
ENCODERS = 8  # prompts tokenised, and versions loaded, at the same time


@dataclass(eq=False, kw_only=True)
class ServerState:
    """The parts of one running server. `is_alive` says whether its threads are alive; `ring` wakes the worker.

    `editing` returns `ok` once edits are fitted; before that, what they wait for. `get_neutral` raises Unavailable while the
    neutral sentences are not there. `check_capability` raises Refused if the base has no capability tasks. `names` are those that
    edits without a subject are told by.
    """

    settings: Settings
    base: Base
    arithmetic: Arithmetic
    seal: WeightSeal
    serving: Scheduler
    lifecycle: lifecycle.LifecycleContext
    get_neutral: Callable[[], NeutralSentences]
    reservoir: PromptReservoir
    ring: Callable[[str], None]
    is_alive: Callable[[], bool]
    editing: Callable[[], str]
    check_capability: Callable[[], None]
    names: KnownNames
    stating: Stating
    draining: threading.Event = field(default_factory=threading.Event)
    encoders: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(ENCODERS))

    @property
    def store(self) -> Store:
        return self.lifecycle.store

    @property
    def base_version(self) -> int:
        """The number of the version that is the base alone: 0 until the store is taken to another base."""
        return self.serving.base_version

    @property
    def exports(self) -> Path:
        """The folder of exports."""
        return self.settings.data_dir.resolve() / EXPORTS

    @property
    def announcer(self) -> Announcer:
        return self.lifecycle.announcer

    def resident(self, version: int | str) -> int | None:
        """The number of a version (its number, `head`, `base` or an alias) after it is loaded; None for the head. Raises
        NotFound, Gone or Corrupt.
        """
        if version == "head":
            return None
        number = version if isinstance(version, int) else self.base_version if version == "base" else self.read_alias(version)
        if not self.serving.is_resident(number):
            overlay = load_overlay(self.store, self.lifecycle.checkpoints, number)
            with self.store.read() as connection:
                stated = stated_edits.read(connection, number)
            self.serving.adopt(number, overlay, self.stating.state(stated))
        return number

    def read_alias(self, name: str) -> int:
        """The number of the version that an alias names. Raises NotFound if there is no such alias."""
        with self.store.read() as connection:
            named = aliases.get(connection, name).version
        assert named is not None
        return named

    def state_waiting(self) -> None:
        """Let the head state the edits that wait, if the context tier is on. What fails here the worker does later: the edit
        itself was accepted or taken back before.
        """
        with suppress(ServiceError):
            for _ in range(STATING_TRIES):
                with suppress(Stale):  # another publication came between, perhaps one without this edit
                    publish_stated(self.lifecycle)
                    return

    @cached_property
    def wait_limit(self) -> WaitLimit:
        """The limit on calls that wait for an outcome."""
        return WaitLimit(self.settings.limits.waiting_calls, self.settings.limits.waiting_calls_per_client)

    @cached_property
    def readiness(self) -> Readiness:
        """The check whether the database answers."""
        return Readiness(self._database)

    async def checks(self) -> dict[str, str]:
        """Each part of the server: `ok`, or its fault. Takes two seconds at most and needs no thread of the routes."""
        return {
            "database": await self.readiness.check(),
            "head": self.lifecycle.follower.degraded or "ok",
            "checkpoints": self.lifecycle.checkpoints.store_error or "ok",
            "weights": self.seal.failure or "ok",
            "files": self.seal.note or "ok",
            "worker": "ok" if self.is_alive() else "a thread of the worker, or the one that follows the head, has ended",
            "edits": self.editing(),
            "server": "stopping" if self.draining.is_set() else "ok",
        }

    def summary(self) -> dict[str, Any]:
        """The head that this process answers with, and its measurements."""
        current = self.lifecycle.follower.current
        with self.store.read() as connection:
            store_id = heads.read(connection).store_id
            version = versions.get(connection, current.version)
            counts = edits.count_by_status(connection)
            details = read_details(connection, version)
        return {
            **details,
            "store": store_id,
            "head": current.version,
            "epoch": current.epoch,
            "edits_counted": version.edits_counted,
            "window": version.window,
            "retention": version.scores.get("retention"),
            "far": kept_of(version.scores, "far"),
            "waiting": counts["queued"] + counts["applying"],
            "getting_ready": None if (state := self.editing()) == "ok" else state,
            "degraded": self.seal.failure
            or self.lifecycle.follower.degraded
            or self.lifecycle.checkpoints.store_error
            or self.seal.note,
        }

    def _database(self) -> str:
        try:
            with self.store.read() as connection:
                heads.read(connection)
        except Unavailable as error:
            return error.message
        return "ok"


async def state_of(request: Request) -> ServerState:
    """The state of the server that answers this request. Async, because all threads may be waiting for the database."""
    server: ServerState = request.app.state.server
    return server


State = Annotated[ServerState, Depends(state_of)]
