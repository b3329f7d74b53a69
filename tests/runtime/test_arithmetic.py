"""The arithmetic of a store: chosen at its first start, pinned, and kept by every later start."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import torch

from service.domain.arithmetic import Arithmetic
from service.domain.errors import Conflict
from service.domain.version import Head
from service.lifecycle.store_identity import read_pinned
from service.runtime import arithmetic
from service.runtime.arithmetic import choose_arithmetic
from service.runtime.assembly import open_server
from service.runtime.base_model import open_base
from service.runtime.open_version import open_version
from service.store.database import Store
from tests.api.live_server import live_server, tiny_settings

OLDER = Head(version=0, epoch=0, fence=0, base_fingerprint="f", base_name="m")
Measured = Callable[..., None]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    """Make any model large enough for a trial, and the trial's times these."""

    def make(
        *, dtypes: tuple[float, float], threads: tuple[float, float] = (1.0, 1.0), cpus: int = 4, units: bool = True
    ) -> None:
        monkeypatch.setattr(arithmetic, "MIN_WEIGHTS", 0)
        monkeypatch.setattr(arithmetic, "time_dtypes", lambda *_: dtypes)
        monkeypatch.setattr(arithmetic, "time_threads", lambda *_: threads)
        monkeypatch.setattr(arithmetic, "count_usable_cpus", lambda: cpus)
        monkeypatch.setattr(arithmetic, "has_bf16_units", lambda: units)

    return make


@pytest.fixture(autouse=True)
def _one_thread_afterwards() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def pinned_in(data_dir: Path) -> Arithmetic | None:
    store = Store(f"sqlite:///{data_dir}/errata.db")
    head = read_pinned(store)
    store.close()
    assert head is not None
    return head.arithmetic


def forget(data_dir: Path) -> None:
    """Make the store one of an older release."""
    store = Store(f"sqlite:///{data_dir}/errata.db")
    with store.write() as connection:
        connection.execute(sa.text("UPDATE head SET dtype = NULL, torch_threads = NULL"))
    store.close()


def test_the_dtype_is_bfloat16_where_it_is_clearly_faster(tiny_model: Path, tmp_path: Path, measured: Measured) -> None:
    settings = tiny_settings(tiny_model, tmp_path, device="cpu")
    for times, expected in (((0.015, 0.010), "bfloat16"), ((0.014, 0.010), "float32")):
        measured(dtypes=times)
        chosen = choose_arithmetic(settings, tiny_model, None)
        assert (chosen.dtype, chosen.dtype_reason) == (
            expected,
            f"measured: bfloat16 10.0 ms, float32 {1000 * times[0]:.1f} ms",
        )

    measured(dtypes=(9.0, 1.0), units=False)
    assert choose_arithmetic(settings, tiny_model, None).dtype_reason == "the processor has no bf16 units"


def test_more_threads_are_used_where_they_are_clearly_faster(tiny_model: Path, tmp_path: Path, measured: Measured) -> None:
    settings = tiny_settings(tiny_model, tmp_path, device="cpu")
    for times, cpus, expected in (((1.3, 1.0), 4, 4), ((1.2, 1.0), 4, 1), ((9.0, 1.0), 64, 8), ((9.0, 1.0), 1, 1)):
        measured(dtypes=(1.0, 1.0), threads=times, cpus=cpus)
        assert choose_arithmetic(settings, tiny_model, None).threads == expected


def test_a_small_model_and_an_older_store_are_not_measured(tiny_model: Path, tmp_path: Path, measured: Measured) -> None:
    settings = tiny_settings(tiny_model, tmp_path, device="cpu")
    small = choose_arithmetic(settings, tiny_model, None)
    measured(dtypes=(9.0, 1.0), threads=(9.0, 1.0))
    older = choose_arithmetic(settings, tiny_model, OLDER)

    assert (small.dtype, small.threads, small.dtype_reason) == ("float32", 1, "the model has fewer than 50 million weights")
    assert (older.dtype, older.threads, older.dtype_reason) == ("float32", 1, "as the release did that made the store")


def test_what_the_settings_name_is_taken_and_not_measured(tiny_model: Path, tmp_path: Path, measured: Measured) -> None:
    measured(dtypes=(9.0, 1.0), threads=(9.0, 1.0))
    settings = tiny_settings(tiny_model, tmp_path, device="cpu", dtype="float16", torch_threads=3)
    set_ = Arithmetic(dtype="float16", dtype_reason="set", threads=3, threads_reason="set")

    assert choose_arithmetic(settings, tiny_model, None) == choose_arithmetic(settings, tiny_model, OLDER) == set_


def test_a_store_keeps_the_dtype_and_the_threads_of_its_first_start(tiny_model: Path, tmp_path: Path, measured: Measured) -> None:
    measured(dtypes=(3.0, 1.0), threads=(3.0, 1.0), cpus=2)
    settings = tiny_settings(tiny_model, tmp_path, device="cpu")
    with live_server(settings) as first:
        model = first.client.get("/model").json()
    measured(dtypes=(1.0, 3.0), cpus=1)

    with open_server(settings) as again, open_version(settings, "head") as (_, view, _):
        assert again.base.dtype == view.base.dtype == torch.bfloat16
        assert torch.get_num_threads() == 2

    assert (model["dtype"], model["torch_threads"]) == ("bfloat16", 2)
    assert model["dtype_reason"] == "measured: bfloat16 1000.0 ms, float32 3000.0 ms"
    assert model["torch_threads_reason"] == "measured: 1 thread 3000.0 ms, 2 threads 1000.0 ms"


def test_a_start_with_another_dtype_is_refused_and_changes_nothing(tiny_model: Path, tmp_path: Path) -> None:
    with open_server(tiny_settings(tiny_model, tmp_path, device="cpu")):
        pass
    before = pinned_in(tmp_path)
    other = tiny_settings(tiny_model, tmp_path, device="cpu", dtype="bfloat16")

    for open_it in (lambda: open_server(other), lambda: open_version(other, "head")):
        with pytest.raises(Conflict, match="dtype must be float32 or auto"), open_it():
            pass

    assert pinned_in(tmp_path) == before


def test_a_start_with_other_threads_pins_them_anew(tiny_model: Path, tmp_path: Path) -> None:
    for settings in ({}, {"torch_threads": 2}, {}):
        with open_server(tiny_settings(tiny_model, tmp_path, device="cpu", **settings)):
            used = torch.get_num_threads()

    found = pinned_in(tmp_path)
    assert found is not None
    assert (used, found.threads, found.threads_reason, found.dtype) == (2, 2, "set", "float32")


def test_an_older_store_gets_its_old_arithmetic_pinned(tiny_model: Path, tmp_path: Path, measured: Measured) -> None:
    settings = tiny_settings(tiny_model, tmp_path, device="cpu")
    with open_server(settings):
        pass
    forget(tmp_path)
    measured(dtypes=(9.0, 1.0), threads=(9.0, 1.0))

    with open_server(settings):
        pass

    found = pinned_in(tmp_path)
    assert found is not None
    assert (found.dtype, found.threads, found.dtype_reason) == ("float32", 1, "as the release did that made the store")


def test_a_version_is_read_without_pinning_anything(tiny_model: Path, tmp_path: Path) -> None:
    settings = tiny_settings(tiny_model, tmp_path, device="cpu")
    with open_server(settings):
        pass
    forget(tmp_path)

    with open_version(settings.model_copy(update={"torch_threads": 2}), "head"):
        assert torch.get_num_threads() == 2

    assert pinned_in(tmp_path) is None


def test_a_benchmark_computes_as_a_new_store_would(tiny_model: Path, tmp_path: Path, measured: Measured) -> None:
    measured(dtypes=(9.0, 1.0), threads=(9.0, 1.0), cpus=2)

    base, chosen = open_base(tiny_settings(tiny_model, tmp_path, device="cpu"))

    assert (base.dtype, chosen.dtype, torch.get_num_threads()) == (torch.bfloat16, "bfloat16", 2)
