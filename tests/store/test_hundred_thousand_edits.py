"""A store with 100,000 live edits: what one more edit, a retraction, a rollback and a retrain write and load goes by what they
change.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
import torch

from service.domain.cadence import Cadence
from service.domain.edit import Edit, EditStatus
from service.domain.liveset import CONSOLIDATED_SAMPLE, Carrier, LiveItem, LiveSet
from service.domain.version import Version, VersionStatus
from service.editors.protocol import FitItem, FitResult, Hooks
from service.lifecycle.apply import apply
from service.lifecycle.lease import Lease
from service.lifecycle.locality import NEAR_EDITS
from service.lifecycle.refit import refit
from service.lifecycle.retrain.run import ApplyPause, retrain
from service.lifecycle.settings import LifecycleSettings
from service.lm.overlay import Overlay
from service.store import edits, events, heads, jobs, versions
from service.store import tables as t
from service.store.migrate import upgrade
from tests.lifecycle.ledger import Ledger
from tests.lifecycle.local_service import LocalService
from tests.store.store_kinds import KINDS, database

MANY = {"sqlite": 100_000, "postgres": 10_000}  # the code is the same, and a row takes longer to send to a server
NOW = datetime(2026, 1, 2, tzinfo=UTC)
QUIET = LifecycleSettings(cadence=Cadence(automatic=False, hard=100))


class Trusting(Ledger):
    """A ledger that does not write down what its tensors say: 100,000 lines would take longer to read than all that is tested."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[int] = []  # items of each fit

    def _fitted(self, method: str, overlay: Overlay, new: Sequence[FitItem], window: Sequence[FitItem]) -> FitResult:
        self.given.append(len(new) + len(window))
        if method == "locft":
            overlay = Overlay({"many": torch.tensor([float(len(new))])}, None)
        return FitResult(overlay, {item.edit.id: {"method": method, "taken": True} for item in new}, (), {"retention": 1.0})

    def locft(self, items: Sequence[FitItem], *given: object, **named: object) -> FitResult:
        hooks = next(one for one in (*given, *named.values()) if isinstance(one, Hooks))
        hooks.begin_step()
        return self._fitted("locft", Overlay({}, None), items, ())


@pytest.fixture(params=KINDS)
def local(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalService]:
    """A server of many edits that a retrain put into the tensors as version 1."""
    with database(request.param, tmp_path) as url:
        upgrade(url)
        local = LocalService(url, tmp_path / "checkpoints", ledger=Trusting(), settings=QUIET)
        fill(local, MANY[request.param])
        yield local.again()
        local.close()


def fill(local: LocalService, count: int) -> None:
    digest = local.context.checkpoints.save(Overlay({"many": torch.tensor([float(count)])}, None))
    plain = {"status": "consolidated", "method": "auto", "surfaces": ["raw"], "metadata": {}, "author": "ann", "created_at": NOW}
    plain |= {"applied_at": NOW, "version": 1, "scores_due": False, "restore_previous": False}
    probes = {"rephrases": [{"prompt": "again?", "answer": None, "train": True, "group": None}] * 3}
    with local.store.write() as connection:
        heads.lock(connection)
        first = heads.take_seqs(connection, count)
        rows = [(f"edit-{seq}", f"{seq * 2_654_435_761 % 2**32:064x}", seq) for seq in range(first, first + count)]
        connection.execute(
            sa.insert(t.edits),
            [
                {"id": name, "seq": seq, "key_digest": key, "prompt": f"p{seq}", "target": "x", "probes": probes, **plain}
                for name, key, seq in rows
            ],
        )
        moved = heads.move(connection, heads.read(connection), fence=None, reason=None, author="ann", now=NOW)
        kind, status = "locft", VersionStatus.PUBLISHED
        made = {"number": moved.version, "kind": kind, "status": status, "parent": 0, "digest": digest, "created_at": NOW}
        held = [LiveItem(edit_id=name, key=key, seq=seq, carrier=Carrier.TENSORS, is_in_tensors=True) for name, key, seq in rows]
        versions.insert(connection, Version(**made, author="ann"), LiveSet(tuple(held)), fence=None, job_id=None)  # type: ignore[arg-type]


@contextmanager
def counted(local: LocalService) -> Iterator[Counter[str]]:
    """Rows written by table, edits loaded whole (`loaded`: as many as were asked for) or read while others wait for the head
    (`asked under the lock`), and times that a live set was read, and that of version 1.
    """
    count: Counter[str] = Counter()

    def note(connection: object, cursor: object, sql: str, given: Sequence[object], context: object, many: bool) -> None:
        verb, *words = sql.replace('"', "").split()
        if verb in ("INSERT", "UPDATE", "DELETE"):
            table = words[0 if verb == "UPDATE" else 1]
            count[table] += len(given) if many else max(cursor.rowcount, 0)  # type: ignore[attr-defined]
        elif "edits.target" in sql and connection.engine is local.store._writer:  # type: ignore[attr-defined]
            count["asked under the lock"] += len(given)
        elif "edits.probes" in sql:
            count["loaded"] += len(given)
        elif "FROM version_edits JOIN" in " ".join(words):
            count["sets read"] += 1
            values = given.values() if isinstance(given, dict) else given
            count["roots read"] += 1 in list(values)

    engines = {local.store._writer, local.store._reader}
    for engine in engines:
        sa.event.listen(engine, "after_cursor_execute", note)
    try:
        yield count
    finally:
        for engine in engines:
            sa.event.remove(engine, "after_cursor_execute", note)


def turn_of(local: LocalService) -> Lease:
    local.worker._hold_lease()
    fence = local.worker.fence
    assert fence is not None
    return Lease(fence)


def edit_named(local: LocalService, edit_id: str) -> Edit:
    with local.store.read() as connection:
        return edits.get(connection, edit_id)


def test_rows_written_and_loaded_grow_with_the_changes_and_not_with_the_live_set(local: LocalService) -> None:
    ledger, many = local.ledger, local.head.edits_counted
    assert isinstance(ledger, Trusting) and many == MANY["sqlite" if local.store.is_sqlite else "postgres"]
    turn = turn_of(local)
    apply(local.context, turn)

    with counted(local) as first:
        (edit,) = local.post(("new", "1"))
        apply(local.context, turn)
    with counted(local) as second:
        local.post(("newer", "2"))
        apply(local.context, turn)
        assert refit(local.context, turn) is False

    assert local.head.edits_counted == many + 2 and local.head.window == 2
    assert (first["roots read"], second["roots read"], second["sets read"]) == (1, 0, 0)
    assert second["version_edits"] == 2 and second["edits"] <= 4 and second["events"] <= 5
    assert second["loaded"] <= CONSOLIDATED_SAMPLE + 20
    assert ledger.given[-1] == CONSOLIDATED_SAMPLE + 2

    with counted(local) as retracting:
        local.retract(edit_named(local, "edit-7"))
        assert refit(local.context, turn) is True

    assert local.head.edits_counted == many + 1
    assert retracting["version_edits"] == 3 and retracting["edits"] <= 4 and retracting["loaded"] <= CONSOLIDATED_SAMPLE + 20

    with counted(local) as back:
        local.roll_back(2)

    assert local.live_set.ids == {f"edit-{n}" for n in range(1, many + 1)} - {"edit-7"} | {edit.id}
    assert back["version_edits"] == 2 and back["edits"] <= 3 and back["loaded"] == 0

    refit(local.context, turn)
    with local.store.write() as connection:
        heads.lock(connection)
        jobs.insert(connection, "retrain", reason=None, author="ann", now=NOW, mode="major")
    with counted(local) as trained:
        assert retrain(local.context, turn, ApplyPause()) is True

    assert local.head.kind == "locft" and local.head.window == 0 and local.head.edits_counted == many
    assert local.edit(edit).status is EditStatus.CONSOLIDATED
    assert local.edit(edit).report == {"method": "locft", "taken": True}
    assert edit_named(local, "edit-9").report is None, "of an edit that stays where it was nothing is written"
    assert trained["version_edits"] == 2, "what was in the tensors before is in them again: only the change is written"
    assert trained["edits"] <= 10 and trained["events"] <= 10 and trained["asked under the lock"] == 0
    assert many <= trained["loaded"] <= many + CONSOLIDATED_SAMPLE + NEAR_EDITS
    with local.store.read() as connection:
        assert len(events.read_page(connection, limit=5, after=10)) == 5
        assert versions.read_live_set(connection, local.head.number).consolidated == local.live_set.live
