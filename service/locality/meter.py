"""The meter of locality: what a version keeps of the base's known answers and of its prose.

Four groups, from the nearest to an edit to the farthest. *Near*: the edit's prompt about other subjects. *Same subject*: what
else is known of the edit's subject. *Far*: known answers about anything else. *Prose*: sentences that no fit sees. Probes that a
client posted with an edit are asked as a group of their own.
"""

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from service.domain.edit import Edit
from service.domain.even_choice import choose_evenly
from service.editors.cache import KeyedCache
from service.editors.known_names import KnownNames
from service.editors.neutral import Sentence, cut_rows
from service.editors.protocol import Hooks
from service.lm.base import Base
from service.lm.overlay import EMPTY, Overlay, View
from service.lm.prompts import Row, encode_if_it_fits
from service.lm.scoring import decode_greedily
from service.lm.tokenizing import decode_answer
from service.locality.asking import LocalityAsker
from service.locality.calibration import Calibration, load_or_calibrate
from service.locality.known import ANSWER_TOKENS, CONFIDENT_LOSS, SURE_LOSS, find_known
from service.locality.near import is_about, near_questions
from service.locality.prose import ProseChange, divergence_of, kept_of
from service.locality.questions import KnownAnswer, Question
from service.locality.share import KeptShare, share_of

NEAR = 12  # known answers near one edit
EDITS_ASKED = 8  # edits of a publication whose surroundings are asked, evenly chosen
PROSE = 100  # sentences
_KEPT_SURROUNDINGS = 512  # edits


@dataclass(frozen=True)
class Surroundings:
    """The known answers around one edit, by group, and what is said of its subject that the edit changes."""

    subject: str | None
    answers: tuple[str, ...]
    near: tuple[KnownAnswer, ...]
    same_subject: tuple[KnownAnswer, ...]
    given: tuple[KnownAnswer, ...]


class LocalityMeter:
    """Measures versions of one base model. Several threads may use it.

    `questions` are what the base is asked for known answers. Far answers are asked after `calibrate`, and prose once
    `set_sentences` has said which sentences no fit sees.
    """

    def __init__(self, base: Base, view_of: Callable[[Overlay], View], questions: Sequence[Question]) -> None:
        self._base, self._view_of = base, view_of
        self._questions = tuple(question for question in questions if question.surface in base.surfaces)
        self._names = KnownNames((question.subject, question.relation) for question in self._questions)
        self._surroundings = KeyedCache()
        self._held_out: tuple[Sentence, ...] = ()
        self._prose: tuple[Row, ...] = ()
        self._calibration: Calibration | None = None
        self._calibrating = threading.Lock()
        self._prepared = EMPTY  # the overlay prepared last: its shape is that of the next ones
        self._far_kept: WeakKeyDictionary[Overlay, list[bool]] = WeakKeyDictionary()
        self._prose_changes: WeakKeyDictionary[Overlay, list[ProseChange]] = WeakKeyDictionary()

    @cached_property
    def _asker(self) -> LocalityAsker:
        return LocalityAsker(self._base_view)

    @property
    def _base_view(self) -> View:
        return self._view_of(EMPTY)

    @property
    def is_calibrated(self) -> bool:
        """Whether far answers and noise floors are known. Before that, acceptance judges what is near an edit, and prose."""
        return self._calibration is not None

    @property
    def subjects(self) -> Collection[str]:
        """The subjects that are asked about. What is asked about the subjects of live edits may change on purpose."""
        return self._names.all

    @property
    def calibration(self) -> Calibration | None:
        """The far answers and the noise floors; None before `calibrate`."""
        return self._calibration

    def set_sentences(self, held_out: Sequence[Sentence]) -> None:
        """Say which sentences no fit sees."""
        self._held_out = tuple(held_out)
        self._prose = tuple(cut_rows(self._base, self._held_out[:PROSE]))

    def calibrate(self, folder: Path, hooks: Hooks) -> None:
        """Find the far answers and the noise floors, or read them from `folder`. Raises FitCancelled if `hooks` say so."""
        with self._calibrating:
            if self._calibration is None:
                self._calibration = load_or_calibrate(
                    self._base_view, self._asker, self._questions, self._held_out, self._prose, folder, hooks
                )
                self.prepare(self._prepared, hooks)

    def prepare(self, overlay: Overlay, hooks: Hooks, ahead: bool = False) -> None:
        """Compute what the first measurement on the tensors of `overlay` would have to compute. Changes no result."""
        self._prepared = overlay
        if overlay.adapter is not None:
            view = self._view_of(Overlay(overlay.tensors))
            for name, rows in self._fixed_rows():
                self._asker.prepare(name, rows, view, overlay.adapter, hooks, ahead=ahead)

    def measure(
        self, overlay: Overlay, parent: Overlay, edits: Sequence[Edit], edited: Collection[str], hooks: Hooks
    ) -> dict[str, Any]:
        """By group, what a version keeps of the base's answers: `kept`, `n`, `interval`, `floor` (what the base keeps of itself)
        and `newly_lost`, the share that the version before keeps and this one does not. A group without questions is absent.

        `edits` are new in the version, and `edited` the subjects of the live edits, whose answers may change on purpose. Raises
        FitCancelled if `hooks` say so.
        """
        return {
            **self.measure_around(overlay, parent, choose_evenly(edits, EDITS_ASKED), edited, hooks),
            **self.measure_fixed(overlay, parent, edited, hooks),
        }

    def measure_around(
        self, overlay: Overlay, parent: Overlay, edits: Sequence[Edit], edited: Collection[str], hooks: Hooks
    ) -> dict[str, Any]:
        """The groups around edits: near, same subject and given."""
        found = [self._find_surroundings(edit, hooks) for edit in edits]
        groups: dict[str, Any] = {}
        for name, rows in _rows_around(found, edited).items():
            after = self._asker.ask("", rows, self._view(overlay), overlay.adapter, hooks)
            before = [True] * len(rows)
            if not _is_base(parent):
                before = self._asker.ask("", rows, self._view(parent), parent.adapter, hooks)
            if name == "same_subject":  # what the version before does not keep, another edit may have changed on purpose
                after = [is_kept for is_kept, was_kept in zip(after, before, strict=True) if was_kept]
                before = [True] * len(after)
            groups |= _group(name, before, after, self._floor("far"))
        return groups

    def measure_fixed(self, overlay: Overlay, parent: Overlay, edited: Collection[str], hooks: Hooks) -> dict[str, Any]:
        """The groups that every version is asked: far and prose."""
        far = () if self._calibration is None else self._calibration.far
        asked = [number for number, known in enumerate(far) if known.subject not in edited]
        before, after = (self._ask_far(version, hooks) for version in (parent, overlay))
        groups = _group("far", [before[number] for number in asked], [after[number] for number in asked], self._floor("far"))
        return {**groups, **self._measure_prose(overlay, parent, hooks)}

    def compare_prose(self, overlay: Overlay, sentences: Sequence[Sentence], hooks: Hooks) -> KeptShare | None:
        """The share of tokens of other sentences whose likeliest one is kept."""
        rows = cut_rows(self._base, sentences)
        return kept_of(self._asker.compare("sentences", rows, self._view(overlay), overlay.adapter, hooks))

    def _ask_far(self, overlay: Overlay, hooks: Hooks) -> list[bool]:
        """Whether each far answer is kept. A version is asked once: it is the next one's parent."""
        far = () if self._calibration is None else self._calibration.far
        if _is_base(overlay) or not far:  # rows prepared under one name must never change: none before they are known
            return [True] * len(far)
        kept = self._far_kept.get(overlay)
        if kept is None or len(kept) != len(far):
            kept = self._asker.ask("far", [known.row for known in far], self._view(overlay), overlay.adapter, hooks)
            self._far_kept[overlay] = kept
        return kept

    def _compare(self, overlay: Overlay, hooks: Hooks) -> list[ProseChange]:
        if _is_base(overlay):
            return [ProseChange(1.0, 0.0, len(row.target_ids)) for row in self._prose]
        changes = self._prose_changes.get(overlay)
        if changes is None or len(changes) != len(self._prose):
            changes = self._asker.compare("prose", self._prose, self._view(overlay), overlay.adapter, hooks)
            self._prose_changes[overlay] = changes
        return changes

    def _measure_prose(self, overlay: Overlay, parent: Overlay, hooks: Hooks) -> dict[str, Any]:
        changes = self._compare(overlay, hooks)
        parent_changes = self._compare(parent, hooks)
        kept, before = kept_of(changes), kept_of(parent_changes)
        divergence, parent_divergence = divergence_of(changes), divergence_of(parent_changes)
        if kept is None or before is None or divergence is None or parent_divergence is None:
            return {}
        more = {
            "divergence": divergence.kept,
            "divergence_floor": self._floor("divergence"),
            "parent_divergence": parent_divergence.kept,
        }
        fall = max(0.0, before.kept - kept.kept)
        return {"prose": {**kept.to_json(), "floor": self._floor("prose"), "newly_lost": fall, **more}}

    def _find_surroundings(self, edit: Edit, hooks: Hooks) -> Surroundings:
        """What the base is sure of around an edit. It depends on the edit alone, and is kept for further fits of it."""
        key = ("surroundings", edit.prompt, edit.subject, edit.surfaces, edit.locality)
        return self._surroundings.get_or_make(key, lambda: self._look_around(edit, hooks), keep=_KEPT_SURROUNDINGS)

    def _look_around(self, edit: Edit, hooks: Hooks) -> Surroundings:
        view, subject = self._base_view, self._names.find_subject(edit)
        loss = CONFIDENT_LOSS if self._names.has_kind(subject) else SURE_LOSS  # names of any kind make odd questions
        near = find_known(view, near_questions(self._base, edit, self._names), hooks, most=NEAR, loss=loss)
        given = [Question("given", "", (probe.prompt,), surface) for probe in edit.locality for surface in self._base.surfaces]
        own = [question for question in self._questions if subject is not None and question.subject == subject]
        answers = self._answers(edit, hooks) if own else []
        known = find_known(view, own, hooks)
        return Surroundings(subject, tuple(answers), tuple(near), tuple(known), tuple(find_known(view, given, hooks)))

    def _answers(self, edit: Edit, hooks: Hooks) -> list[str]:
        """The answers that the edit changes: the base model's to its prompt, and the one that the client named."""
        surfaces = edit.surfaces or self._base.surfaces
        prompts = [
            ids for surface in surfaces if (ids := encode_if_it_fits(self._base, edit.prompt, surface, ANSWER_TOKENS)) is not None
        ]
        if not prompts:
            return []
        written = decode_greedily(self._base_view, None, prompts, max_new_tokens=ANSWER_TOKENS, yield_to_answers=hooks.begin_step)
        named = [] if edit.ground_truth is None else [edit.ground_truth]
        return [*(decode_answer(self._base, ids) for ids in written), *named]

    def _fixed_rows(self) -> list[tuple[str, Sequence[Row]]]:
        far = () if self._calibration is None else [known.row for known in self._calibration.far]
        return [(name, rows) for name, rows in (("far", far), *self._asker.split("prose", self._prose)) if rows]

    def _floor(self, name: str) -> float | None:
        return None if self._calibration is None else self._calibration.floors.get(name)

    def _view(self, overlay: Overlay) -> View:
        return self._view_of(Overlay(overlay.tensors)) if overlay.tensors else self._base_view


def _rows_around(found: Sequence[Surroundings], edited: Collection[str]) -> dict[str, list[Row]]:
    """By group, the rows around edits. What one of the edits changes on purpose is left out."""
    changed: dict[str | None, list[str]] = {}
    for around in found:
        changed.setdefault(around.subject, []).extend(around.answers)
    return {
        "near": [known.row for around in found for known in around.near if known.subject not in edited],
        "same_subject": [
            known.row for around in found for known in around.same_subject if not is_about(known.answer, changed[around.subject])
        ],
        "given": [known.row for around in found for known in around.given],
    }


def _group(name: str, before: Sequence[bool], after: Sequence[bool], floor: float | None) -> dict[str, Any]:
    kept = share_of(after)
    if kept is None:
        return {}
    lost = sum(was and not now for was, now in zip(before, after, strict=True))
    return {name: {**kept.to_json(), "floor": floor, "newly_lost": lost / kept.n}}


def _is_base(overlay: Overlay) -> bool:
    return overlay.adapter is None and not overlay.tensors
