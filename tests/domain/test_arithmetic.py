"""A pinned arithmetic holds against the settings, except that other threads may be named."""

from dataclasses import replace

import pytest

from service.domain.arithmetic import SET, Arithmetic, keep_pinned
from service.domain.errors import Conflict

PINNED = Arithmetic(dtype="bfloat16", dtype_reason="measured", threads=4, threads_reason="measured")


@pytest.mark.parametrize(("dtype", "threads"), [(None, None), ("bfloat16", None), (None, 4), ("bfloat16", 4)])
def test_settings_that_agree_or_say_nothing_keep_what_is_pinned_with_its_reasons(dtype: str | None, threads: int | None) -> None:
    assert keep_pinned(PINNED, dtype=dtype, threads=threads) == PINNED


def test_another_dtype_is_refused_with_the_setting_the_pinned_one_and_the_ways_out() -> None:
    with pytest.raises(Conflict, match=r"^dtype must be bfloat16 or auto.*data_dir.*$") as refused:
        keep_pinned(PINNED, dtype="float32", threads=None)

    assert refused.value.field == "dtype"


def test_another_number_of_threads_takes_the_place_of_the_pinned_one() -> None:
    assert keep_pinned(PINNED, dtype=None, threads=2) == replace(PINNED, threads=2, threads_reason=SET)
