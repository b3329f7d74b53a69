"""One version opened for reading in this process, for the evaluation harness. Works beside a running server."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date

from service.domain.errors import Conflict
from service.domain.version import Head
from service.editors.stating import Stating
from service.lifecycle.checkpoints import Checkpoints
from service.lifecycle.store_identity import check_same_store, read_pinned
from service.lm.base import Base
from service.lm.intervention import Adapter
from service.lm.overlay import EMPTY, Overlay, View, make_view
from service.lm.stated_edits import StatedEdits
from service.runtime.base_model import open_base
from service.runtime.locality_questions import known_names
from service.settings import Settings
from service.store import bases, heads, stated_edits, versions
from service.store.database import Store


@contextmanager
def open_version(settings: Settings, version: str) -> Iterator[tuple[int, View, Adapter | None]]:
    """The number of a version (named by its number, `head` or `base`), its view and its adapter. Nothing is written.

    The head of a store that does not exist yet is the base model. The arithmetic is the store's. Raises NotFound, Gone or Corrupt
    for a version that cannot answer, Conflict if the store belongs to another base model or dtype.
    """
    base, _ = open_base(settings, read_head_of_store(settings))
    number, overlay, day = read_overlay(settings, version, base)
    base = replace(base, day=day)
    yield number, make_view(base, overlay.tensors), overlay.adapter


def _is_new(settings: Settings) -> bool:
    return settings.database_url is None and not (settings.data_dir / "errata.db").is_file()


def read_head_of_store(settings: Settings) -> Head | None:
    """The head of the configured store, which names what it has pinned; None for a store that does not exist yet."""
    if _is_new(settings):
        return None
    store = Store(settings.store_url)
    try:
        return read_pinned(store)
    finally:
        store.close()


def read_overlay(settings: Settings, version: str, base: Base) -> tuple[int, Overlay, date]:
    if _is_new(settings) and version in ("base", "0", "head"):
        return 0, EMPTY, base.day
    store = Store(settings.store_url)
    try:
        if version == "base":  # of any store, also of one with another base: nothing of the store is computed
            return _read_base_version(store), EMPTY, base.day
        check_same_store(store, settings.checkpoints)
        with store.read() as connection:
            head = heads.read(connection)
            row = versions.get(connection, head.version if version == "head" else int(version))
            day = versions.read_first_day(connection)
        if not base.is_pinned_as(head.base_fingerprint):
            raise Conflict("the store's versions are of another base model; name that one with --model", field="model")
        checkpoints = Checkpoints(settings.checkpoints, fingerprint=head.base_fingerprint)
        return row.number, checkpoints.get_overlay(row), day
    finally:
        store.close()


def read_stated(settings: Settings, number: int, base: Base) -> StatedEdits:
    """The edits that a version of a store states. Raises NotFound if there is no such version."""
    store = Store(settings.store_url)
    try:
        with store.read() as connection:
            return Stating(base, known_names()).state(stated_edits.read(connection, versions.get(connection, number).number))
    finally:
        store.close()


def _read_base_version(store: Store) -> int:
    with store.read() as connection:
        is_initialised, _ = heads.read_store(connection)
        return bases.read_first_version(connection) if is_initialised else 0
