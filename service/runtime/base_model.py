"""The base model of a process, as the settings name it, under the arithmetic of its store."""

import structlog
import torch

from service.domain.arithmetic import Arithmetic
from service.domain.version import Head
from service.lm.base import Base, load_base, read_files
from service.lm.fingerprint import fingerprint_of
from service.lm.usable_cpus import count_usable_cpus
from service.models.find import FoundModel, find_model
from service.runtime.arithmetic import choose_arithmetic
from service.settings import Settings

log = structlog.get_logger("errata.server")


def open_base(settings: Settings, pinned: Head | None = None) -> tuple[Base, Arithmetic]:
    """Find, fetch or convert the base model, choose the arithmetic, and load the model with it. `pinned`: the head of the store,
    None for a new store or none.

    Tensor operations of this process use the threads of the arithmetic from then on. Raises ServiceError, with advice, if the
    model is not there, cannot be had now or cannot be served, and Conflict if the settings name another dtype than the store's.
    """
    found = _find(settings, pinned)
    if found.card is not None:
        log.info("model file", architecture=found.card.architecture, licence=found.card.licence, source=found.card.source)
    if found.name != settings.model:
        log.info("model pinned", base=found.name)
    arithmetic = choose_arithmetic(settings, found.folder, pinned)
    torch.set_num_threads(arithmetic.threads)
    _log(arithmetic, None if pinned is None else pinned.arithmetic)
    return load_base(found.folder, name=found.name, device=settings.device, dtype=arithmetic.dtype), arithmetic


def read_fingerprint(settings: Settings) -> str:
    """The fingerprint of the base model that the settings name, without loading it.

    Raises what `open_base` raises if the model is not there or its files are damaged.
    """
    return read_files(fingerprint_of, _find(settings, None).folder)


def _find(settings: Settings, pinned: Head | None) -> FoundModel:
    return find_model(
        settings.model,
        models_folder=settings.models_folder,
        may_ask_hub=settings.hub,
        pinned_name=None if pinned is None else pinned.base_name,
        say=lambda step: log.info("preparing the model", step=step),
    )


def _log(chosen: Arithmetic, pinned: Arithmetic | None) -> None:
    log.info(
        "arithmetic",
        dtype=chosen.dtype,
        dtype_reason=chosen.dtype_reason,
        torch_threads=chosen.threads,
        torch_threads_reason=chosen.threads_reason,
    )
    if pinned is not None and pinned.threads != chosen.threads:
        log.warning(
            "torch_threads changed: a fit that is repeated now may come to other bytes", before=pinned.threads, now=chosen.threads
        )
    if chosen.threads > (cpus := count_usable_cpus()):
        log.warning("torch_threads is more than this process has CPUs: set it to fewer", torch_threads=chosen.threads, cpus=cpus)
