"""The assembly of a server: its parts, and the order in which they open and close."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import structlog

from service.api.state import EXPORTS, ServerState
from service.atlas import neutral_path
from service.background.evaluations import Evaluations
from service.background.exports import Exports
from service.background.prompt_reservoir import PromptReservoir
from service.domain.arithmetic import Arithmetic
from service.domain.errors import Refused, ServiceError, Unavailable
from service.domain.version import Head
from service.editors.neutral import NeutralSentences
from service.editors.neutral_store import NeutralPart, adopt_neutral, has_neutral, iterate_neutral, load_or_sample_neutral
from service.editors.protocol import Hooks
from service.editors.stating import Stating
from service.lifecycle.checkpoints import Checkpoints
from service.lifecycle.context import EditingContext, LifecycleContext
from service.lifecycle.context_versions import publish_stated
from service.lifecycle.crash_points import arm
from service.lifecycle.editors import Editors, EditorsByPart
from service.lifecycle.head_follower import HeadFollower, PublishedHead
from service.lifecycle.open_head import open_head
from service.lifecycle.settings import LifecycleSettings
from service.lifecycle.store_identity import (
    check_database_exists,
    check_same_store,
    initialise_store,
    read_pinned,
)
from service.lm.base import Base, name_of
from service.locality.meter import LocalityMeter
from service.runtime.base_model import open_base
from service.runtime.edit_preparation import READY, EditPreparation
from service.runtime.editors import bind_editors, check_editors
from service.runtime.evaluator import Evaluator, capability_tasks
from service.runtime.follow_loop import FollowLoop
from service.runtime.locality_questions import known_names, locality_questions
from service.runtime.worker import Worker
from service.serving.scheduler import Scheduler
from service.serving.weight_seal import WeightSeal
from service.settings import Settings
from service.store import bases, versions
from service.store.database import Store
from service.store.migrate import upgrade
from service.wakeup.doorbell import Doorbell
from service.wakeup.in_process import InProcessDoorbell

log = structlog.get_logger("errata.server")


Role = Literal["all", "edit", "serve"]


@contextmanager
def open_server(settings: Settings, role: Role = "all") -> Iterator[ServerState]:
    """Open the parts of a role, in order; at the end of the block they are closed in reverse order.

    `serve` answers prompts, takes edits into the store and follows the head; it fits nothing. `edit` has the worker, which fits
    and publishes; it answers no prompts. `all` is both. Several roles may work on one Postgres and one folder of checkpoints.

    What only edits need is prepared behind the open port, in a thread of its own: the first start of a large model samples its
    neutral sentences for minutes. Fits begin with a first part of them.

    The head's checkpoint is loaded and verified before the block begins, so that a port that is opened in the block never answers
    for a missing version. Raises ServiceError, with advice, if a part cannot be opened.
    """
    arm(settings.fault_point)
    with ExitStack() as stack:
        store = _open_store(settings, stack)
        base, arithmetic = _open_base(settings, store)
        reservoir = PromptReservoir(store, settings.reservoir.size)
        reservoir.start()
        stack.callback(reservoir.close)
        serving = _make_scheduler(settings, base, _read_base_version(store))
        seal = WeightSeal(base, yield_to_answers=serving.yield_to_answers, refuse=serving.refuse)
        seal.start()
        stack.callback(seal.close)
        evaluator = Evaluator(base, serving.view_of, capability_tasks(settings))
        check_editors(base, settings)
        stating = Stating(base, known_names())
        context = _lifecycle(settings, store, serving, seal, stating)
        if role != "edit":
            serving.start()
            stack.callback(serving.close, settings.limits.drain_s)
        open_head(context)
        with suppress(ServiceError):  # settings may have changed; the worker does later what fails here
            publish_stated(context)
        doorbell = _open_doorbell(settings)
        follow_loop = FollowLoop(context)
        follow_loop.start()
        stack.callback(follow_loop.stop, settings.limits.drain_s)
        stack.callback(doorbell.close)
        meter = LocalityMeter(base, serving.view_of, locality_questions())
        parts = _Parts(settings, base, serving, reservoir, evaluator, meter, context, stating, doorbell, follow_loop)
        preparation = None if role == "serve" else _start_preparation(parts, stack)
        yield ServerState(
            settings=settings,
            base=base,
            arithmetic=arithmetic,
            seal=seal,
            serving=serving,
            lifecycle=context,
            get_neutral=parts.read_neutral if preparation is None else preparation.get_neutral,
            reservoir=reservoir,
            ring=doorbell.ring,
            is_alive=lambda: follow_loop.is_alive and (preparation is None or preparation.is_alive),
            editing=lambda: READY if preparation is None else preparation.state,
            check_capability=evaluator.check_capability,
            names=known_names(),
            stating=stating,
        )


def _open_store(settings: Settings, stack: ExitStack) -> Store:
    """The database with its newest schema. Its checkpoints were found to belong to it."""
    store = Store(settings.store_url)
    stack.callback(store.close)
    store.lock_folder()
    check_database_exists(store, settings.checkpoints)
    upgrade(settings.store_url)
    check_same_store(store, settings.checkpoints)  # before the model is loaded, which takes long
    return store


def _open_base(settings: Settings, store: Store) -> tuple[Base, Arithmetic]:
    """The base model, which must be the store's, on the store's day, and the arithmetic, which is the store's from now on."""
    pinned = read_pinned(store)
    base, arithmetic = open_base(settings, pinned)
    anatomy: dict[str, str | int] = {"family": base.anatomy.family, "blocks": base.anatomy.depth, "width": base.anatomy.width}
    if base.part_of is not None:
        anatomy["part_of"] = base.part_of
        log.info("the model is composite: its text part is served, and takes text alone")
    log.info("model loaded", **anatomy, device=str(base.device), dtype=name_of(base.dtype))
    initialise_store(
        store,
        fingerprint=base.fingerprint,
        name=base.name,
        checkpoints=settings.checkpoints,
        arithmetic=arithmetic,
        pinned=pinned,
        former=_former_fingerprint(settings, pinned, base),
    )
    with store.read() as connection:
        return replace(base, day=versions.read_first_day(connection)), arithmetic


def _read_base_version(store: Store) -> int:
    with store.read() as connection:
        return bases.read_first_version(connection)


def _former_fingerprint(settings: Settings, pinned: Head | None, base: Base) -> str | None:
    """The fingerprint by which an older release pinned this base to the store; None if there is none. The neutral sentences that
    are kept under it are kept under the base's present one from here on, before the store forgets the former one.
    """
    former = None if pinned is None else pinned.base_fingerprint
    if former in (None, base.fingerprint) or not base.is_pinned_as(former):
        return None
    adopt_neutral(former, base, settings.data_dir / "neutral", settings=settings.neutral)
    log.info("the base model is pinned by what is used of it from now on, and not by its files")
    return former


def _make_scheduler(settings: Settings, base: Base, base_version: int) -> Scheduler:
    return Scheduler(
        base,
        base_version=base_version,
        resident=settings.generation.resident_versions,
        max_batch=settings.generation.batch,
        queue_limit=settings.generation.queue,
    )


@dataclass(frozen=True, eq=False)
class _Parts:
    """The parts of a server that editing uses."""

    settings: Settings
    base: Base
    serving: Scheduler
    reservoir: PromptReservoir
    evaluator: Evaluator
    meter: LocalityMeter
    context: LifecycleContext
    stating: Stating
    doorbell: Doorbell
    follow_loop: FollowLoop

    @property
    def neutral_folder(self) -> Path:
        return self.settings.data_dir / "neutral"

    def read_neutral(self) -> NeutralSentences:
        """The neutral sentences, of a server that samples none. Raises Unavailable if nobody has sampled them yet."""
        settings, shipped = self.settings.neutral, neutral_path()
        if not has_neutral(self.base, self.neutral_folder, settings=settings, shipped=shipped):
            raise Unavailable("The neutral sentences of the base model are not there yet: a server that edits samples them.")
        return load_or_sample_neutral(self.base, self.neutral_folder, settings=settings, shipped=shipped)

    def iterate_neutral(self, hooks: Hooks) -> Iterator[NeutralPart]:
        """The neutral sentences, a first part and then all; sampled if nobody has sampled them yet."""
        settings = self.settings.neutral
        return iterate_neutral(self.base, self.neutral_folder, settings=settings, shipped=neutral_path(), hooks=hooks)

    def begin_edits(self, part: NeutralPart, hooks: Hooks, stack: ExitStack) -> "_Editing":
        """All that edits need, and a worker that is not started."""
        editors_by_part = EditorsByPart(self.prepare_editors(part, hooks))
        return _Editing(self, editors_by_part, self._make_worker(self.context.with_editors(editors_by_part), stack))

    def prepare_editors(self, part: NeutralPart, hooks: Hooks) -> Editors:
        """The editors for a part of the neutral sentences, with what their first fit needs."""
        view_of, settings = self.serving.view_of, self.settings
        self.meter.set_sentences(part.neutral.held_out)
        editors = bind_editors(
            self.base,
            view_of,
            part.neutral,
            self.evaluator,
            settings,
            self.reservoir.sample,
            has_all=part.is_whole,
            meter=self.meter,
        )
        hooks.progress(0.0, "preparing fits")
        # A fit that needs the same waits for it, so that it gives way to answers alone.
        hooks = replace(hooks, yield_to_answers=self.serving.yield_to_answers)
        editors.incremental.prepare(self.context.follower.current.overlay, hooks=hooks, ahead=False)
        return editors

    def _make_worker(self, context: EditingContext, stack: ExitStack) -> Worker:
        """The worker with its chores."""
        evaluations = Evaluations(context, self.evaluator)
        stack.callback(evaluations.close)
        exports = Exports(
            context.store,
            self.base,
            context.checkpoints,
            self.settings.data_dir.resolve() / EXPORTS,
            self.stating,
            max_shard_size=self.settings.export.max_shard_size,
            ring=self.doorbell.ring,
            clock=context.store.clock,
        )
        return Worker(
            context,
            doorbell=self.doorbell,
            follow_loop=self.follow_loop,
            is_only_server=context.store.is_sqlite,
            chores=[evaluations.step, exports.step],
        )


@dataclass(frozen=True, eq=False)
class _Editing:
    """What fits edits, with the neutral sentences that are there."""

    parts: _Parts
    editors_by_part: EditorsByPart
    worker: Worker

    def grow(self, part: NeutralPart, hooks: Hooks) -> None:
        """Let later fits use more neutral sentences."""
        self.editors_by_part.grow(self.parts.prepare_editors(part, hooks))

    def calibrate(self, hooks: Hooks) -> None:
        """Find what the base model is sure of, and its noise floors: acceptance judges by these from then on."""
        self.parts.meter.calibrate(self.parts.settings.data_dir / "locality", hooks)


def _start_preparation(parts: _Parts, stack: ExitStack) -> EditPreparation:
    preparation = EditPreparation(parts.iterate_neutral, parts.begin_edits, give_way=parts.context.yield_to_edits)
    preparation.start()
    stack.callback(preparation.stop, parts.settings.limits.drain_s)
    return preparation


def _open_doorbell(settings: Settings) -> Doorbell:
    return InProcessDoorbell() if settings.buffer_url is None else _redis_doorbell(settings.buffer_url, settings.redis_prefix)


def _lifecycle(settings: Settings, store: Store, serving: Scheduler, seal: WeightSeal, stating: Stating) -> LifecycleContext:
    checkpoints = Checkpoints(settings.checkpoints, fingerprint=serving.base.fingerprint)

    def serve_head(published: PublishedHead) -> None:
        serving.adopt(published.version, published.overlay, stating.state(published.stated))
        serving.set_head(published.version, published.epoch)

    return LifecycleContext(
        store=store,
        checkpoints=checkpoints,
        follower=HeadFollower(store, checkpoints, serve_head),
        settings=LifecycleSettings(
            method=settings.default_method,
            incremental_method=settings.incremental_method,
            consolidating_method=settings.consolidating_method,
            cadence=settings.cadence,
            acceptance=settings.window.acceptance(),
            tier=settings.window.tier(),
            firmer=settings.window.firmer,
            fit_s=settings.limits.fit_s,
            monitor_s=settings.window.monitor_s,
            monitor_sample=settings.window.monitor_sample,
            keep_last=settings.retention.keep_last,
            keep_every=settings.retention.keep_every,
            trash_s=settings.retention.trash_days * 86_400,
        ),
        yield_to_answers=serving.yield_to_answers,
        clock=store.clock,
        is_sound=lambda: seal.is_sound,
    )


def _redis_doorbell(url: str, prefix: str) -> Doorbell:
    try:
        from service.wakeup.redis_stream import RedisDoorbell  # its client is an extra of the package
    except ImportError:
        raise Refused("redis_url is set, and the Redis client is not installed: pip install 'errata-server[redis]'") from None
    return RedisDoorbell(url, prefix=prefix)
