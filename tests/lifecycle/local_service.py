"""A whole server without HTTP and without a model: store, overlays, follower, worker, and the ledger as editor."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from service.domain.arithmetic import Arithmetic
from service.domain.cadence import Cadence, Mode
from service.domain.edit import JUDGED, Accept, Edit, EditRequest, EditStatus
from service.domain.liveset import LiveSet
from service.domain.version import Version, VersionStatus
from service.lifecycle.checkpoints import Checkpoints
from service.lifecycle.context import EditingContext
from service.lifecycle.editors import EditorsByPart
from service.lifecycle.head_follower import HeadFollower, PublishedHead
from service.lifecycle.open_head import OpenedHead, open_head
from service.lifecycle.retract import Retraction, retract
from service.lifecycle.retrain.request import request_retrain
from service.lifecycle.rollback import RollbackResult, roll_back
from service.lifecycle.settings import LifecycleSettings
from service.lifecycle.store_identity import initialise_store, read_pinned
from service.lm.checkpoint_folder import CheckpointFolder
from service.lm.checkpoint_store import CheckpointStore
from service.runtime.worker import Worker
from service.store import edits, events, heads, jobs, versions
from service.store.database import Store
from service.store.jobs import Job
from service.store.migrate import upgrade
from tests.lifecycle.ledger import Ledger, answer, trained_edits_of
from tests.servers import postgres_database
from tests.submission import submit

PATIENT = Cadence(soft=1_000, hard=2_000, deferred=1_000, deferred_s=1e9)  # nothing is due by itself
MANUAL = replace(PATIENT, automatic=False)  # no retrain comes by itself, not even after a retraction

ARITHMETIC = Arithmetic(dtype="float32", dtype_reason="set", threads=1, threads_reason="set")

MakeService = Callable[..., "LocalService"]


class Crash(BaseException):
    """The process ends here."""


class LocalService:
    """The parts of one process over one database and folder; several services may share both. `close` is no clean stop.

    Checkpoints are kept in the folder, unless another place is given.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        *,
        ledger: Ledger | None = None,
        settings: LifecycleSettings | None = None,
        alone: bool = True,
        checkpoints: CheckpointStore | None = None,
        fingerprint: str = "base",
    ) -> None:
        self.url, self.folder = url, folder
        self.ledger = ledger or Ledger()
        self.settings = settings or LifecycleSettings(cadence=PATIENT)
        self.store = Store(url)
        self.checkpoints = checkpoints or CheckpointFolder(folder)
        pinned = read_pinned(self.store)
        initialise_store(
            self.store,
            fingerprint=fingerprint,
            name="ledger",
            checkpoints=self.checkpoints,
            arithmetic=ARITHMETIC if pinned is None or pinned.arithmetic is None else pinned.arithmetic,
            pinned=pinned,
        )
        overlays = Checkpoints(self.checkpoints, fingerprint=fingerprint)
        self.swaps: list[PublishedHead] = []
        follower = HeadFollower(self.store, overlays, self.swaps.append)
        self.context = EditingContext(
            store=self.store,
            checkpoints=overlays,
            editors_by_part=EditorsByPart(self.ledger.editors()),
            follower=follower,
            settings=self.settings,
            clock=self.store.clock,
        )
        self.opened: OpenedHead = open_head(self.context)
        self.worker = Worker(self.context, is_only_server=alone)

    def again(self, **changed: object) -> "LocalService":
        """The same database and folder after this process died."""
        self.close()
        kept = {"ledger": self.ledger, "settings": self.settings, "checkpoints": self.checkpoints}
        return LocalService(self.url, self.folder, **{**kept, **changed})  # type: ignore[arg-type]

    def close(self) -> None:
        self.store.close()

    @property
    def exports(self) -> Path:
        """The folder of exports."""
        return self.folder.parent / "exports"

    def post(
        self, *facts: tuple[str, str], method: str = "auto", author: str = "ann", tokens: int = 0, accept: Accept = JUDGED
    ) -> list[Edit]:
        """Submit edits given as (prompt, target), in one batch; each is said to cost so many tokens."""
        requests = [EditRequest(prompt=prompt, target=target, method=method, accept=accept) for prompt, target in facts]
        return list(submit(self.store, requests, author=author, cost_of=lambda request, at: tokens).edits)

    def live(self, *facts: tuple[str, str]) -> list[Edit]:
        """Submit edits one by one and apply each."""
        made = []
        for fact in facts:
            made += self.post(fact)
            self.worker.drain()
        return made

    def retract(self, edit: Edit, *, restore_previous: bool = False) -> Retraction:
        return retract(self.store, edit.id, author="ann", restore_previous=restore_previous)

    def roll_back(self, to: int, *, requeue: bool = False, if_match: int | None = None) -> RollbackResult:
        return roll_back(self.context, to=to, author="ann", reason="test", requeue=requeue, if_match=if_match)

    def retrain(self, mode: Mode | None = None) -> Job:
        return request_retrain(self.store, author="ann", reason="test", mode=mode)

    def edit(self, edit: Edit) -> Edit:
        with self.store.read() as connection:
            return edits.get(connection, edit.id)

    def all_edits(self) -> list[Edit]:
        with self.store.read() as connection:
            return edits.read_page(connection, limit=1_000)

    def edit_by(self, prompt: str) -> Edit:
        """The edit accepted last with a prompt."""
        return [edit for edit in self.all_edits() if edit.prompt == prompt][-1]

    def statuses(self, made: Sequence[Edit]) -> list[EditStatus]:
        return [self.edit(edit).status for edit in made]

    @property
    def head(self) -> Version:
        with self.store.read() as connection:
            return versions.get(connection, heads.read(connection).version)

    @property
    def live_set(self) -> LiveSet:
        with self.store.read() as connection:
            return versions.read_live_set(connection, heads.read(connection).version)

    def unknown_lessons(self, *asked: Version) -> list[tuple[int, str, str]]:
        """What overlays of versions (default: of all) were trained on though no item of their live sets says so: (version, key,
        target).
        """
        found = []
        for version in asked or [one for one in self.versions() if one.status is VersionStatus.PUBLISHED]:
            with self.store.read() as connection:
                known = edits.read_many(connection, versions.read_live_set(connection, version.number).by_id)
            lessons = trained_edits_of(self.context.checkpoints.get_overlay(version)) - {
                (edit.key, edit.target) for edit in known
            }
            found += [(version.number, key, target) for key, target in sorted(lessons)]
        return found

    def versions(self) -> list[Version]:
        with self.store.read() as connection:
            return versions.read_page(connection, limit=1_000)[::-1]

    def events_of(self, edit: Edit) -> list[Mapping[str, Any]]:
        """The events of an edit, oldest first."""
        with self.store.read() as connection:
            return events.read_page(connection, limit=1_000, edit_id=edit.id)

    def event_types(self) -> list[str]:
        with self.store.read() as connection:
            return [event["type"] for event in events.read_page(connection, limit=10_000)]

    def says(self, prompt: str, *, version: int | None = None) -> str:
        """What the process answers now, or what a version on disk would."""
        asked = EditRequest(prompt=prompt, target="?")
        overlay = self.context.follower.current.overlay
        if version is not None:
            with self.store.read() as connection:
                overlay = self.context.checkpoints.get_overlay(versions.get(connection, version))
        return answer(overlay, asked)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def migrated() -> bytes:
    """An empty SQLite file with the schema, made once: migrating takes longer than most tests."""
    with tempfile.TemporaryDirectory() as folder:
        upgrade(f"sqlite:///{folder}/errata.db")
        return Path(folder, "errata.db").read_bytes()


def new_local_service(folder: Path, **given: object) -> LocalService:
    """A service over a new SQLite file."""
    (folder / "errata.db").write_bytes(migrated())
    url = f"sqlite:///{folder / 'errata.db'}"
    return LocalService(url, folder / "checkpoints", **given)  # type: ignore[arg-type]


def job_of(local: LocalService, job: Job) -> Job:
    """A job as it stands now."""
    with local.store.read() as connection:
        return jobs.get(connection, job.id)


def retrained(local: LocalService, mode: Mode | None = None) -> Job:
    """Ask for a retrain, let it happen, and read its job."""
    job = local.retrain(mode)
    local.worker.drain()
    return job_of(local, job)


def log_text(job: Job) -> str:
    """A job's log in one line."""
    return "; ".join(line["message"] for line in job.log)


def count_trainings(local: LocalService) -> int:
    """How many retrains were trained."""
    return sum(method == "locft" for method, _, _ in local.ledger.fits)


def once(work: object) -> object:
    """A hook that does its work in the first fit only."""
    left = [work]

    def during(method: str) -> None:
        if left:
            left.pop()()  # type: ignore[operator]

    return during


class LoseNewest:
    """Makes the fits of a method lose the newest edit that they train on, unless it is the only one."""

    def __init__(self, local: LocalService, method: str = "baft") -> None:
        self._local = local
        local.ledger.not_taken[method] = self  # type: ignore[assignment]

    def __contains__(self, target: str) -> bool:
        targets = self._local.ledger.fits[-1][1]
        return target == targets[-1] and len(targets) > 1


def live_ids(local: LocalService, number: int) -> frozenset[str]:
    """The ids of a version's live edits."""
    with local.store.read() as connection:
        return versions.read_live_set(connection, number).ids


def flip_bit(local: LocalService, number: int) -> None:
    """Flip one bit of a version's checkpoint."""
    path = local.folder / f"{local.versions()[number].digest}.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@contextmanager
def local_services(kind: str, folder: Path) -> Iterator[MakeService]:
    """A function that opens services over a new database of a kind: `sqlite` or `postgres`. They are closed at the end."""
    with ExitStack() as stack:

        def make(**options: object) -> LocalService:
            if kind == "sqlite":
                service = new_local_service(folder, **options)
            else:
                url = stack.enter_context(postgres_database())
                upgrade(url)
                service = LocalService(url, folder / "checkpoints", **options)  # type: ignore[arg-type]
            stack.callback(service.close)
            return service

        yield make
