"""The table of status transitions."""

from service.domain.edit import EditStatus
from service.domain.transitions import ALLOWED, statuses_before


def test_nothing_leads_away_from_retracted() -> None:
    assert ALLOWED[EditStatus.RETRACTED] == frozenset()
    assert EditStatus.RETRACTED not in statuses_before(EditStatus.QUEUED)


def test_writing_a_status_again_is_allowed() -> None:
    for status in EditStatus:
        assert status in statuses_before(status)


def test_every_status_has_a_row_in_the_table() -> None:
    assert set(ALLOWED) == set(EditStatus)
